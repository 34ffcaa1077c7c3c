"""One pod's shell: feeds events into the core, carries out its actions, publishes its status.

Stands apart because each pod has one, as a task of its own, so that a slow pod never holds up another. Fed by the
agent (new specification, exits, changed references), by probes and by its own actions. Everything here may be
interrupted by `kill -9`: the state on disk says what was under way, and `recover` takes it up again.
"""

import asyncio
import contextlib
import hashlib
from pathlib import Path
from typing import assert_never

import msgspec

from pilotage.agent.container_setup import holder_id
from pilotage.agent.containers import Containers
from pilotage.agent.core import actions, lifecycle, pod_spec, reception, recovery, resize
from pilotage.agent.core.container import ContainerPhase
from pilotage.agent.core.state import (
    ContainerCondemned,
    ContainerExited,
    ContainerResumed,
    ContainerStarted,
    Event,
    GroupResized,
    GroupResizeFailed,
    PodMustEnd,
    PodState,
    ResizeJudged,
    SandboxLost,
    VolumesFailed,
    VolumesMounted,
)
from pilotage.agent.errors import MountFailure
from pilotage.agent.prober import probe_container
from pilotage.agent.publisher import StatusPublisher
from pilotage.agent.runtime import ContainerExit
from pilotage.agent.sandbox import Sandbox
from pilotage.agent.services import NodeServices
from pilotage.api.core_v1 import ObjectReference, Pod
from pilotage.api.status import ApiError, is_conflict, is_not_found
from pilotage.client import ConnectionFailed
from pilotage.kit.backoff import Backoff
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.telemetry import get_logger

REFRESH_RETRY_S = 10.0  # of volumes that could not be brought up to date; they keep their old contents
# Whoever removed the object by force does not want to wait; the process still gets a moment.
GONE_GRACE_S = 2
_RETRY = Backoff(initial_s=0.1, max_s=5.0)
_log = get_logger()


class PodWorker:
    """The life of one pod, by uid."""

    def __init__(self, pod: Pod, node: NodeServices, *, static: bool = False) -> None:
        self.uid = pod.metadata.uid
        self.pod = pod
        self.static = static  # from a file of this node: `mirror` shows it in the API
        self.mirror: Pod | None = None  # None: the API does not show it (yet), or it is an ordinary pod
        self.gone = False  # from the API: nothing is published any more
        self._node = node
        self._state = reception.begin(pod, self.now())
        self._recovering = False
        self._clearing = False  # the pod's directory is going: nothing may be written to it any more
        self._events: list[Event] = []
        self._sandbox = Sandbox(self, node)
        self._containers = Containers(self, self._sandbox, node)
        self._publisher = StatusPublisher(node, is_wanted=self._is_shown)
        self._wake = asyncio.Event()
        self._finished = asyncio.Event()
        self._wake_at: float | None = None  # None: nothing is due
        self._refresh_wanted = False  # volumes may be out of date
        self._judged: Pod | None = None  # as it was when the node last looked at its resources; None: it must look

    # ── what others may ask ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> PodState:
        return self._state

    @property
    def allocated(self) -> Pod:
        """The pod with the resources that the node has granted."""
        return resize.as_allocated(self.pod, self._state)

    @property
    def finished(self) -> bool:
        """Nothing of the pod is left to do; the worker has ended or is about to."""
        return self._finished.is_set()

    def container_id(self, name: str) -> str:
        """The running (or last) container of that name; empty if there never was one."""
        try:
            return self._state.record(name).container_id
        except KeyError:
            return ""

    def log_path(self, name: str, *, previous: bool = False) -> Path | None:
        """The log of the latest attempt, or of the one before."""
        try:
            attempt = self._state.record(name).attempt
        except KeyError:
            return None
        path = self.log_path_of(name, attempt - 1 if previous else attempt)
        if not previous and not path.exists() and attempt > 0:
            path = self.log_path_of(name, attempt - 1)  # the next attempt has not begun
        return path if path.exists() else None

    def waiting_reason(self, name: str) -> str:
        """Why a container has no log yet."""
        shown = self._publisher.status
        found = (
            (*shown.container_statuses, *shown.init_container_statuses, *shown.ephemeral_container_statuses)
            if shown is not None
            else ()
        )
        waiting = next((one.state.waiting for one in found if one.name == name), None)
        return waiting.reason if waiting is not None else "ContainerCreating"

    def update(self, pod: Pod) -> None:
        """The object changed."""
        before, self.pod = self.pod, pod
        # Most changes are echoes of our own status.
        if not self._clearing and (before.spec != pod.spec or before.metadata.is_deleting != pod.metadata.is_deleting):
            self._node.memory.save_pod(pod)
        now, then = pod.metadata, before.metadata
        if (now.labels, now.annotations) != (then.labels, then.annotations):
            self._refresh_wanted = True
        self._wake.set()

    def vanish(self) -> None:
        """The object is gone from the API: stop everything, publish nothing."""
        self.gone = True
        self._end_within(GONE_GRACE_S)

    def withdraw(self) -> None:
        """The file of a static pod is gone: stop everything, in the pod's own time."""
        self._end_within(self.pod.spec.termination_grace_period_seconds)

    def _end_within(self, grace_s_max: int) -> None:
        metadata = self.pod.metadata
        grace_s = self.pod.spec.termination_grace_period_seconds
        if metadata.deletion_grace_period_seconds is not None:
            grace_s = metadata.deletion_grace_period_seconds
        metadata = msgspec.structs.replace(
            metadata,
            deletion_timestamp=metadata.deletion_timestamp or self._node.clock.wall().isoformat(),
            deletion_grace_period_seconds=min(grace_s, grace_s_max),
        )
        self.pod = msgspec.structs.replace(self.pod, metadata=metadata)
        self._wake.set()

    def mirror_changed(self, mirror: Pod | None) -> None:
        """The object that shows a static pod came, changed or went."""
        before, self.mirror = self.mirror, mirror
        if mirror is not None and (before is None or before.metadata.uid != mirror.metadata.uid):
            self._publisher.repeat(self._as_shown())
        self._wake.set()

    def _is_shown(self) -> bool:
        return not self.gone and (self.mirror is not None or not self.static)

    def _as_shown(self) -> Pod:
        """The pod as an object of the API: conditions of others and the identity are the mirror's."""
        if self.mirror is None:
            return self.pod
        metadata = msgspec.structs.replace(self.pod.metadata, uid=self.mirror.metadata.uid)
        return msgspec.structs.replace(self.pod, metadata=metadata, status=self.mirror.status)

    def post(self, event: Event) -> None:
        """Something happened."""
        self._events.append(event)
        self._wake.set()

    def container_ended(self, exit_: ContainerExit) -> None:
        """The runtime saw a container of this pod end."""
        self._containers.ended(exit_)

    def owns(self, container_id: str) -> bool:
        """Whether this pod has (or is starting) that container."""
        return self._containers.knows(container_id) or any(
            record.container_id == container_id for record in self._state.records
        )

    def keeps(self, container_id: str) -> bool:
        """Whether it is this pod's, or an interrupted start was about it, or it holds the pod's processes."""
        starting = (record for record in self._state.records if record.phase is ContainerPhase.STARTING)
        return (
            self.owns(container_id)
            or any(self.new_id(record.name, record.attempt) == container_id for record in starting)
            or container_id == holder_id(self.uid)
        )

    def end(self, reason: str, message: str, *, grace_s: float) -> None:
        """The node goes down; the pod has at most this long."""
        self.post(PodMustEnd(reason=reason, message=message, grace_s=grace_s))

    async def publish(self) -> None:
        """See that the API has the latest status; raises `ApiError`, `ConnectionFailed`."""
        await self._publisher.write()

    def reject(self, reason: str, message: str) -> None:
        """The node does not take the pod. Before `run`."""
        self.tell("Warning", reason, message.removeprefix("Pod was rejected: "))
        self.post(PodMustEnd(reason=reason, message=message))

    def evict(self, message: str, *, grace_s: float) -> None:
        """The node takes its resources back."""
        self.tell("Warning", "Evicted", message)
        self.post(PodMustEnd(reason="Evicted", message=message, grace_s=grace_s))

    def room_changed(self) -> None:
        """A resize that had to wait may be possible now."""
        self._judged = None
        self._wake.set()

    def references_changed(self) -> None:
        """A ConfigMap or Secret of this pod changed: containers that could not be configured are tried at once."""
        for record in self._state.records:
            if record.phase is ContainerPhase.REFUSED and record.refused_reason == "CreateContainerConfigError":
                self._state = self._state.with_record(msgspec.structs.replace(record, retry_at=0.0))
        if self._state.volumes == "absent":
            self._state = msgspec.structs.replace(self._state, volumes_retry_at=0.0)
        self._refresh_wanted = True
        self._wake.set()

    # ── recovery ────────────────────────────────────────────────────────────────────────────────────────────────

    def recover(self, state: PodState) -> None:
        """Take up what an earlier agent left. Before `run`."""
        self._recovering = True
        self._state = state = recovery.taken_up(state)
        # The agent before may have died while it cleared an ended one away; once it is restarted nobody knows of it.
        ended = (record.container_id for record in state.records if not record.is_running)
        self._containers.dead.extend(filter(None, ended))
        if not self._sandbox.restore(state):
            self.post(SandboxLost(at=self.now()))
            self._containers.dead.extend(record.container_id for record in state.records if record.is_running)
            return
        for record in state.records:
            if not record.is_running:
                continue
            self._containers.resume(record.container_id)
            found = self._node.runtime.find(record.container_id)
            if found is not None and found.running:
                self.post(ContainerResumed(name=record.name))
            elif found is not None and found.exit is not None:
                self._containers.report_exit(found.exit)
            else:
                self.post(recovery.lost(record, self.now()))

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Until the pod is gone from node and API, or cancelled (then everything of it runs on)."""
        self._node.memory.save_pod(self.pod)
        async with task_set() as tasks:
            tasks.start(self._publisher.run(), key="publisher")
            if self._recovering:
                self._repeat_starts(tasks)
            while not self._finished.is_set():
                self._step(tasks)
                timeout_s = self._timeout_s()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        await self._wake.wait()
                self._wake.clear()

    def _repeat_starts(self, tasks: TaskSet) -> None:
        for record in self._state.records:
            if record.phase is ContainerPhase.STARTING:
                action = actions.StartContainer(name=record.name, attempt=record.attempt)
                tasks.start(self._containers.start(action), key=("start", record.name))

    def _timeout_s(self) -> float | None:
        times = [at for at in (self._wake_at, self._node.volumes.refresh_at(self.uid)) if at is not None]
        return max(min(times) - self.now(), 0.0) if times else None

    def _step(self, tasks: TaskSet) -> None:
        """Events in, actions out, until nothing changes at once."""
        before = self._state
        events, self._events = self._events, []
        for event in events:
            self._state = reception.receive(self.pod, self._state, event, self._node.ceilings)
            self._follow_probes(event, tasks)
        self._judge_resize()
        decision = lifecycle.decide(self.pod, self._state, self.now(), self._node.ceilings)
        self._state, self._wake_at = decision.state, decision.wake_at
        if self._state != before and not self._clearing:
            self._node.memory.save(self.uid, self._state)
        if self._state.stop_deadline:
            self._containers.end_hooks(self._state.stop_deadline - self.now())
        dead, self._containers.dead = self._containers.dead, []
        for container_id in dead:
            tasks.start(self._containers.remove(container_id))
        for action in decision.actions:
            self._begin(action, tasks)
        self._publisher.report(self._as_shown(), self._state)
        if _room_of(self._state) != _room_of(before):
            self._node.room_changed()
        if self._state.volumes == "mounted" and "refresh" not in tasks:
            refresh_at = self._node.volumes.refresh_at(self.uid)
            if self._refresh_wanted or (refresh_at is not None and refresh_at <= self.now()):
                self._refresh_wanted = False
                tasks.start(self._refresh_volumes(), key="refresh")

    def _judge_resize(self) -> None:
        """Ask the node once for every change of what the pod asks for."""
        state, before = self._state, self._judged
        if before is not None and (before is self.pod or resize.is_as_before(before, self.pod)):
            return
        self._judged = self.pod
        over = state.finished or state.ended or self.pod.metadata.is_deleting
        if over or not (resize.is_asked_for(self.pod, state) or state.resize_pending):
            return
        wanted, whole, generation = resize.asked_for(self.pod), self.pod.spec.resources, self.pod.metadata.generation
        rejection = self._node.judge_resize(self.pod)
        if rejection is None:
            if resize.is_asked_for(self.pod, state):
                told = resize.in_words(wanted, whole, generation)
                self.tell("Normal", "ResizeStarted", f"Pod resize started: {told}")
            judged = ResizeJudged(allocated=wanted, whole=whole, generation=generation)
        else:
            reason, message = rejection.reason, rejection.message
            if (reason, message) != (state.resize_pending, state.resize_message):
                told = resize.in_words(wanted, whole, generation, message)
                self.tell("Warning", f"Resize{reason}", f"Pod resize {reason}: {told}")
            judged = ResizeJudged(allocated=wanted, whole=whole, generation=generation, reason=reason, message=message)
        self._state = reception.receive(self.pod, state, judged)

    def _resize_group(self) -> None:
        """The pod's group, as wide as its containers need it now; the outcome is posted."""
        state = self._state
        wanted = resize.widest(self.pod, state)
        try:
            self._node.open_groups(wanted)
        except OSError as error:
            told = resize.in_words(state.allocated, state.allocated_whole, state.resize_generation, str(error))
            self.tell("Warning", "ResizeError", f"Pod resize error: {told}")
            self.post(GroupResizeFailed(message=str(error), at=self.now()))
        else:
            self.post(GroupResized(resources=resize.of_group(wanted)))

    def _follow_probes(self, event: Event, tasks: TaskSet) -> None:
        """Probes run exactly while their container does."""
        match event:
            case ContainerStarted() | ContainerResumed():
                container = pod_spec.container_named(self.pod, event.name)
                if container.startup_probe or container.liveness_probe or container.readiness_probe:
                    grace_s = float(self.pod.spec.termination_grace_period_seconds)
                    tasks.start(
                        probe_container(
                            container,
                            self._state.record(event.name),
                            pod_ip=self.pod_ip,
                            grace_s=grace_s,
                            resumed=isinstance(event, ContainerResumed),
                            checker=self._node.checker,
                            post=self.post,
                            tell=lambda type_, reason, message: self.tell(type_, reason, message, container.name),
                            clock=self._node.clock,
                        ),
                        key=("probes", event.name),
                    )
            case ContainerExited() | ContainerCondemned():
                tasks.cancel(("probes", event.name))
            case SandboxLost():
                for record in self._state.records:
                    tasks.cancel(("probes", record.name))
            case _:
                pass

    def _begin(self, action: actions.Action, tasks: TaskSet) -> None:
        match action:
            case actions.MountVolumes():
                tasks.start(self._mount_volumes())
            case actions.CreateSandbox():
                tasks.start(self._sandbox.create())
            case actions.StartContainer():
                tasks.start(self._containers.start(action), key=("start", action.name))
            case actions.StopContainer():
                tasks.cancel(("probes", action.name))
                tasks.start(self._containers.stop(action), key=("stop", action.name))
            case actions.ResizeGroup():
                self._resize_group()
            case actions.ResizeContainer():
                tasks.start(self._containers.resize(action), key=("resize", action.name))
            case actions.RemoveSandbox():
                tasks.start(self._remove_sandbox())
            case actions.ConfirmDeletion():
                tasks.start(self._confirm_deletion())
            case actions.RecordEvent():
                self.tell(action.type, action.reason, action.message, action.container)
            case _:
                assert_never(action)

    # ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _mount_volumes(self) -> None:
        try:
            await self._node.volumes.mount(self.pod)
        except MountFailure as error:
            self.tell("Warning", "FailedMount", str(error))
            self.post(VolumesFailed(message=str(error), at=self.now()))
        else:
            self.post(VolumesMounted())

    async def _refresh_volumes(self) -> None:
        """Bring contents up to date after a change of a ConfigMap, a Secret, a label, or when a token grows old."""
        try:
            await self._node.volumes.mount(self.pod)
        except MountFailure as error:
            self.tell("Warning", "FailedMount", str(error))
            await asyncio.sleep(REFRESH_RETRY_S)
            self._refresh_wanted = True
        # One more look once this task is no longer counted as running.
        asyncio.get_running_loop().call_soon(self._wake.set)

    async def _remove_sandbox(self) -> None:
        for record in self._state.records:
            if record.container_id:
                await self._containers.remove(record.container_id)
        await self._sandbox.remove()

    async def _confirm_deletion(self) -> None:
        """Last status first, then the object, then what is left on disk."""
        failures = 0
        while not (self.gone or self.static):
            try:
                await self._publisher.write()
                await self._node.client.delete(
                    Pod,
                    self.pod.metadata.name,
                    namespace=self.pod.metadata.namespace,
                    grace_period_s=0,
                    uid=self.uid,
                )
                break
            except ApiError as error:
                if is_not_found(error) or is_conflict(error):
                    break
                failures += 1
                _log.warning("cannot delete pod", pod=self.pod.metadata.key, error=str(error)[:300])
            except ConnectionFailed:
                failures += 1
            await asyncio.sleep(_RETRY.delay_s(failures))
        self._clearing = True
        await asyncio.to_thread(self._node.memory.forget, self.uid)
        self._finished.set()
        self._wake.set()

    # ── small things ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def directory(self) -> Path:
        return self._node.memory.directory(self.uid)

    @property
    def pod_ip(self) -> str:
        return self._state.pod_ips[0] if self._state.pod_ips else ""

    def new_id(self, name: str, attempt: int) -> str:
        """Derived, not random: an agent that died in the middle of a start finds the container it was starting."""
        return hashlib.sha256(f"{self.uid}/{name}/{attempt}".encode()).hexdigest()[:32]

    def log_path_of(self, name: str, attempt: int) -> Path:
        return self.directory / "logs" / name / f"{attempt}.log"

    def tell(self, type_: str, reason: str, message: str, container: str = "") -> None:
        metadata = self.pod.metadata
        path = pod_spec.field_path(self.pod, container) if container else ""
        reference = ObjectReference(
            api_version="v1",
            kind="Pod",
            namespace=metadata.namespace,
            name=metadata.name,
            uid=metadata.uid,
            field_path=path,
        )
        record = self._node.events.warning if type_ == "Warning" else self._node.events.normal
        record(reference, reason, message)

    def now(self) -> float:
        return self._node.clock.wall().timestamp()


def _room_of(state: PodState) -> tuple[object, ...]:
    """What other pods of the node have less or more room by."""
    return (state.finished, state.allocated, state.allocated_whole)
