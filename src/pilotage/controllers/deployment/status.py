"""What a Deployment's status says: counts, Available, Progressing and the progress deadline.

Stands apart because it only reports. `kubectl rollout status` and `kubectl wait` depend on reasons and counts to the
letter; the words are kube-controller-manager's.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from pilotage.api import timestamp
from pilotage.api.apps_v1 import Deployment, DeploymentStatus, ReplicaSet, WorkloadCondition
from pilotage.api.workloads import find_condition, with_condition
from pilotage.controllers.deployment.rolling import surge_and_unavailable

NO_DEADLINE = 2**31 - 1
"""progressDeadlineSeconds of the greatest int32 means none."""

COMPLETE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"
RESUMED = "DeploymentResumed"


def next_status(
    deployment: Deployment,
    new: ReplicaSet | None,
    owned: Sequence[ReplicaSet],
    create: dict[str, Any] | None,
    now: datetime,
) -> DeploymentStatus:
    """`create`: the set about to be created, which is progress in itself."""
    available = sum(item.status.available_replicas for item in owned)
    terminating = [item.status.terminating_replicas for item in owned if item.status.terminating_replicas is not None]
    status = msgspec.structs.replace(
        deployment.status,
        observed_generation=max(deployment.metadata.generation, deployment.status.observed_generation),
        replicas=sum(item.status.replicas for item in owned),
        updated_replicas=new.status.replicas if new else 0,
        ready_replicas=sum(item.status.ready_replicas for item in owned),
        available_replicas=available,
        unavailable_replicas=max(sum(item.spec.replicas for item in owned) - available, 0),
        terminating_replicas=sum(terminating) if terminating else None,
    )
    conditions = with_condition(status.conditions, _available(deployment, available, now))
    progressing = _progressing(deployment, status, new, create, now)
    if progressing is not None:
        conditions = with_condition(conditions, progressing)
    failure = next((c for item in owned for c in item.status.conditions if c.type == "ReplicaFailure"), None)
    conditions = tuple(condition for condition in conditions if condition.type != "ReplicaFailure")
    if failure is not None:
        conditions = with_condition(
            conditions, _condition("ReplicaFailure", "True", failure.reason, failure.message, now)
        )
    return msgspec.structs.replace(status, conditions=_unchanged_kept(deployment.status.conditions, conditions))


def deadline_in_s(deployment: Deployment, status: DeploymentStatus, now: datetime) -> float | None:
    """Seconds until a rollout that does not move has failed; None if it is complete, paused or already failed."""
    progressing = find_condition(status.conditions, "Progressing")
    limit = deployment.spec.progress_deadline_seconds
    if progressing is None or limit >= NO_DEADLINE or progressing.reason in (COMPLETE, TIMED_OUT, PAUSED):
        return None
    return max(limit - _idle_s(progressing, now), 0.0) + 1.0  # times in conditions have whole seconds


def _available(deployment: Deployment, available: int, now: datetime) -> WorkloadCondition:
    _, unavailable = surge_and_unavailable(deployment)
    if available >= deployment.spec.replicas - unavailable:
        return _condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    return _condition(
        "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.", now
    )


def _progressing(
    deployment: Deployment,
    status: DeploymentStatus,
    new: ReplicaSet | None,
    create: dict[str, Any] | None,
    now: datetime,
) -> WorkloadCondition | None:
    """The Progressing condition if it must be written; None to leave it as it is."""
    before = find_condition(deployment.status.conditions, "Progressing")
    if deployment.spec.progress_deadline_seconds >= NO_DEADLINE:
        return None
    if deployment.spec.paused:
        if before is not None and before.reason == PAUSED:
            return None
        return _condition("Progressing", "Unknown", PAUSED, "Deployment is paused", now)
    if create is not None:
        name = create["metadata"]["name"]
        return _condition("Progressing", "True", "NewReplicaSetCreated", f'Created new replica set "{name}"', now)
    subject = f'ReplicaSet "{new.metadata.name}"' if new else f'Deployment "{deployment.metadata.name}"'
    if _is_complete(deployment, status):
        if before is not None and before.reason == COMPLETE:
            return None
        return _condition("Progressing", "True", COMPLETE, f"{subject} has successfully progressed.", now)
    if before is not None and before.reason == PAUSED:
        return _condition("Progressing", "Unknown", RESUMED, "Deployment is resumed", now)
    if before is not None and before.reason == COMPLETE and status.replicas == status.updated_replicas:
        return None  # a finished rollout stays finished when one of its pods fails later
    if before is None or before.reason == COMPLETE or _has_moved(deployment.status, status):
        return _condition("Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.", now)
    if before.reason != TIMED_OUT and _idle_s(before, now) > deployment.spec.progress_deadline_seconds:
        return _condition("Progressing", "False", TIMED_OUT, f"{subject} has timed out progressing.", now)
    return None


def _is_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    desired = deployment.spec.replicas
    return (status.updated_replicas, status.replicas, status.available_replicas) == (desired, desired, desired)


def _has_moved(old: DeploymentStatus, new: DeploymentStatus) -> bool:
    return (
        new.updated_replicas > old.updated_replicas
        or new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        or new.ready_replicas > old.ready_replicas
        or new.available_replicas > old.available_replicas
    )


def _idle_s(condition: WorkloadCondition, now: datetime) -> float:
    text = condition.last_update_time or condition.last_transition_time
    return (now - timestamp.parse(text)).total_seconds() if text else 0.0


def _condition(type: str, status: str, reason: str, message: str, now: datetime) -> WorkloadCondition:
    moment = timestamp.render(now)
    return WorkloadCondition(
        type=type,
        status=status,
        reason=reason,
        message=message,
        last_update_time=moment,
        last_transition_time=moment,
    )


def _unchanged_kept(
    old: tuple[WorkloadCondition, ...], new: tuple[WorkloadCondition, ...]
) -> tuple[WorkloadCondition, ...]:
    """Conditions in a stable order; one that says the same as before, Progressing aside, keeps its times."""
    known = {condition.type: condition for condition in old}
    result = []
    for condition in new:
        before = known.get(condition.type)
        same = before is not None and (before.status, before.reason, before.message) == (
            condition.status,
            condition.reason,
            condition.message,
        )
        result.append(before if same and before is not None and condition.type != "Progressing" else condition)
    order = [condition.type for condition in old]
    return tuple(sorted(result, key=lambda item: order.index(item.type) if item.type in order else len(order)))
