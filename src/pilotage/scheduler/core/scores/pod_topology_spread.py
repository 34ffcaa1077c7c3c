"""ScheduleAnyway constraints, or the cluster's defaults (hosts and zones): prefer the emptier domains."""

import math
from collections.abc import Sequence

from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import SCORE_MAX, Score
from pilotage.scheduler.core.spread import Constraint, count_domains, default_constraints, stated_constraints


def rate(pod: PodInfo, cluster: Cluster, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    stated = stated_constraints(pod, "ScheduleAnyway")
    constraints = stated or default_constraints(pod)
    if not constraints:
        return None
    # The defaults must not punish nodes without a zone; stated constraints put such nodes last.
    required = tuple(constraint.topology_key for constraint in stated)
    crowding = [0.0] * len(nodes)
    for constraint in constraints:
        _add_crowding(crowding, constraint, pod, cluster, nodes, required)
    ignored = [any(key not in node.labels for key in required) for node in nodes]
    counted = [value for value, skip in zip(crowding, ignored, strict=True) if not skip]
    if not counted:
        return None
    low, high = min(counted), max(counted)
    return [
        0.0 if skip else SCORE_MAX * (high + low - value) / high if high else float(SCORE_MAX)
        for value, skip in zip(crowding, ignored, strict=True)
    ]


def _add_crowding(
    crowding: list[float],
    constraint: Constraint,
    pod: PodInfo,
    cluster: Cluster,
    nodes: Sequence[NodeInfo],
    required: tuple[str, ...],
) -> None:
    """Pods in the node's domain, weighted so that a spread over few domains matters as much as one over many."""
    key = constraint.topology_key
    counts = count_domains(constraint, pod, cluster, required_keys=required or (key,))
    domains = len({node.labels[key] for node in nodes if key in node.labels})
    weight = math.log(domains + 2)
    for index, node in enumerate(nodes):
        value = node.labels.get(key)
        if value is not None:
            crowding[index] += counts.get(value, 0) * weight + (constraint.max_skew - 1)


SCORE = Score(name="PodTopologySpread", rate=rate, weight=2)
