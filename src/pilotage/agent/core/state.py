"""What the agent remembers of one pod: values that survive its own restart, and the events that change them.

Stands apart from `lifecycle` so that the shell can store and load it without knowing how decisions are made. Times
are seconds since the epoch. Leaves out probes' counters, which start anew with the agent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from pilotage.agent.core.container import ContainerEvent, ContainerPhase, advance
from pilotage.agent.core.crash_backoff import CrashBackoff
from pilotage.api.codec import Value
from pilotage.api.core_v1 import ResourceRequirements


class Termination(Value):
    """How a container's process ended."""

    exit_code: int
    reason: str  # Completed, Error, OOMKilled, StartError, ContainerStatusUnknown
    message: str = ""
    started_at: float = 0.0  # 0: never started
    finished_at: float = 0.0
    container_id: str = ""


class ContainerRecord(Value):
    """One container of the pod. Invariant: `container_id` is set whenever it is running or stopping."""

    name: str
    phase: ContainerPhase = ContainerPhase.WAITING
    attempt: int = 0  # how many times a start was tried after it had run; never falls; shown as restartCount
    container_id: str = ""  # of the latest container, running or not
    image: str = ""
    image_id: str = ""
    stop_signal: str = ""  # as the container or its image names it; empty: TERM
    started_at: float = 0.0
    startup_passed: bool = False  # its startup probe succeeded, or it has none
    ready: bool = False  # its readiness probe succeeded, or it has none
    refused_reason: str = ""  # why it could not be created
    refused_message: str = ""
    refused_at: float = 0.0
    retry_at: float = 0.0  # when a refused or failed container is tried again
    termination: Termination | None = None  # of the latest container, if it has ended
    last_termination: Termination | None = None  # of the one before
    crash_backoff: CrashBackoff = CrashBackoff()
    refusal_backoff: CrashBackoff = CrashBackoff()
    stop_message: str = ""  # why it must stop although the pod lives on (a failed probe or hook)
    stop_grace_s: float = 0.0  # and how long it may take then
    backoff_told: bool = False  # the BackOff event of this wait was sent
    resources: ResourceRequirements | None = None  # in force in the latest container; None: there was none
    inherited: Mapping[str, str] = msgspec.field(
        default_factory=dict
    )  # limits in force that are the pod's, not its own
    resizing: bool = False  # the shell is changing them
    resize_error: str = ""  # why they could not be changed
    resize_retry_at: float = 0.0
    restart_asked: bool = False  # it is stopped only to be started anew, whatever its policy says

    @property
    def is_running(self) -> bool:
        return self.phase in (ContainerPhase.RUNNING, ContainerPhase.STOPPING)

    @property
    def may_have_process(self) -> bool:
        """A process runs, or may be about to."""
        return self.is_running or self.phase is ContainerPhase.STARTING


class PodState(Value):
    """All that is remembered of one pod. Container records stand in the order init containers, containers."""

    records: tuple[ContainerRecord, ...]
    sandbox: str = "absent"  # absent, creating, ready, lost (something of it may stand), removing, removed
    sandbox_retry_at: float = 0.0
    sandbox_error: str = ""
    volumes: str = "absent"  # absent, mounting, mounted
    volumes_retry_at: float = 0.0
    volumes_failures: int = 0
    pod_ips: tuple[str, ...] = ()
    started_at: float = 0.0  # when this agent first saw the pod
    allocated: Mapping[str, ResourceRequirements] = msgspec.field(
        default_factory=dict
    )  # by container: what the node has granted (KEP-1287)
    allocated_whole: ResourceRequirements = (
        ResourceRequirements()
    )  # the same of what the pod states as a whole (KEP-5419)
    group: ResourceRequirements | None = None  # what the pod's group is held to; None: there is no group
    group_resizing: bool = False  # the shell is changing it
    group_error: str = ""  # why it could not be changed
    group_retry_at: float = 0.0
    resize_pending: str = ""  # Deferred or Infeasible: why `allocated` is not what the pod asks for
    resize_message: str = ""
    resize_generation: int = 0  # of the pod whose resize is under way; 0: none is
    initialized: bool = False  # all init containers have once succeeded
    ended: str = ""  # reason why the whole pod must end although nobody deleted it (DeadlineExceeded, Evicted, …)
    ended_message: str = ""
    ended_grace_s: float | None = None  # None: the pod's own grace period
    finished: str = ""  # Succeeded or Failed once the pod is over; never changes again
    stop_deadline: float = 0.0  # when a pod that must end is killed; 0: it need not end
    stop_grace_s: float = 0.0  # the grace period that `stop_deadline` was computed from
    deletion_told: bool = False

    def record(self, name: str) -> ContainerRecord:
        """The record of container `name`; raises `KeyError`."""
        for record in self.records:
            if record.name == name:
                return record
        raise KeyError(name)

    def with_record(self, changed: ContainerRecord) -> "PodState":
        """The same pod with one record exchanged."""
        return msgspec.structs.replace(
            self, records=tuple(changed if record.name == changed.name else record for record in self.records)
        )


# ── events: what the shell tells the core ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxReady:
    """The pod's namespaces and network stand."""

    pod_ips: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxFailed:
    """They could not be created; tried again."""

    message: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRemoved:
    """Nothing of the pod is left on the node but its logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLost:
    """A restarted agent found the namespaces gone (the machine or the cluster was restarted)."""

    at: float  # when it was noticed: nobody saw the end itself


@dataclass(frozen=True, slots=True, kw_only=True)
class PodMustEnd:
    """The node cannot keep the pod (Evicted, OutOfcpu, …); `reason` and `message` become its status."""

    reason: str
    message: str
    grace_s: float | None = None  # None: the pod's own


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumesMounted:
    """Every volume is in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumesFailed:
    """A volume could not be prepared; tried again."""

    message: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStarted:
    """The container's process runs (and its postStart hook, if any, succeeded)."""

    name: str
    container_id: str
    image: str
    image_id: str
    at: float
    stop_signal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerResumed:
    """A restarted agent found the container running."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRefused:
    """The container could not be created. `reason` is the API's waiting reason."""

    name: str
    reason: str
    message: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerExited:
    """The process ended. `started_at` is 0 if it never ran."""

    name: str
    container_id: str
    exit_code: int
    reason: str
    message: str
    started_at: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeChanged:
    """A readiness or startup probe came to a new conclusion."""

    name: str
    ready: bool | None = None  # None: unchanged
    startup_passed: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerCondemned:
    """A probe or hook says that the container must be stopped; it is restarted as its policy says."""

    name: str
    message: str
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeJudged:
    """The node has looked at what the pod asks for now. `reason`: Deferred or Infeasible; empty when it is granted."""

    allocated: Mapping[str, ResourceRequirements]
    whole: ResourceRequirements
    generation: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerResized:
    """The kernel holds a running container to new limits."""

    name: str
    container_id: str
    resources: ResourceRequirements
    inherited: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResized:
    """The kernel holds the pod as a whole to other limits."""

    resources: ResourceRequirements


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResizeFailed:
    """The kernel refused them; tried again."""

    message: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeFailed:
    """The kernel refused them; tried again."""

    name: str
    container_id: str
    message: str
    at: float


Event = (
    SandboxReady
    | SandboxFailed
    | SandboxRemoved
    | PodMustEnd
    | SandboxLost
    | VolumesMounted
    | VolumesFailed
    | ContainerStarted
    | ContainerResumed
    | ContainerRefused
    | ContainerExited
    | ProbeChanged
    | ContainerCondemned
    | ResizeJudged
    | ContainerResized
    | ResizeFailed
    | GroupResized
    | GroupResizeFailed
)


def moved(record: ContainerRecord, event: ContainerEvent, **changes: object) -> ContainerRecord:
    """`record` one step further along the table, with `changes`."""
    return msgspec.structs.replace(record, phase=advance(record.phase, event), **changes)
