"""Scores, one a file, with kube-scheduler's weights; the order does not matter, the totals are sums."""

from pilotage.scheduler.core.plugin import Score
from pilotage.scheduler.core.scores import (
    balanced_allocation,
    image_locality,
    inter_pod_affinity,
    least_allocated,
    node_affinity,
    pod_topology_spread,
    taint_toleration,
)

SCORES: tuple[Score, ...] = (
    taint_toleration.SCORE,
    node_affinity.SCORE,
    pod_topology_spread.SCORE,
    inter_pod_affinity.SCORE,
    least_allocated.SCORE,
    balanced_allocation.SCORE,
    image_locality.SCORE,
)

__all__ = ["SCORES"]
