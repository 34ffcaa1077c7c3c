"""Preferred pod affinity and anti-affinity, in both directions, as a sum of weights per domain."""

from collections import Counter
from collections.abc import Iterator, Sequence

from pilotage.scheduler.core.model import AffinityTerm, Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import SCORE_MAX, Score

HARD_AFFINITY_WEIGHT = 1
"""A placed pod that *requires* to be near pods like this one counts this much (hardPodAffinityWeight)."""


def rate(pod: PodInfo, cluster: Cluster, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    weights: Counter[tuple[str, str]] = Counter()
    own = [*pod.preferred_affinity, *((-weight, term) for weight, term in pod.preferred_anti_affinity)]
    if own:
        for node in cluster.nodes.values():
            for other in node.pods.values():
                _add(weights, node, own, other, cluster)
    for existing in cluster.with_affinity.values():
        place = cluster.node_of(existing.key)
        if place is not None:
            _add(weights, place, list(_wishes(existing)), pod, cluster)
    if not any(weights.values()):
        return None
    sums = [sum(weight for (key, value), weight in weights.items() if node.labels.get(key) == value) for node in nodes]
    low, high = min(sums), max(sums)
    return [(value - low) * SCORE_MAX / (high - low) if high > low else 0.0 for value in sums]


def _wishes(existing: PodInfo) -> Iterator[tuple[int, AffinityTerm]]:
    yield from ((HARD_AFFINITY_WEIGHT, term) for term in existing.affinity)
    yield from existing.preferred_affinity
    yield from ((-weight, term) for weight, term in existing.preferred_anti_affinity)


def _add(
    weights: "Counter[tuple[str, str]]",
    node: NodeInfo,
    terms: Sequence[tuple[int, AffinityTerm]],
    other: PodInfo,
    cluster: Cluster,
) -> None:
    for weight, term in terms:
        value = node.labels.get(term.topology_key)
        if value is not None and term.selects(other, cluster.namespaces):
            weights[term.topology_key, value] += weight


SCORE = Score(name="InterPodAffinity", rate=rate, weight=2)
