"""The life of a pod: given what is known, what should happen next.

Stands apart as the heart of the agent. The worker feeds events into `receive` and asks `decide` after each of them;
`decide` returns the new state (with what it asked for marked as under way, so that nothing is asked twice), actions
in the order in which they may begin, and the time at which to ask again. Leaves out how actions are carried out, how
the result is shown (`status`) and how probes count (`probe`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from pilotage.agent.core.container import ContainerEvent, ContainerPhase
from pilotage.agent.core.state import (
    ContainerCondemned,
    ContainerExited,
    ContainerRecord,
    ContainerRefused,
    ContainerResumed,
    ContainerStarted,
    Event,
    PodState,
    ProbeChanged,
    SandboxFailed,
    SandboxLost,
    SandboxReady,
    SandboxRemoved,
    Termination,
    VolumesFailed,
    VolumesMounted,
    moved,
)
from pilotage.api.core_v1 import Container, Pod

# A sandbox or volume that failed is tried again after 1, 2, 4 … seconds, as the kubelet's mounter does (max 2 min 2 s).
RETRY_INITIAL_S = 1.0
RETRY_MAX_S = 122.0
# A container whose configuration is incomplete is looked at again this often even if no object changed.
CONFIG_RETRY_S = 10.0
# ErrImagePull is shown for at least so long before it turns into ImagePullBackOff.
PULL_ERROR_SHOWN_S = 1.0

IMAGE_REASONS = frozenset({"ErrImagePull"})


# ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class MountVolumes:
    """Prepare every volume, then report `VolumesMounted` or `VolumesFailed`. Independent of the sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSandbox:
    """Create namespaces and network, then report `SandboxReady` or `SandboxFailed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer:
    """Get the image, create, start, run postStart; report `ContainerStarted`, `…Refused` or `…Exited`."""

    name: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopContainer:
    """Run preStop, send the stop signal, kill after `grace_s` in all; a second one of the same name replaces the first.

    `ContainerExited` is reported by whoever watches the process, not by this action.
    """

    name: str
    grace_s: float
    hurry: bool = False  # it was asked before: no hook, no signal, only the nearer deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSandbox:
    """Take down network, namespaces and volumes (no process is left); report `SandboxRemoved`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmDeletion:
    """Delete the object from the API with grace period 0, guarded by its uid, after the last status was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordEvent:
    """Tell the user by an Event."""

    type: str
    reason: str
    message: str
    container: str = ""  # empty: about the pod


Action = MountVolumes | CreateSandbox | StartContainer | StopContainer | RemoveSandbox | ConfirmDeletion | RecordEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What `decide` found."""

    state: PodState
    actions: tuple[Action, ...]
    wake_at: float | None  # None: only an event can change anything


# ── the specification, as lifecycle reads it ────────────────────────────────────────────────────────────────────────


def is_sidecar(container: Container) -> bool:
    """An init container that keeps running beside the main ones (KEP-753)."""
    return container.restart_policy == "Always"


def containers_in_order(pod: Pod) -> tuple[Container, ...]:
    """Init containers, then containers."""
    return (*pod.spec.init_containers, *pod.spec.containers)


def container_named(pod: Pod, name: str) -> Container:
    """The container of that name; raises `KeyError`."""
    for container in containers_in_order(pod):
        if container.name == name:
            return container
    raise KeyError(name)


def _should_restart(pod: Pod, container: Container, record: ContainerRecord) -> bool:
    """Whether an exited container runs again."""
    failed = record.termination is not None and record.termination.exit_code != 0
    if container in pod.spec.init_containers:
        return is_sidecar(container) or (failed and pod.spec.restart_policy != "Never")
    return pod.spec.restart_policy == "Always" or (failed and pod.spec.restart_policy == "OnFailure")


def _is_over(pod: Pod, state: PodState) -> bool:
    """No container will ever run again unless somebody changes the pod: an init container or all main ones ended."""
    for container in pod.spec.init_containers:
        record = state.record(container.name)
        if (
            record.phase is ContainerPhase.EXITED
            and not is_sidecar(container)
            and record.termination is not None
            and record.termination.exit_code != 0
            and pod.spec.restart_policy == "Never"
            and not state.initialized
        ):
            return True
    return all(
        state.record(container.name).phase is ContainerPhase.EXITED
        and not _should_restart(pod, container, state.record(container.name))
        for container in pod.spec.containers
    )


def _verdict(pod: Pod, state: PodState) -> str:
    """Succeeded or Failed, for a pod none of whose processes is left."""
    if state.ended:
        return "Failed"
    mains = [state.record(container.name) for container in pod.spec.containers]
    succeeded = all(record.termination is not None and record.termination.exit_code == 0 for record in mains)
    return "Succeeded" if succeeded else "Failed"


# ── begin, receive ──────────────────────────────────────────────────────────────────────────────────────────────────


def begin(pod: Pod, now: float) -> PodState:
    """The state of a pod that this node sees for the first time (or whose memory was lost).

    Restart counts go on from what the API says, and a pod that is over stays over.
    """
    known = {status.name: status for status in (*pod.status.init_container_statuses, *pod.status.container_statuses)}
    records = []
    for container in containers_in_order(pod):
        status = known.get(container.name)
        ran = status is not None and bool(status.container_id)
        records.append(
            ContainerRecord(
                name=container.name,
                attempt=status.restart_count if status is not None else 0,
                container_id=status.container_id.partition("://")[2] if status is not None and ran else "",
            )
        )
    over = pod.status.phase if pod.status.phase in ("Succeeded", "Failed") else ""
    return PodState(records=tuple(records), started_at=now, finished=over)


def receive(pod: Pod, state: PodState, event: Event) -> PodState:
    """`state` after `event`. Events about a container that meanwhile was replaced are ignored."""
    replace = msgspec.structs.replace
    match event:
        case SandboxReady():
            return replace(state, sandbox="ready", pod_ips=event.pod_ips, sandbox_error="")
        case SandboxFailed():
            return replace(
                state, sandbox="absent", sandbox_error=event.message, sandbox_retry_at=event.at + RETRY_INITIAL_S
            )
        case SandboxRemoved():
            return replace(state, sandbox="removed", volumes="absent")
        case SandboxLost():
            return _after_loss(pod, state)
        case VolumesMounted():
            return replace(state, volumes="mounted", volumes_failures=0)
        case VolumesFailed():
            delay_s = min(RETRY_INITIAL_S * 2 ** min(state.volumes_failures, 16), RETRY_MAX_S)
            return replace(
                state,
                volumes="absent",
                volumes_retry_at=event.at + delay_s,
                volumes_failures=state.volumes_failures + 1,
            )
        case ProbeChanged():
            record = state.record(event.name)
            if not record.is_running:
                return state
            return state.with_record(
                replace(
                    record,
                    ready=record.ready if event.ready is None else event.ready,
                    startup_passed=record.startup_passed if event.startup_passed is None else event.startup_passed,
                )
            )
        case ContainerCondemned():
            record = state.record(event.name)
            if record.phase is not ContainerPhase.RUNNING:
                return state
            return state.with_record(
                replace(record, stop_message=event.message, stop_grace_s=event.grace_s, ready=False)
            )
        case ContainerStarted() | ContainerResumed() | ContainerRefused() | ContainerExited():
            return state.with_record(_receive_container(pod, state.record(event.name), event))
        case _:
            assert_never(event)


def _after_loss(pod: Pod, state: PodState) -> PodState:
    """All processes are gone with their namespaces: init containers run again, the others as their policy says."""
    records = []
    for record in state.records:
        container = container_named(pod, record.name)
        if record.may_have_process:
            lost = Termination(
                exit_code=255, reason="Unknown", started_at=record.started_at, container_id=record.container_id
            )
            record = moved(
                record, ContainerEvent.EXITED, termination=lost, last_termination=record.termination, ready=False
            )
        again = record.phase in (ContainerPhase.EXITED, ContainerPhase.BACKOFF)
        if again and container in pod.spec.init_containers and not state.finished:
            record = moved(record, ContainerEvent.REPEAT)
        records.append(record)
    return msgspec.structs.replace(
        state, records=tuple(records), sandbox="absent", volumes="absent", initialized=False, pod_ips=()
    )


def _receive_container(
    pod: Pod, record: ContainerRecord, event: ContainerStarted | ContainerResumed | ContainerRefused | ContainerExited
) -> ContainerRecord:
    container = container_named(pod, record.name)
    match event:
        case ContainerStarted():
            return moved(
                record,
                ContainerEvent.STARTED,
                container_id=event.container_id,
                image=event.image,
                image_id=event.image_id,
                started_at=event.at,
                termination=None,
                last_termination=record.termination or record.last_termination,
                refused_reason="",
                refused_message="",
                startup_passed=container.startup_probe is None,
                ready=container.startup_probe is None and container.readiness_probe is None,
                stop_message="",
            )
        case ContainerResumed():
            return moved(record, ContainerEvent.RESUMED)
        case ContainerRefused():
            if event.reason in IMAGE_REASONS:
                backoff = record.refusal_backoff.tried(event.at)
                retry_at = event.at + backoff.delay_s
            else:
                backoff, retry_at = record.refusal_backoff, event.at + CONFIG_RETRY_S
            return moved(
                record,
                ContainerEvent.REFUSED,
                refused_reason=event.reason,
                refused_message=event.message,
                refused_at=event.at,
                refusal_backoff=backoff,
                retry_at=retry_at,
                backoff_told=False,
            )
        case ContainerExited():
            if event.container_id != record.container_id and record.phase is not ContainerPhase.STARTING:
                return record
            if not record.may_have_process:
                return record
            termination = Termination(
                exit_code=event.exit_code,
                reason=event.reason,
                message=event.message,
                started_at=event.started_at,
                finished_at=event.at,
                container_id=event.container_id,
            )
            return moved(
                record,
                ContainerEvent.EXITED,
                container_id=event.container_id,
                termination=termination,
                last_termination=record.termination or record.last_termination,
                ready=False,
                startup_passed=False,
                stop_message="",
                backoff_told=False,
            )
        case _:
            assert_never(event)


# ── decide ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Course:
    """The work of one `decide`: the state under change, what to do, when to look again."""

    pod: Pod
    state: PodState
    now: float
    actions: list[Action] = field(default_factory=list)
    wake_at: float | None = None

    def set(self, **changes: object) -> None:
        self.state = msgspec.structs.replace(self.state, **changes)

    def put(self, record: ContainerRecord) -> None:
        self.state = self.state.with_record(record)

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)

    def due(self, at: float) -> bool:
        """True when `at` has come; otherwise it is when to look again."""
        if self.now >= at:
            return True
        self.wake(at)
        return False


def decide(pod: Pod, state: PodState, now: float) -> Decision:
    """What to do next. Asking again with nothing changed gives no further action."""
    course = _Course(pod=pod, state=state, now=now)
    _check_deadline(course)
    if pod.metadata.is_deleting or course.state.ended or course.state.finished or _is_over(pod, course.state):
        _end(course)
    else:
        _live(course)
    return Decision(state=course.state, actions=tuple(course.actions), wake_at=course.wake_at)


def _check_deadline(course: _Course) -> None:
    limit_s = course.pod.spec.active_deadline_seconds
    if limit_s is None or course.state.ended or course.state.finished:
        return
    if course.due(course.state.started_at + limit_s):
        message = "Pod was active on the node longer than the specified deadline"
        course.set(ended="DeadlineExceeded", ended_message=message)
        course.actions.append(RecordEvent(type="Normal", reason="DeadlineExceeded", message=message))


def _end(course: _Course) -> None:
    """Stop main containers together, then sidecars in reverse order, then clear everything away."""
    pod = course.pod
    _set_stop_deadline(course)
    mains = [container for container in containers_in_order(pod) if not is_sidecar(container)]
    sidecars = [container for container in reversed(pod.spec.init_containers) if is_sidecar(container)]
    if any(course.state.record(container.name).may_have_process for container in mains):
        for container in mains:
            _stop(course, container)
        return
    for container in sidecars:
        if course.state.record(container.name).may_have_process:
            _stop(course, container)
            return
    state = course.state
    if not state.finished:
        course.set(finished=_verdict(pod, state))
    if "creating" in state.sandbox or state.sandbox == "removing" or state.volumes == "mounting":
        return
    if state.sandbox == "ready" or state.volumes == "mounted":
        course.set(sandbox="removing")
        course.actions.append(RemoveSandbox())
    elif pod.metadata.is_deleting and not state.deletion_told:
        course.set(deletion_told=True)
        course.actions.append(ConfirmDeletion())


def _set_stop_deadline(course: _Course) -> None:
    """One deadline for the whole pod; a later deletion with a shorter grace period moves it forward."""
    meta, state = course.pod.metadata, course.state
    grace_s = float(course.pod.spec.termination_grace_period_seconds)
    if meta.is_deleting and meta.deletion_grace_period_seconds is not None:
        grace_s = float(meta.deletion_grace_period_seconds)
    if state.stop_deadline == 0.0:
        course.set(stop_deadline=course.now + grace_s, stop_grace_s=grace_s)
    elif grace_s < state.stop_grace_s:
        course.set(stop_deadline=min(state.stop_deadline, course.now + grace_s), stop_grace_s=grace_s)
        for record in state.records:
            if record.phase is ContainerPhase.STOPPING:
                remaining_s = max(course.state.stop_deadline - course.now, 0.0)
                course.actions.append(StopContainer(name=record.name, grace_s=remaining_s, hurry=True))


def _stop(course: _Course, container: Container) -> None:
    record = course.state.record(container.name)
    if record.phase is not ContainerPhase.RUNNING:
        return
    remaining_s = max(course.state.stop_deadline - course.now, 0.0)
    course.put(moved(record, ContainerEvent.STOP, ready=False))
    course.actions.append(
        RecordEvent(
            type="Normal", reason="Killing", message=f"Stopping container {container.name}", container=container.name
        )
    )
    course.actions.append(StopContainer(name=container.name, grace_s=remaining_s))


def _live(course: _Course) -> None:
    state = course.state
    if state.volumes == "absent" and course.due(state.volumes_retry_at):
        course.set(volumes="mounting")
        course.actions.append(MountVolumes())
    if state.sandbox == "absent" and course.due(state.sandbox_retry_at):
        course.set(sandbox="creating")
        course.actions.append(CreateSandbox())
    _stop_condemned(course)
    if state.volumes != "mounted" or state.sandbox != "ready":
        return
    for container in _startable(course):
        _try_start(course, container)


def _startable(course: _Course) -> Iterator[Container]:
    """The containers whose turn has come. Lazily: each init container must have passed before the next is looked at."""
    for container in course.pod.spec.init_containers:
        if course.state.initialized and not is_sidecar(container):
            continue
        yield container
        record = course.state.record(container.name)
        if is_sidecar(container):
            passed = course.state.initialized or (record.is_running and record.startup_passed)
        else:
            passed = record.phase is ContainerPhase.EXITED and record.termination is not None
            passed = passed and record.termination is not None and record.termination.exit_code == 0
        if not passed:
            return
    course.set(initialized=True)
    yield from course.pod.spec.containers


def _stop_condemned(course: _Course) -> None:
    for record in course.state.records:
        if record.phase is ContainerPhase.RUNNING and record.stop_message:
            course.put(moved(record, ContainerEvent.STOP, ready=False))
            course.actions.append(
                RecordEvent(type="Normal", reason="Killing", message=record.stop_message, container=record.name)
            )
            course.actions.append(StopContainer(name=record.name, grace_s=record.stop_grace_s))


def _try_start(course: _Course, container: Container) -> None:
    """Start `container` if it is neither running nor done, and not before its delay is over."""
    record = course.state.record(container.name)
    match record.phase:
        case ContainerPhase.WAITING:
            _start(course, record)
        case ContainerPhase.REFUSED:
            if course.due(record.retry_at):
                _start(course, record)
            else:
                _tell_image_backoff(course, container, record)
        case ContainerPhase.EXITED:
            if not _should_restart(course.pod, container, record):
                return
            finished_at = record.termination.finished_at if record.termination is not None else course.now
            retry_at = record.crash_backoff.until(finished_at, course.now)
            if course.now >= retry_at:
                _start(course, record)
                return
            course.wake(retry_at)
            course.put(moved(record, ContainerEvent.HOLD, retry_at=retry_at, backoff_told=True))
            metadata = course.pod.metadata
            message = (
                f"Back-off restarting failed container {container.name} in pod "
                f"{metadata.name}_{metadata.namespace}({metadata.uid})"
            )
            course.actions.append(
                RecordEvent(type="Warning", reason="BackOff", message=message, container=container.name)
            )
        case ContainerPhase.BACKOFF:
            if course.due(record.retry_at):
                _start(course, record)
        case ContainerPhase.STARTING | ContainerPhase.RUNNING | ContainerPhase.STOPPING:
            pass
        case _:
            assert_never(record.phase)


def _start(course: _Course, record: ContainerRecord) -> None:
    restarted = record.termination is not None or (record.phase is ContainerPhase.WAITING and bool(record.container_id))
    attempt = record.attempt + 1 if restarted else record.attempt
    backoff = record.crash_backoff.tried(course.now) if record.termination is not None else record.crash_backoff
    # Forgetting the container of the try before keeps a late exit of it from being taken for this one's.
    course.put(
        moved(
            record,
            ContainerEvent.START,
            attempt=attempt,
            crash_backoff=backoff,
            container_id="",
            termination=None,
            last_termination=record.termination or record.last_termination,
        )
    )
    course.actions.append(StartContainer(name=record.name, attempt=attempt))


def _tell_image_backoff(course: _Course, container: Container, record: ContainerRecord) -> None:
    if record.refused_reason not in IMAGE_REASONS or record.backoff_told:
        return
    if course.due(record.refused_at + PULL_ERROR_SHOWN_S):
        course.put(msgspec.structs.replace(record, backoff_told=True))
        course.actions.append(
            RecordEvent(
                type="Normal",
                reason="BackOff",
                message=f'Back-off pulling image "{container.image}"',
                container=container.name,
            )
        )
