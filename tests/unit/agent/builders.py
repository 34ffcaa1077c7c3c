"""Pods in a line, and a driver that plays a pod's life without a machine."""

from collections.abc import Callable
from typing import Any

from pilotage.agent.core import lifecycle, reception, resize
from pilotage.agent.core.actions import Action, RecordEvent, ResizeGroup, StartContainer, StopContainer
from pilotage.agent.core.crash_backoff import USUAL, Ceilings
from pilotage.agent.core.state import (
    ContainerExited,
    ContainerRefused,
    ContainerStarted,
    Event,
    GroupResized,
    GroupResizeFailed,
    PodState,
    SandboxReady,
    SandboxRemoved,
    VolumesMounted,
)
from pilotage.agent.core.status import report
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Pod, PodStatus, ResourceRequirements

NOW = 1_800_000_000.0


def make_pod(*containers: dict[str, Any] | str, **spec: Any) -> Pod:
    """`make_pod("a", init_containers=[…], restartPolicy="Never")`; a string is a container of that name."""

    def full(one: dict[str, Any] | str) -> dict[str, Any]:
        return {"image": "localhost/host"} | ({"name": one} if isinstance(one, str) else one)

    metadata = {"name": "p", "namespace": "ns", "uid": "u1", "generation": 1} | spec.pop("metadata", {})
    status = spec.pop("status", {})
    init = [full(one) for one in spec.pop("init", ())]
    body = {"containers": [full(one) for one in containers], "initContainers": init} | spec
    return convert(Pod, {"metadata": metadata, "spec": body, "status": status})


def deleting(pod: Pod, grace_s: int = 30) -> Pod:
    import msgspec

    metadata = msgspec.structs.replace(
        pod.metadata, deletion_timestamp="2027-01-15T08:00:00Z", deletion_grace_period_seconds=grace_s
    )
    return msgspec.structs.replace(pod, metadata=metadata)


class Life:
    """A pod, its state and a clock; `step` returns the actions that came."""

    def __init__(self, pod: Pod, now: float = NOW, ceilings: Ceilings = USUAL) -> None:
        self.pod = pod
        self.ceilings = ceilings
        self.now = now
        self.state: PodState = reception.begin(pod, now)
        self.wake_at: float | None = None
        self.groups: list[ResourceRequirements] = []  # what the pod's group was to be held to, the latest last
        self.group_refusal = ""  # what the kernel says to the next one; empty: nothing

    def step(self, *events: Event, after_s: float = 0.0) -> list[Action]:
        self.now += after_s
        for event in events:
            self.state = reception.receive(self.pod, self.state, event, self.ceilings)
        decision = lifecycle.decide(self.pod, self.state, self.now, self.ceilings)
        self.state, self.wake_at = decision.state, decision.wake_at
        acts = list(decision.actions)
        if ResizeGroup() not in acts:
            return acts
        return [*(act for act in acts if act != ResizeGroup()), *self.step(self._group_resized())]

    def _group_resized(self) -> Event:
        """As the shell does it: at once."""
        wanted = resize.of_group(resize.widest(self.pod, self.state))
        self.groups.append(wanted)
        refusal, self.group_refusal = self.group_refusal, ""
        if refusal:
            return GroupResizeFailed(message=refusal, at=self.now)
        return GroupResized(resources=wanted)

    def bring_up(self) -> list[Action]:
        """Up to the first containers' starts."""
        self.step()
        return self.step(VolumesMounted(), SandboxReady(pod_ips=("10.0.0.2",)))

    def started(self, name: str) -> list[Action]:
        return self.step(
            ContainerStarted(
                name=name,
                container_id=f"{name}-{self.state.record(name).attempt}",
                image="localhost/host:latest",
                image_id="localhost/host:latest",
                at=self.now,
            )
        )

    def exited(self, name: str, code: int = 0, *, reason: str = "", after_s: float = 0.0) -> list[Action]:
        self.now += after_s
        return self.step(
            ContainerExited(
                name=name,
                container_id=f"{name}-{self.state.record(name).attempt}",
                exit_code=code,
                reason=reason or ("Completed" if code == 0 else "Error"),
                message="",
                started_at=self.now - 1,
                at=self.now,
            )
        )

    def refused(self, name: str, reason: str, message: str = "because") -> list[Action]:
        return self.step(ContainerRefused(name=name, reason=reason, message=message, at=self.now))

    def removed(self) -> list[Action]:
        return self.step(SandboxRemoved())

    def status(self) -> PodStatus:
        return report(self.pod, self.state, host_ips=("10.89.0.11",), now=self.now)


def starts(actions: list[Action]) -> list[str]:
    return [action.name for action in actions if isinstance(action, StartContainer)]


def stops(actions: list[Action]) -> list[tuple[str, float]]:
    return [(action.name, action.grace_s) for action in actions if isinstance(action, StopContainer)]


def told(actions: list[Action]) -> list[tuple[str, str]]:
    return [(action.reason, action.message) for action in actions if isinstance(action, RecordEvent)]


def waiting_reason(status: PodStatus, name: str = "a") -> str:
    found = {one.name: one for one in (*status.init_container_statuses, *status.container_statuses)}
    waiting = found[name].state.waiting
    return waiting.reason if waiting is not None else ""


Check = Callable[[PodStatus], bool]
