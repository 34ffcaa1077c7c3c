"""How many pods a ReplicaSet is short of, or which ones it can spare, and what its status says.

A ReplicationController is the same thing with an older selector, so both kinds pass through here. Fed by
`reconciler.py` with the set and the pods it manages; pure. Leaves out adoption (`pilotage.api.ownership`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from pilotage.api import timestamp
from pilotage.api.apps_v1 import ReplicaSet, ReplicaSetStatus
from pilotage.api.core_v1 import Pod, ReplicationController, ReplicationControllerStatus
from pilotage.api.meta_v1 import Condition
from pilotage.api.pods import available_in_s, is_active, is_terminal, ready_since
from pilotage.api.workloads import with_condition

BURST_MAX = 500
"""Pods created or deleted in one pass, as kube-controller-manager's burst; the rest follows in the next pass."""

ReplicaOwner = ReplicaSet | ReplicationController
ReplicaStatus = ReplicaSetStatus | ReplicationControllerStatus

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Carry out `create` or `delete` (never both are set), then write `status`."""

    create: int
    delete: tuple[Pod, ...]  # first ones first
    status: ReplicaStatus
    check_after_s: float | None  # when a pod becomes available by mere time; None: never


def plan(replicaset: ReplicaOwner, pods: Sequence[Pod], siblings: Iterable[Pod], now: datetime) -> Plan:
    """`pods`: those it manages. `siblings`: active pods of all sets of the same Deployment, its own included."""
    active = [pod for pod in pods if is_active(pod)]
    missing = 0 if replicaset.metadata.is_deleting else replicaset.spec.replicas - len(active)
    waits = [available_in_s(pod, replicaset.spec.min_ready_seconds, now) for pod in active]
    return Plan(
        create=min(max(missing, 0), BURST_MAX),
        delete=rank_for_deletion(active, siblings, now)[: min(max(-missing, 0), BURST_MAX)],
        status=_status(replicaset, pods, active, sum(1 for wait in waits if wait == 0)),
        check_after_s=min((wait for wait in waits if wait), default=None),
    )


def rank_for_deletion(pods: Iterable[Pod], siblings: Iterable[Pod], now: datetime) -> tuple[Pod, ...]:
    """Whom to delete first: what serves least and costs least to lose (KEP-2255 for cost, KEP-2185 for the age scale).

    Unbound before bound, not running before running, not ready before ready, lower deletion cost, more siblings on its
    node, ready for a shorter time (in powers of two, so that age does not decide between near equals), more restarts,
    younger; names settle ties.
    """
    crowd = Counter(pod.spec.node_name for pod in siblings if pod.spec.node_name)

    def rank(pod: Pod) -> tuple[Any, ...]:
        since = ready_since(pod)
        return (
            bool(pod.spec.node_name),
            {"Pending": 0, "": 0, "Unknown": 1}.get(pod.status.phase, 2),
            pod.status.is_ready,
            _cost(pod),
            -crowd[pod.spec.node_name],
            _age_bucket(since, now) if since else 0,
            -max((status.restart_count for status in pod.status.container_statuses), default=0),
            _age_bucket(timestamp.parse(pod.metadata.creation_timestamp), now)
            if pod.metadata.creation_timestamp
            else 0,
            pod.metadata.name,
        )

    return tuple(sorted(pods, key=rank))


def failure_condition(reason: str, message: str, now: datetime) -> Condition:
    """ReplicaFailure: pods could not be created (FailedCreate) or deleted (FailedDelete)."""
    return Condition(
        type="ReplicaFailure",
        status="True",
        reason=reason,
        message=message,
        last_transition_time=timestamp.render(now),
    )


def with_failure(status: ReplicaStatus, failure: Condition | None) -> ReplicaStatus:
    """`status` that tells of `failure`, or of none."""
    kept = tuple(condition for condition in status.conditions if failure or condition.type != "ReplicaFailure")
    return msgspec.structs.replace(status, conditions=with_condition(kept, failure) if failure else kept)


def _status(replicaset: ReplicaOwner, pods: Sequence[Pod], active: Sequence[Pod], available: int) -> ReplicaStatus:
    wanted = ((replicaset.spec.template.get("metadata") or {}).get("labels") or {}).items()
    status = msgspec.structs.replace(
        replicaset.status,
        observed_generation=max(replicaset.metadata.generation, replicaset.status.observed_generation),
        replicas=len(active),
        fully_labeled_replicas=sum(1 for pod in active if wanted <= pod.metadata.labels.items()),
        ready_replicas=sum(1 for pod in active if pod.status.is_ready),
        available_replicas=available,
    )
    if isinstance(status, ReplicationControllerStatus):
        return status  # the older kind does not tell how many are on their way out
    terminating = sum(1 for pod in pods if pod.metadata.is_deleting and not is_terminal(pod))
    return msgspec.structs.replace(status, terminating_replicas=terminating)


def _cost(pod: Pod) -> int:
    try:
        return int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0  # the API's default for nonsense


def _age_bucket(moment: datetime, now: datetime) -> int:
    return int(max((now - moment).total_seconds(), 0.0)).bit_length()
