"""From a budget, its pods and the sizes of their workloads to the budget's status. Pure; fed by `reconciler.py`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from pilotage.api import timestamp
from pilotage.api.core_v1 import Pod
from pilotage.api.meta_v1 import UID, ObservedCondition
from pilotage.api.policy_v1 import PodDisruptionBudget, PodDisruptionBudgetStatus
from pilotage.api.workloads import scaled, with_condition

DELETION_S_MAX = 120.0
"""A pod whose eviction was granted but that is not being deleted after this time counts as healthy again."""

ALLOWED = "DisruptionAllowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Write `status`; tell about the pods in `not_deleted`."""

    status: PodDisruptionBudgetStatus
    not_deleted: tuple[Pod, ...]  # granted an eviction long ago, and still there
    check_after_s: float | None  # when a granted eviction runs out; None: never


def needs_sizes(budget: PodDisruptionBudget) -> bool:
    """Whether the expected number is that of the workloads; a plain minAvailable counts the pods there are."""
    return budget.spec.max_unavailable is not None or isinstance(budget.spec.min_available, str)


def plan(budget: PodDisruptionBudget, pods: Sequence[Pod], sizes: Mapping[UID, int] | str, now: datetime) -> Plan:
    """`pods`: those it selects. `sizes`: replicas by the uid of each managing workload, or why they are not known."""
    disrupted, not_deleted, wait = _still_disrupted(budget, pods, now)
    if isinstance(sizes, str):
        # Without the expected number no disruption is safe.
        condition = _condition(budget, "False", "SyncFailed", sizes, now)
        status = msgspec.structs.replace(
            budget.status,
            disruptions_allowed=0,
            observed_generation=budget.metadata.generation,
            conditions=_with(budget.status.conditions, condition),
        )
        return Plan(status=status, not_deleted=not_deleted, check_after_s=wait)
    expected, desired = _wanted(budget, pods, sizes)
    healthy = sum(
        1 for pod in pods if pod.status.is_ready and not pod.metadata.is_deleting and pod.metadata.name not in disrupted
    )
    allowed = max(healthy - desired, 0) if expected > 0 else 0
    reason = "SufficientPods" if allowed else "InsufficientPods"
    condition = _condition(budget, "True" if allowed else "False", reason, "", now)
    status = msgspec.structs.replace(
        budget.status,
        observed_generation=budget.metadata.generation,
        disruptions_allowed=allowed,
        current_healthy=healthy,
        desired_healthy=desired,
        expected_pods=expected,
        disrupted_pods=disrupted,
        conditions=_with(budget.status.conditions, condition),
    )
    return Plan(status=status, not_deleted=not_deleted, check_after_s=wait)


def _wanted(budget: PodDisruptionBudget, pods: Sequence[Pod], sizes: Mapping[UID, int]) -> tuple[int, int]:
    """(expected, desired healthy); percentages are of the expected number and round up, both ways."""
    spec = budget.spec
    total = sum(sizes.values())
    if spec.max_unavailable is not None:
        return total, max(total - scaled(spec.max_unavailable, total, round_up=True), 0)
    if isinstance(spec.min_available, str):
        return total, scaled(spec.min_available, total, round_up=True)
    if spec.min_available is None:
        return 0, 0  # it asks for nothing, and so allows nothing
    return len(pods), spec.min_available


def _still_disrupted(
    budget: PodDisruptionBudget, pods: Iterable[Pod], now: datetime
) -> tuple[dict[str, str], tuple[Pod, ...], float | None]:
    """Evictions granted whose deletion has not been seen; pods that outlived theirs; when the next one runs out."""
    disrupted: dict[str, str] = {}
    overdue: list[Pod] = []
    waits: list[float] = []
    for pod in pods:
        moment = budget.status.disrupted_pods.get(pod.metadata.name)
        if moment is None or pod.metadata.is_deleting:
            continue
        left = (timestamp.parse(moment) + timedelta(seconds=DELETION_S_MAX) - now).total_seconds()
        if left <= 0:
            overdue.append(pod)
        else:
            disrupted[pod.metadata.name] = moment
            waits.append(left)
    return disrupted, tuple(overdue), min(waits, default=None)


def _condition(
    budget: PodDisruptionBudget, status: str, reason: str, message: str, now: datetime
) -> ObservedCondition:  # fmt: skip
    return ObservedCondition(
        type=ALLOWED,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=timestamp.render(now),
        observed_generation=budget.metadata.generation,
    )


def _with(conditions: tuple[ObservedCondition, ...], condition: ObservedCondition) -> tuple[ObservedCondition, ...]:
    return with_condition(conditions, condition)
