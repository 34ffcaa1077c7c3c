"""How a pod's state is shown: phase, conditions, container statuses, as the kubelet words them.

Stands apart from `lifecycle` because showing decides nothing. Called by the worker after every change; `patch`
renders what goes over the wire. Leaves out conditions that others own
(PodScheduled, readiness gates, DisruptionTarget).
"""

from typing import Any

import msgspec

from pilotage.agent.core import qos, resize, timestamps
from pilotage.agent.core.container import ContainerPhase
from pilotage.agent.core.crash_backoff import CrashBackoff
from pilotage.agent.core.lifecycle import PULL_ERROR_SHOWN_S, START_ERROR_SHOWN_S
from pilotage.agent.core.pod_spec import all_containers, is_init, is_sidecar
from pilotage.agent.core.reception import IMAGE_REASONS
from pilotage.agent.core.state import ContainerRecord, PodState, Termination
from pilotage.api.codec import to_wire
from pilotage.api.core_v1 import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    HostIP,
    Pod,
    PodCondition,
    PodIP,
    PodStatus,
    ResourceRequirements,
)

RUNTIME_SCHEME = "pilotage"
# Termination messages of all containers of a pod together, as the kubelet allows.
MESSAGES_BYTES_MAX = 12 * 1024
# Conditions of which the agent is the only author.
OWNED_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")
# Those it takes away again.
PASSING_CONDITIONS = ("PodResizePending", "PodResizeInProgress")
# Reasons for which it is the node that ends a pod (KEP-3329).
DISRUPTIONS = frozenset({"Evicted", "Terminated"})


def report(pod: Pod, state: PodState, *, host_ips: tuple[str, ...], now: float) -> PodStatus:
    """The status to publish. Transition times are kept from `pod.status` where nothing changed."""
    init = tuple(container_status(pod, state, container, now) for container in pod.spec.init_containers)
    main = tuple(container_status(pod, state, container, now) for container in pod.spec.containers)
    # Nothing waits for these: they are never ready and count for no condition.
    added = tuple(
        msgspec.structs.replace(container_status(pod, state, container, now), ready=False)
        for container in pod.spec.ephemeral_containers
    )
    phase = _phase(pod, state, init, main)
    granted = resize.of_group(resize.as_allocated(pod, state))
    ips = state.pod_ips if not pod.spec.host_network else (host_ips if state.pod_ips else ())
    return PodStatus(
        phase=phase,
        conditions=_conditions(pod, state, phase, init, main, now),
        reason=state.ended,
        message=state.ended_message,
        host_ip=host_ips[0],
        host_ips=tuple(HostIP(ip=ip) for ip in host_ips),
        pod_ip=ips[0] if ips else "",
        pod_ips=tuple(PodIP(ip=ip) for ip in ips),
        start_time=pod.status.start_time or timestamps.to_text(state.started_at),
        init_container_statuses=init,
        container_statuses=main,
        ephemeral_container_statuses=added,
        qos_class=pod.status.qos_class or qos.qos_class(pod),
        observed_generation=pod.metadata.generation,
        allocated_resources=granted.requests,
        resources=state.group if state.sandbox == "ready" and state.group is not None else granted,
    )


def patch(pod: Pod, status: PodStatus) -> dict[str, Any]:
    """A strategic merge patch for the status subresource, guarded by the pod's uid.

    Fields that may vanish are sent as null; container statuses are whole lists (they merge atomically), conditions
    merge by type, so those of other writers stay.
    """
    wire: dict[str, Any] = {
        "phase": status.phase,
        "observedGeneration": status.observed_generation,
        "hostIP": status.host_ip,
        "hostIPs": [{"ip": one.ip} for one in status.host_ips],
        "startTime": status.start_time,
        "qosClass": status.qos_class,
        "reason": status.reason or None,
        "message": status.message or None,
        "conditions": [*(_condition_wire(condition) for condition in status.conditions), *_vanished(status)],
        "containerStatuses": [_container_wire(one) for one in status.container_statuses],
    }
    if status.allocated_resources:
        wire["allocatedResources"] = status.allocated_resources
    if status.resources is not None:
        wire["resources"] = to_wire(status.resources)
    if status.pod_ip:
        # podIPs merge by address: a list of one must replace whatever a sandbox before it had.
        wire["podIP"] = status.pod_ip
        wire["podIPs"] = [{"$patch": "replace"}, *({"ip": one.ip} for one in status.pod_ips)]
    elif pod.status.pod_ip:
        wire["podIP"] = None
        wire["podIPs"] = None
    if status.init_container_statuses:
        wire["initContainerStatuses"] = [_container_wire(one) for one in status.init_container_statuses]
    if status.ephemeral_container_statuses:
        wire["ephemeralContainerStatuses"] = [_container_wire(one) for one in status.ephemeral_container_statuses]
    return {"metadata": {"uid": pod.metadata.uid}, "status": wire}


def _vanished(status: PodStatus) -> list[dict[str, Any]]:
    """Conditions that exist only while they hold. Removed blindly: our copy of the object may not have them yet."""
    return [{"$patch": "delete", "type": one} for one in PASSING_CONDITIONS if status.condition(one) is None]


def _condition_wire(condition: PodCondition) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason or None,
        "message": condition.message or None,
        "lastProbeTime": None,
        "lastTransitionTime": condition.last_transition_time,
        "observedGeneration": condition.observed_generation,
    }


def _container_wire(status: ContainerStatus) -> dict[str, Any]:
    required = {
        "ready": status.ready,
        "restartCount": status.restart_count,
        "image": status.image,
        "imageID": status.image_id,
        "lastState": {},
    }
    wire: dict[str, Any] = to_wire(status)
    return required | wire | {"started": bool(status.started)}


# ── containers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def container_status(pod: Pod, state: PodState, container: Container, now: float) -> ContainerStatus:
    """One container as the API shows it."""
    record = state.record(container.name)
    shown, before = _states(pod, state, container, record, now)
    done_init = record.termination is not None and record.termination.exit_code == 0
    is_plain_init = is_init(pod, container) and not is_sidecar(pod, container)
    return ContainerStatus(
        name=container.name,
        state=shown,
        last_state=before,
        ready=(record.phase is ContainerPhase.EXITED and done_init) if is_plain_init else _is_ready(record),
        restart_count=record.attempt,
        image=record.image or container.image,
        image_id=record.image_id,
        container_id=container_uri(record.container_id),
        started=record.is_running and record.startup_passed,
        stop_signal=record.stop_signal if record.is_running else "",
        allocated_resources=state.allocated[record.name].requests if record.name in state.allocated else {},
        resources=_in_force(record, state),
    )


def _in_force(record: ContainerRecord, state: PodState) -> ResourceRequirements | None:
    """What the latest container is held to; for one that does not run, what the next one will be."""
    if not record.container_id:
        return None
    return record.resources if record.is_running else state.allocated.get(record.name)


def container_uri(container_id: str) -> str:
    """`pilotage://<id>`; empty for none."""
    return f"{RUNTIME_SCHEME}://{container_id}" if container_id else ""


def _is_ready(record: ContainerRecord) -> bool:
    return record.phase is ContainerPhase.RUNNING and record.ready and record.startup_passed


def _states(
    pod: Pod, state: PodState, container: Container, record: ContainerRecord, now: float
) -> tuple[ContainerState, ContainerState]:
    """`state` and `lastState`."""
    message_bytes_max = MESSAGES_BYTES_MAX // len(all_containers(pod))
    ended = _terminated(record.termination, message_bytes_max)
    before = _terminated(record.last_termination, message_bytes_max)
    match record.phase:
        case ContainerPhase.RUNNING | ContainerPhase.STOPPING:
            return ContainerState(
                running=ContainerStateRunning(started_at=timestamps.to_text(record.started_at))
            ), before
        case ContainerPhase.EXITED:
            return ended, before
        case ContainerPhase.BACKOFF:
            if ended.terminated is not None and ended.terminated.reason == "StartError" and _is_fresh(record, now):
                return _waiting("RunContainerError", ended.terminated.message), ended
            delay_s = CrashBackoff.until(record.crash_backoff, 0.0, now)
            metadata = pod.metadata
            message = (
                f"back-off {_duration(delay_s)} restarting failed container={container.name} "
                f"pod={metadata.name}_{metadata.namespace}({metadata.uid})"
            )
            return _waiting("CrashLoopBackOff", message), ended
        case ContainerPhase.REFUSED:
            if record.refused_reason in IMAGE_REASONS and now >= record.refused_at + PULL_ERROR_SHOWN_S:
                message = f'Back-off pulling image "{container.image}": {record.refused_message}'
                return _waiting("ImagePullBackOff", message), before
            return _waiting(record.refused_reason, record.refused_message), before
        case _:
            initializing = bool(pod.spec.init_containers) and not state.initialized
            own_turn = record.phase is ContainerPhase.STARTING and container not in pod.spec.init_containers
            reason = "PodInitializing" if initializing and not own_turn else "ContainerCreating"
            return _waiting(reason, ""), before


def _is_fresh(record: ContainerRecord, now: float) -> bool:
    return record.termination is not None and now < record.termination.finished_at + START_ERROR_SHOWN_S


def _waiting(reason: str, message: str) -> ContainerState:
    return ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message))


def _terminated(termination: Termination | None, message_bytes_max: int) -> ContainerState:
    if termination is None:
        return ContainerState()
    return ContainerState(
        terminated=ContainerStateTerminated(
            exit_code=termination.exit_code,
            reason=termination.reason,
            message=termination.message.encode()[:message_bytes_max].decode(errors="ignore"),
            started_at=timestamps.to_text(termination.started_at),
            finished_at=timestamps.to_text(termination.finished_at),
            container_id=container_uri(termination.container_id),
        )
    )


def _duration(seconds: float) -> str:
    """As Go prints a duration: 10s, 1m20s."""
    whole = int(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"


# ── phase ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _phase(pod: Pod, state: PodState, init: tuple[ContainerStatus, ...], main: tuple[ContainerStatus, ...]) -> str:
    if state.finished:
        return state.finished
    if not state.initialized and any(
        not is_sidecar(pod, container) or status.state.running is None
        for container, status in zip(pod.spec.init_containers, init, strict=True)
    ):
        return "Pending"
    # A container that waits but has run before counts as stopped, not as pending.
    if any(one.state.running is None and not _has_ended(one) for one in main):
        return "Pending"
    return "Running"


def _has_ended(status: ContainerStatus) -> bool:
    return status.state.terminated is not None or status.last_state.terminated is not None


# ── conditions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _conditions(
    pod: Pod,
    state: PodState,
    phase: str,
    init: tuple[ContainerStatus, ...],
    main: tuple[ContainerStatus, ...],
    now: float,
) -> tuple[PodCondition, ...]:
    containers_ready = _containers_ready(pod, phase, init, main)
    found = {
        "PodReadyToStartContainers": (state.sandbox == "ready", "", ""),
        "Initialized": _initialized(pod, state, phase, init),
        "Ready": _ready(pod, containers_ready),
        "ContainersReady": containers_ready,
    }
    conditions = []
    types: tuple[str, ...] = OWNED_CONDITIONS
    if state.ended in DISRUPTIONS:
        found["DisruptionTarget"] = (True, "TerminationByKubelet", state.ended_message)
        types = (*types, "DisruptionTarget")
    resizes = _resizes(state) if not state.finished else {}
    found |= resizes
    types = (*types, *resizes)
    for type_ in types:
        is_true, reason, message = found[type_]
        status = "True" if is_true else "False"
        before = pod.status.condition(type_)
        unchanged = before is not None and before.status == status and before.last_transition_time
        conditions.append(
            PodCondition(
                type=type_,
                status=status,
                reason=reason,
                message=message,
                last_transition_time=before.last_transition_time
                if before is not None and unchanged
                else timestamps.to_text(now),
                observed_generation=pod.metadata.generation,
            )
        )
    return tuple(conditions)


Finding = tuple[bool, str, str]  # holds, reason, message


def _resizes(state: PodState) -> dict[str, Finding]:
    """PodResizePending and PodResizeInProgress (KEP-1287), present only while they hold."""
    found: dict[str, Finding] = {}
    if state.resize_pending:
        found["PodResizePending"] = (True, state.resize_pending, state.resize_message)
    if resize.under_way(state):
        error = resize.error(state)
        found["PodResizeInProgress"] = (True, "Error" if error else "", error)
    return found


def _initialized(pod: Pod, state: PodState, phase: str, init: tuple[ContainerStatus, ...]) -> Finding:
    if phase == "Succeeded":
        return True, "PodCompleted", ""
    if state.initialized or not init:
        return True, "", ""
    incomplete = [
        status.name
        for container, status in zip(pod.spec.init_containers, init, strict=True)
        if not (status.started if is_sidecar(pod, container) else status.ready)
    ]
    return False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]"


def _containers_ready(
    pod: Pod, phase: str, init: tuple[ContainerStatus, ...], main: tuple[ContainerStatus, ...]
) -> Finding:
    if phase == "Succeeded":
        return False, "PodCompleted", ""
    if phase == "Failed":
        return False, "PodFailed", ""
    sidecars = [
        status for container, status in zip(pod.spec.init_containers, init, strict=True) if is_sidecar(pod, container)
    ]
    unready = [status.name for status in (*sidecars, *main) if not status.ready]
    if unready:
        return False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    return True, "", ""


def _ready(pod: Pod, containers_ready: Finding) -> Finding:
    """Containers ready, and every readiness gate (KEP-580) true."""
    if not containers_ready[0]:
        return containers_ready
    messages = []
    for gate in pod.spec.readiness_gates:
        condition = pod.status.condition(gate.condition_type)
        if condition is None:
            messages.append(f'corresponding condition of pod readiness gate "{gate.condition_type}" does not exist.')
        elif condition.status != "True":
            messages.append(
                f'the status of pod readiness gate "{gate.condition_type}" is not "True", but {condition.status}'
            )
    if messages:
        return False, "ReadinessGatesNotReady", ", ".join(messages)
    return True, "", ""
