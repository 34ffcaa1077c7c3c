"""The life of a pod: given what is known, what should happen next.

Stands apart as the heart of the agent. The worker feeds events into `reception.receive` and asks `decide` after each
of them; `decide` returns the new state (with what it asked for marked as under way, so that nothing is asked twice),
actions in the order in which they may begin, and the time at which to ask again. Leaves out how actions are carried
out, how the result is shown (`status`) and how probes count (`probe`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from pilotage.agent.core import resize
from pilotage.agent.core.actions import (
    Action,
    ConfirmDeletion,
    CreateSandbox,
    MountVolumes,
    RecordEvent,
    RemoveSandbox,
    ResizeContainer,
    ResizeGroup,
    StartContainer,
    StopContainer,
)
from pilotage.agent.core.container import ContainerEvent, ContainerPhase
from pilotage.agent.core.crash_backoff import USUAL, Ceilings
from pilotage.agent.core.pod_spec import all_containers, container_named, is_over, is_sidecar, should_restart, verdict
from pilotage.agent.core.reception import IMAGE_REASONS
from pilotage.agent.core.state import ContainerRecord, PodState, moved
from pilotage.api.core_v1 import Container, Pod

# ErrImagePull is shown for at least so long before it turns into ImagePullBackOff.
PULL_ERROR_SHOWN_S = 1.0
# RunContainerError before it turns into CrashLoopBackOff.
START_ERROR_SHOWN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What `decide` found."""

    state: PodState
    actions: tuple[Action, ...]
    wake_at: float | None  # None: only an event can change anything


@dataclass(slots=True)
class _Course:
    """The work of one `decide`: the state under change, what to do, when to look again."""

    pod: Pod
    state: PodState
    now: float
    ceilings: Ceilings
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


def decide(pod: Pod, state: PodState, now: float, ceilings: Ceilings = USUAL) -> Decision:
    """What to do next. Asking again with nothing changed gives no further action."""
    course = _Course(pod=pod, state=state, now=now, ceilings=ceilings)
    _take_in_ephemeral(course)
    _check_deadline(course)
    if pod.metadata.is_deleting or course.state.ended or course.state.finished or is_over(pod, course.state):
        _end(course)
    else:
        _live(course)
    return Decision(state=course.state, actions=tuple(course.actions), wake_at=course.wake_at)


def _take_in_ephemeral(course: _Course) -> None:
    """Containers that were added to the pod since it began."""
    known = {record.name for record in course.state.records}
    added = (one for one in course.pod.spec.ephemeral_containers if one.name not in known)
    records = tuple(ContainerRecord(name=container.name) for container in added)
    if records:
        course.set(records=(*course.state.records, *records))


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
    mains = [container for container in all_containers(pod) if not is_sidecar(pod, container)]
    sidecars = [container for container in reversed(pod.spec.init_containers) if is_sidecar(pod, container)]
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
        course.set(finished=verdict(pod, state))
    if "creating" in state.sandbox or state.sandbox == "removing" or state.volumes == "mounting":
        return
    if state.sandbox in ("ready", "lost") or state.volumes == "mounted":
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
    if state.ended_grace_s is not None:
        grace_s = min(grace_s, state.ended_grace_s)
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
    if state.sandbox in ("absent", "lost") and course.due(state.sandbox_retry_at):
        group = resize.of_group(resize.as_allocated(course.pod, state))
        course.set(sandbox="creating", group=group, group_resizing=False, group_error="")
        course.actions.append(CreateSandbox())
    _resize(course)
    _stop_condemned(course)
    if state.volumes != "mounted" or state.sandbox != "ready":
        return
    for added in course.pod.spec.ephemeral_containers:
        record = course.state.record(added.name)
        # One that ran in a time nobody remembers is not begun anew.
        if record.phase is not ContainerPhase.WAITING or not record.container_id:
            _try_start(course, added)
    for container in _startable(course):
        _try_start(course, container)


def _startable(course: _Course) -> Iterator[Container]:
    """The containers whose turn has come. Lazily: each init container must have passed before the next is looked at."""
    for container in course.pod.spec.init_containers:
        if course.state.initialized and not is_sidecar(course.pod, container):
            continue
        yield container
        record = course.state.record(container.name)
        if is_sidecar(course.pod, container):
            passed = course.state.initialized or (record.is_running and record.startup_passed)
        else:
            passed = record.phase is ContainerPhase.EXITED and record.termination is not None
            passed = passed and record.termination is not None and record.termination.exit_code == 0
        if not passed:
            return
    course.set(initialized=True)
    yield from course.pod.spec.containers


def _resize(course: _Course) -> None:
    """Hold running containers to what was granted, or stop those that must be started anew for it."""
    _resize_group(course)
    for record in course.state.records:
        if not resize.is_due(record, course.state) or record.stop_message or record.resizing:
            continue
        if resize.needs_restart(container_named(course.pod, record.name), record, course.state):
            course.put(
                msgspec.structs.replace(
                    record,
                    stop_message=f"Container {record.name} resize requires restart",
                    stop_grace_s=float(course.pod.spec.termination_grace_period_seconds),
                    restart_asked=True,
                )
            )
        elif course.due(record.resize_retry_at):
            course.put(msgspec.structs.replace(record, resizing=True))
            course.actions.append(ResizeContainer(name=record.name))
    state = course.state
    if not state.resize_generation or resize.under_way(state):
        return
    told = resize.in_words(state.allocated, state.allocated_whole, state.resize_generation)
    course.set(resize_generation=0)
    course.actions.append(RecordEvent(type="Normal", reason="ResizeCompleted", message=f"Pod resize completed: {told}"))


def _resize_group(course: _Course) -> None:
    """The group around the containers: wide enough for what they are held to and for what they were granted."""
    state = course.state
    if state.sandbox != "ready" or state.group is None or state.group_resizing:
        return
    if state.group == resize.of_group(resize.widest(course.pod, state)):
        course.set(group_error="")
    elif course.due(state.group_retry_at):
        course.set(group_resizing=True)
        course.actions.append(ResizeGroup())


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
            if not should_restart(course.pod, container, record):
                return
            finished_at = record.termination.finished_at if record.termination is not None else course.now
            retry_at = record.crash_backoff.until(finished_at, course.now)
            if course.now >= retry_at:
                _start(course, record)
                return
            course.wake(retry_at)
            if record.termination is not None and record.termination.reason == "StartError":
                course.due(record.termination.finished_at + START_ERROR_SHOWN_S)
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
            elif record.termination is not None and record.termination.reason == "StartError":
                course.due(record.termination.finished_at + START_ERROR_SHOWN_S)
        case ContainerPhase.STARTING | ContainerPhase.RUNNING | ContainerPhase.STOPPING:
            pass
        case _:
            assert_never(record.phase)


def _start(course: _Course, record: ContainerRecord) -> None:
    restarted = record.termination is not None or (record.phase is ContainerPhase.WAITING and bool(record.container_id))
    attempt = record.attempt + 1 if restarted else record.attempt
    backoff = (
        record.crash_backoff.tried(course.now, course.ceilings.crash_s)
        if record.termination is not None
        else record.crash_backoff
    )
    granted = course.state.allocated.get(record.name)
    inherited = resize.inherited(granted, course.state.allocated_whole) if granted is not None else {}
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
            resources=granted,
            inherited=inherited,
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
