"""Random walks through a pod's life: whatever happens in whatever order, the promises of the Pod API hold.

What may happen is what the shell may report in the state at hand, a kill of the agent at any moment among it; time only
goes forward. After every step the status is published as the shell would publish it.
"""

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pilotage.agent.core import lifecycle, reception, resize
from pilotage.agent.core.actions import ResizeContainer, StartContainer, StopContainer
from pilotage.agent.core.container import ContainerPhase
from pilotage.agent.core.pod_spec import is_sidecar
from pilotage.agent.core.state import (
    ContainerCondemned,
    ContainerExited,
    ContainerRecord,
    ContainerRefused,
    ContainerResized,
    ContainerResumed,
    ContainerStarted,
    PodMustEnd,
    PodState,
    ProbeChanged,
    ResizeFailed,
    ResizeJudged,
    SandboxFailed,
    SandboxLost,
    SandboxReady,
    SandboxRemoved,
    VolumesFailed,
    VolumesMounted,
)
from pilotage.agent.core.timestamps import from_text
from pilotage.api.codec import convert, decode, encode
from pilotage.api.core_v1 import ContainerStatus, EphemeralContainer, PodCondition, PodStatus, ResourceRequirements

from .builders import Life, deleting, make_pod

OVER = ("Succeeded", "Failed")
PROBE = {"exec": {"command": ["x"]}}
MAINS = st.fixed_dictionaries(
    {},
    optional={
        "readinessProbe": st.just(PROBE),
        "startupProbe": st.just(PROBE),
        "restartPolicy": st.sampled_from(["Always", "OnFailure", "Never"]),
        "restartPolicyRules": st.just([{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]),
        "resizePolicy": st.just([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]),
    },
)
INITS = st.sampled_from([{}, {"restartPolicy": "Always"}, {"restartPolicy": "Always", "startupProbe": PROBE}])


class PodLife(RuleBasedStateMachine):
    """`life` is the core, driven; what it was last seen to say is kept for comparison."""

    life: Life

    @initialize(
        mains=st.lists(MAINS, min_size=1, max_size=3),
        inits=st.lists(INITS, max_size=3),
        policy=st.sampled_from(["Always", "OnFailure", "Never"]),
        deadline_s=st.sampled_from([None, 30, 600]),
        gates=st.booleans(),
    )
    def begin(
        self, mains: list[dict[str, Any]], inits: list[dict[str, Any]], policy: str, deadline_s: int | None, gates: bool
    ) -> None:
        pod = make_pod(
            *({"name": f"c{index}", **one} for index, one in enumerate(mains)),
            init=[{"name": f"i{index}", **one} for index, one in enumerate(inits)],
            restartPolicy=policy,
            activeDeadlineSeconds=deadline_s,
            readinessGates=[{"conditionType": "example.test/gate"}] if gates else [],
        )
        self.life = Life(pod)
        self.begun: set[tuple[str, int]] = set()  # starts that were asked for
        self.counts: dict[str, int] = {}
        self.shown: PodStatus | None = None
        self.over = ""
        self.step()

    # ── what happens ────────────────────────────────────────────────────────────────────────────────────────────

    def step(self, *events: Any) -> None:
        before = {record.name: record for record in self.life.state.records}
        received = self.life.state
        for event in events:
            received = reception.receive(self.life.pod, received, event)
        at_decision = {record.name: record for record in received.records}
        for action in self.life.step(*events):
            match action:
                case StartContainer():
                    assert (action.name, action.attempt) not in self.begun, "started twice"
                    self.begun.add((action.name, action.attempt))
                    record = at_decision.get(action.name)
                    assert record is None or not record.may_have_process
                    assert not self.over
                case StopContainer() | ResizeContainer():
                    assert at_decision[action.name].is_running
                case _:
                    pass
        assert before.keys() <= {record.name for record in self.life.state.records}
        again = lifecycle.decide(self.life.pod, self.life.state, self.life.now)
        assert (again.actions, again.state) == ((), self.life.state), "asked twice"

    def records(self, *phases: ContainerPhase) -> list[ContainerRecord]:
        return [one for one in self.life.state.records if one.phase in phases]

    def pick(self, data: st.DataObject, *phases: ContainerPhase) -> ContainerRecord | None:
        found = self.records(*phases)
        return data.draw(st.sampled_from(found)) if found else None

    @rule(seconds=st.sampled_from([0.1, 1.0, 9.0, 45.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.life.now += seconds
        self.step()

    @rule(data=st.data(), fails=st.booleans())
    def volumes_or_sandbox_come(self, data: st.DataObject, fails: bool) -> None:
        now = self.life.now
        if self.life.state.volumes == "mounting":
            self.step(VolumesFailed(message="m", at=now) if fails else VolumesMounted())
        if self.life.state.sandbox == "creating":
            self.step(SandboxFailed(message="m", at=now) if fails else SandboxReady(pod_ips=("10.0.0.2",)))
        if self.life.state.sandbox == "removing":
            self.step(SandboxRemoved())

    @rule(data=st.data(), outcome=st.sampled_from(["started", "started", "ErrImagePull", "StartError"]))
    def a_start_ends(self, data: st.DataObject, outcome: str) -> None:
        record = self.pick(data, ContainerPhase.STARTING)
        if record is None:
            return
        name, identifier, now = record.name, f"{record.name}-{record.attempt}", self.life.now
        match outcome:
            case "started":
                self.step(ContainerStarted(name=name, container_id=identifier, image="i", image_id="i", at=now))
            case "StartError":
                self.exit(name, identifier, 128, "StartError", started_at=0.0)
            case reason:
                self.begun.discard((name, record.attempt))  # nothing was started: the same attempt is made again
                self.step(ContainerRefused(name=name, reason=reason, message="m", at=now))

    @rule(data=st.data(), code=st.sampled_from([0, 0, 1, 137]))
    def a_container_ends(self, data: st.DataObject, code: int) -> None:
        record = self.pick(data, ContainerPhase.RUNNING, ContainerPhase.STOPPING)
        if record is not None:
            self.exit(record.name, record.container_id, code, "Error" if code else "Completed", record.started_at)

    def exit(self, name: str, identifier: str, code: int, reason: str, started_at: float) -> None:
        self.step(
            ContainerExited(
                name=name, container_id=identifier, exit_code=code, reason=reason, message="", started_at=started_at,
                at=self.life.now,
            )
        )  # fmt: skip

    @rule(data=st.data(), ready=st.booleans())
    def a_probe_concludes(self, data: st.DataObject, ready: bool) -> None:
        record = self.pick(data, ContainerPhase.RUNNING)
        if record is not None and record.startup_passed:
            self.step(ProbeChanged(name=record.name, ready=ready))
        elif record is not None:
            self.step(ProbeChanged(name=record.name, startup_passed=True, ready=True))

    @rule(data=st.data())
    def a_probe_condemns(self, data: st.DataObject) -> None:
        record = self.pick(data, ContainerPhase.RUNNING)
        if record is not None:
            self.step(ContainerCondemned(name=record.name, message="m", grace_s=5))

    @rule(data=st.data(), cpu=st.sampled_from(["100m", "200m"]), reason=st.sampled_from(["", "", "Deferred"]))
    def resources_are_asked_for(self, data: st.DataObject, cpu: str, reason: str) -> None:
        pod = self.life.pod
        resources = convert(ResourceRequirements, {"requests": {"cpu": cpu}})
        mains = tuple(msgspec.structs.replace(one, resources=resources) for one in pod.spec.containers)
        generation = pod.metadata.generation + 1
        self.life.pod = msgspec.structs.replace(
            pod,
            metadata=msgspec.structs.replace(pod.metadata, generation=generation),
            spec=msgspec.structs.replace(pod.spec, containers=mains),
        )
        if not (self.life.state.finished or self.life.state.ended):
            wanted = resize.asked_for(self.life.pod)
            whole = self.life.pod.spec.resources
            self.step(ResizeJudged(allocated=wanted, whole=whole, generation=generation, reason=reason, message="m"))

    @rule(cpu=st.sampled_from(["1", "2", "3"]), refusal=st.sampled_from(["", "busy"]))
    def the_pod_is_resized_as_a_whole(self, cpu: str, refusal: str) -> None:
        whole = ResourceRequirements(requests={"cpu": cpu}, limits={"cpu": cpu})
        spec = msgspec.structs.replace(self.life.pod.spec, resources=whole)
        self.life.pod = msgspec.structs.replace(self.life.pod, spec=spec)
        self.life.group_refusal = refusal
        allocated = resize.asked_for(self.life.pod)
        self.step(ResizeJudged(allocated=allocated, whole=whole, generation=self.life.pod.metadata.generation))

    @rule(fails=st.booleans())
    def the_kernel_resizes(self, fails: bool) -> None:
        for record in [one for one in self.life.state.records if one.resizing]:
            name, identifier = record.name, record.container_id
            if fails:
                self.step(ResizeFailed(name=name, container_id=identifier, message="m", at=self.life.now))
            else:
                wanted = self.life.state.allocated[name]
                inherited = resize.inherited(wanted, self.life.state.allocated_whole)
                resized = ContainerResized(name=name, container_id=identifier, resources=wanted, inherited=inherited)
                self.step(resized)

    @precondition(lambda self: len(self.life.pod.spec.ephemeral_containers) < 2)
    @rule()
    def somebody_debugs(self) -> None:
        pod = self.life.pod
        added = EphemeralContainer(name=f"e{len(pod.spec.ephemeral_containers)}", image="localhost/host")
        spec = msgspec.structs.replace(pod.spec, ephemeral_containers=(*pod.spec.ephemeral_containers, added))
        self.life.pod = msgspec.structs.replace(pod, spec=spec)
        self.step()

    @rule(status=st.sampled_from(["True", "False"]))
    def a_gate_moves(self, status: str) -> None:
        others = [one for one in self.life.pod.status.conditions if one.type != "example.test/gate"]
        shown = msgspec.structs.replace(
            self.life.pod.status, conditions=(*others, PodCondition(type="example.test/gate", status=status))
        )
        self.life.pod = msgspec.structs.replace(self.life.pod, status=shown)

    @rule()
    def the_agent_is_killed(self) -> None:
        """What the disk holds is all that is left; what was under way is looked into by the next agent."""
        state = decode(PodState, encode(self.life.state))
        assert state == self.life.state
        if state.sandbox in ("creating", "removing"):
            state = msgspec.structs.replace(state, sandbox="lost")
        if state.volumes == "mounting":
            state = msgspec.structs.replace(state, volumes="absent")
        self.life.state = msgspec.structs.replace(state, deletion_told=False)
        # Starts that were asked for go on; they are not asked for again.
        running = [one.name for one in self.records(ContainerPhase.RUNNING, ContainerPhase.STOPPING)]
        self.step(*(ContainerResumed(name=name) for name in running))

    @precondition(lambda self: self.life.state.sandbox == "ready")
    @rule(dice=st.integers(0, 3))
    def the_machine_restarts(self, dice: int) -> None:
        if dice == 0:
            self.step(SandboxLost(at=self.life.now))

    @rule(dice=st.integers(0, 9), grace_s=st.sampled_from([0, 30]))
    def somebody_deletes(self, dice: int, grace_s: int) -> None:
        if dice == 0:
            self.life.pod = deleting(self.life.pod, grace_s)
            self.step()

    @rule(dice=st.integers(0, 9), reason=st.sampled_from(["Evicted", "Terminated"]))
    def the_node_ends_it(self, dice: int, reason: str) -> None:
        if dice == 0:
            self.step(PodMustEnd(reason=reason, message="m", grace_s=0.0))

    # ── what always holds ───────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_promises_hold(self) -> None:
        if not hasattr(self, "life"):
            return
        status = self.life.status()
        conditions = {one.type: one for one in status.conditions}
        self.phase_never_leaves_its_end(status)
        self.conditions_agree(status, conditions)
        self.counts_never_fall(status)
        self.times_are_ordered(status)
        others = tuple(one for one in self.life.pod.status.conditions if one.type == "example.test/gate")
        published = msgspec.structs.replace(status, conditions=(*others, *status.conditions))
        self.life.pod = msgspec.structs.replace(self.life.pod, status=published)
        self.shown = status

    def phase_never_leaves_its_end(self, status: PodStatus) -> None:
        if self.over:
            assert status.phase == self.over
        if status.phase in OVER:
            self.over = status.phase
            assert not any(record.may_have_process for record in self.life.state.records)
        else:
            assert status.phase in ("Pending", "Running")

    def conditions_agree(self, status: PodStatus, conditions: dict[str, PodCondition]) -> None:
        true = {name for name, one in conditions.items() if one.status == "True"}
        assert {"PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"} <= conditions.keys()
        if "Ready" in true:
            assert "ContainersReady" in true
        if "ContainersReady" in true:
            assert {"Initialized", "PodReadyToStartContainers"} <= true
            assert status.phase == "Running"
            assert all(one.ready for one in status.container_statuses)
        if status.phase in OVER:
            assert "Ready" not in true
        if status.phase == "Running":
            assert "Initialized" in true or any(
                is_sidecar(self.life.pod, one) for one in self.life.pod.spec.init_containers
            )
        assert "PodResizeInProgress" not in true or status.phase not in OVER
        for one in conditions.values():
            assert one.observed_generation == self.life.pod.metadata.generation == status.observed_generation
            assert one.status == "True" or one.reason or one.type == "PodReadyToStartContainers"

    def all_statuses(self, status: PodStatus) -> tuple[ContainerStatus, ...]:
        return (*status.init_container_statuses, *status.container_statuses, *status.ephemeral_container_statuses)

    def counts_never_fall(self, status: PodStatus) -> None:
        for one in self.all_statuses(status):
            assert one.restart_count >= self.counts.get(one.name, 0)
            self.counts[one.name] = one.restart_count
            shown = [one.state.waiting, one.state.running, one.state.terminated]
            assert sum(part is not None for part in shown) == 1
            assert not one.ready or one.state.running is not None or one.state.terminated is not None

    def times_are_ordered(self, status: PodStatus) -> None:
        now = int(self.life.now)
        for condition in status.conditions:
            at = from_text(condition.last_transition_time)
            before = self.shown.condition(condition.type) if self.shown is not None else None
            assert at <= now
            if before is not None:
                assert at >= from_text(before.last_transition_time)
                if before.status == condition.status:
                    assert condition.last_transition_time == before.last_transition_time
        for one in self.all_statuses(status):
            last = one.last_state.terminated
            for ended in (one.state.terminated, last):
                assert ended is None or from_text(ended.started_at) <= from_text(ended.finished_at) <= now
            if one.state.running is not None and last is not None:
                assert from_text(one.state.running.started_at) >= from_text(last.finished_at)


PodLife.TestCase.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
TestPodLife = PodLife.TestCase
