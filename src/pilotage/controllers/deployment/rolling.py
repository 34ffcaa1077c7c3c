"""How far a Deployment may move at once: surge, unavailability, and sharing out a new size among several sets.

Stands apart from the plan because it is arithmetic with bounds that properties can state: after every step
replicas ≤ desired + surge, and available ≥ desired − unavailable as long as pods stay as they are.
"""

from collections.abc import Sequence

from pilotage.api.apps_v1 import Deployment, ReplicaSet
from pilotage.api.workloads import scaled

_MAXIMUM = "deployment.kubernetes.io/max-replicas"


def surge_and_unavailable(deployment: Deployment) -> tuple[int, int]:
    """In pods: surge rounds up, unavailable down; both zero would stand still, so one may then be unavailable."""
    if deployment.spec.strategy.type != "RollingUpdate":
        return 0, 0
    bounds, replicas = deployment.spec.strategy.rolling_update, deployment.spec.replicas
    surge = scaled(bounds.max_surge, replicas, round_up=True)
    unavailable = min(scaled(bounds.max_unavailable, replicas, round_up=False), replicas)
    return surge, unavailable if surge or unavailable else 1


def rolling_step(
    deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]
) -> tuple[int, dict[str, int]]:
    """The new set's size and the sizes of the old ones (by name) that the bounds allow now. `old`: oldest first."""
    desired = deployment.spec.replicas
    surge, unavailable = surge_and_unavailable(deployment)
    sizes = {item.metadata.name: item.spec.replicas for item in old}
    new_size = new.spec.replicas if new else 0
    room = desired + surge - sum(sizes.values()) - new_size
    new_size = desired if new_size > desired else min(new_size + max(room, 0), desired)

    minimum = desired - unavailable
    new_available = min(new.status.available_replicas, new_size) if new else 0
    spare = sum(sizes.values()) + new_size - minimum - (new_size - new_available)
    if spare <= 0:
        return new_size, sizes
    # Pods that do not serve go first: they count against nobody's availability.
    for item in old:
        broken = max(sizes[item.metadata.name] - item.status.available_replicas, 0)
        cut = min(broken, spare)
        sizes[item.metadata.name] -= cut
        spare -= cut
    # A status may lag behind the size; what is counted as serving never exceeds what is asked for.
    serving = new_available + sum(min(item.status.available_replicas, sizes[item.metadata.name]) for item in old)
    surplus = min(serving - minimum, spare)
    for item in old:
        cut = min(sizes[item.metadata.name], max(surplus, 0))
        sizes[item.metadata.name] -= cut
        surplus -= cut
    return new_size, sizes


def proportional(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> dict[str, int]:
    """Sizes by name after `spec.replicas` changed: in the middle of a rollout every set keeps its share."""
    desired = deployment.spec.replicas
    sets = [item for item in (*old, *([new] if new else [])) if item.spec.replicas > 0]
    if not sets:
        return {new.metadata.name: desired} if new else {}
    if len(sets) == 1:
        return {sets[0].metadata.name: desired}
    if new is not None and new.spec.replicas == desired == new.status.available_replicas:
        return {item.metadata.name: 0 for item in old}
    surge, _ = surge_and_unavailable(deployment)
    allowed = desired + surge if desired else 0
    left = allowed - sum(item.spec.replicas for item in sets)
    sizes = {item.metadata.name: item.spec.replicas for item in sets}
    # Biggest first; among equals the newest grows first and the oldest shrinks first.
    ordered = sorted(sets, key=lambda item: item.metadata.creation_timestamp, reverse=left > 0)
    ordered.sort(key=lambda item: -item.spec.replicas)
    for item in ordered:
        share = _share(item, allowed)
        share = max(min(share, left), 0) if left > 0 else min(max(share, left), 0)
        sizes[item.metadata.name] += share
        left -= share
    sizes[ordered[0].metadata.name] = max(sizes[ordered[0].metadata.name] + left, 0)
    return sizes


def _share(item: ReplicaSet, allowed: int) -> int:
    """How much the set grows (or shrinks, below 0) when the total allowed goes from what it was to `allowed`."""
    text = item.metadata.annotations.get(_MAXIMUM, "")
    before = int(text) if text.isdigit() and int(text) else allowed
    return round(item.spec.replicas * allowed / before) - item.spec.replicas if before else -item.spec.replicas
