"""What an event makes of a pod's state.

Stands apart from `lifecycle`, which decides what to do about a state: here nothing is decided but how long to wait.
Leaves out how events come about (the worker, its probes and its actions).
"""

from typing import assert_never

import msgspec

from pilotage.agent.core import resize, timestamps
from pilotage.agent.core.container import ContainerEvent, ContainerPhase
from pilotage.agent.core.crash_backoff import USUAL, Ceilings, CrashBackoff
from pilotage.agent.core.pod_spec import all_containers, container_named
from pilotage.agent.core.state import (
    ContainerCondemned,
    ContainerExited,
    ContainerRecord,
    ContainerRefused,
    ContainerResized,
    ContainerResumed,
    ContainerStarted,
    Event,
    GroupResized,
    GroupResizeFailed,
    PodMustEnd,
    PodState,
    ProbeChanged,
    ResizeFailed,
    ResizeJudged,
    SandboxFailed,
    SandboxLost,
    SandboxReady,
    SandboxRemoved,
    Termination,
    VolumesFailed,
    VolumesMounted,
    moved,
)
from pilotage.api.core_v1 import Pod

# A sandbox or volume that failed is tried again after 1, 2, 4 … seconds, as the kubelet's mounter does (max 2 min 2 s).
RETRY_INITIAL_S = 1.0
RETRY_MAX_S = 122.0
# A container whose configuration is incomplete is looked at again this often even if no object changed.
CONFIG_RETRY_S = 10.0
# A resize that the kernel refused (a limit below what is in use) is tried again after this.
RESIZE_RETRY_S = 10.0

IMAGE_REASONS = frozenset({"ErrImagePull"})


def begin(pod: Pod, now: float) -> PodState:
    """The state of a pod that this node sees for the first time (or whose memory was lost).

    Restart counts go on from what the API says, and a pod that is over stays over.
    """
    shown = pod.status
    statuses = (*shown.init_container_statuses, *shown.container_statuses, *shown.ephemeral_container_statuses)
    known = {status.name: status for status in statuses}
    records = []
    for container in all_containers(pod):
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
    # activeDeadlineSeconds counts from the start that was published, whichever agent did it.
    started_at = timestamps.from_text(pod.status.start_time) if pod.status.start_time else now
    return PodState(
        records=tuple(records),
        started_at=started_at,
        finished=over,
        allocated=resize.asked_for(pod),
        allocated_whole=pod.spec.resources,
    )


def receive(pod: Pod, state: PodState, event: Event, ceilings: Ceilings = USUAL) -> PodState:
    """`state` after `event`. Events about a container that meanwhile was replaced are ignored."""
    replace = msgspec.structs.replace
    match event:
        case SandboxReady():
            return replace(state, sandbox="ready", pod_ips=event.pod_ips, sandbox_error="")
        case SandboxFailed():
            return replace(
                state, sandbox="lost", sandbox_error=event.message, sandbox_retry_at=event.at + RETRY_INITIAL_S
            )
        case SandboxRemoved():
            return replace(state, sandbox="removed", volumes="absent")
        case SandboxLost():
            return _after_loss(pod, state, event.at)
        case PodMustEnd():
            if state.finished or state.ended:
                return state
            return replace(state, ended=event.reason, ended_message=event.message, ended_grace_s=event.grace_s)
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
        case ResizeJudged():
            return _after_judgement(state, event)
        case ContainerResized() | ResizeFailed():
            record = state.record(event.name)
            if record.container_id != event.container_id:
                return state
            if isinstance(event, ContainerResized):
                changed = replace(
                    record, resizing=False, resources=event.resources, inherited=event.inherited, resize_error=""
                )
            else:
                retry_at = event.at + RESIZE_RETRY_S
                changed = replace(record, resizing=False, resize_error=event.message, resize_retry_at=retry_at)
            return state.with_record(changed)
        case GroupResized():
            return replace(state, group=event.resources, group_resizing=False, group_error="")
        case GroupResizeFailed():
            retry_at = event.at + RESIZE_RETRY_S
            return replace(state, group_resizing=False, group_error=event.message, group_retry_at=retry_at)
        case ContainerStarted() | ContainerResumed() | ContainerRefused() | ContainerExited():
            return state.with_record(_receive_container(pod, state.record(event.name), event, ceilings))
        case _:
            assert_never(event)


def _after_judgement(state: PodState, event: ResizeJudged) -> PodState:
    replace = msgspec.structs.replace
    if event.reason:
        return replace(state, resize_pending=event.reason, resize_message=event.message)
    # A change of mind ends the wait for the kernel to accept what was wanted before.
    records = tuple(replace(one, resize_error="", resize_retry_at=0.0) for one in state.records)
    before, after = (state.allocated, state.allocated_whole), (event.allocated, event.whole)
    return replace(
        state,
        records=records,
        allocated=event.allocated,
        allocated_whole=event.whole,
        group_error="",
        group_retry_at=0.0,
        resize_pending="",
        resize_message="",
        resize_generation=event.generation if before != after else state.resize_generation,
    )


def _after_loss(pod: Pod, state: PodState, at: float) -> PodState:
    """All processes are gone with their namespaces: init containers run again, the others as their policy says."""
    records = []
    for record in state.records:
        container = container_named(pod, record.name)
        if record.may_have_process:
            lost = Termination(
                exit_code=255,
                reason="Unknown",
                started_at=record.started_at,
                finished_at=at,
                container_id=record.container_id,
            )
            record = moved(
                record,
                ContainerEvent.EXITED,
                termination=lost,
                last_termination=record.termination,
                ready=False,
                crash_backoff=CrashBackoff(),  # it did not fail: it starts again at once
            )
        again = record.phase in (ContainerPhase.EXITED, ContainerPhase.BACKOFF)
        if again and container in pod.spec.init_containers and not state.finished:
            record = moved(record, ContainerEvent.REPEAT)
        records.append(record)
    return msgspec.structs.replace(
        state,
        records=tuple(records),
        sandbox="lost",
        volumes="absent",
        initialized=False,
        pod_ips=(),
        group=None,
        group_resizing=False,
        group_error="",
    )


def _receive_container(
    pod: Pod,
    record: ContainerRecord,
    event: ContainerStarted | ContainerResumed | ContainerRefused | ContainerExited,
    ceilings: Ceilings,
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
                stop_signal=event.stop_signal,
                started_at=event.at,
                termination=None,
                last_termination=record.termination or record.last_termination,
                refused_reason="",
                refused_message="",
                startup_passed=container.startup_probe is None,
                ready=container.startup_probe is None and container.readiness_probe is None,
                stop_message="",
                restart_asked=False,
            )
        case ContainerResumed():
            return moved(record, ContainerEvent.RESUMED, resizing=False)
        case ContainerRefused():
            if event.reason in IMAGE_REASONS:
                backoff = record.refusal_backoff.tried(event.at, ceilings.image_s)
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
                resizing=False,
                resize_error="",
            )
        case _:
            assert_never(event)
