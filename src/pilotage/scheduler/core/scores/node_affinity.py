"""Preferred node affinity: the weights of the terms that match, added up."""

from collections.abc import Sequence

from pilotage.api.placement import node_term_matches
from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Score, scale


def rate(pod: PodInfo, cluster: Cluster, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    affinity = pod.spec.affinity.node_affinity
    if affinity is None or not affinity.preferred_during_scheduling_ignored_during_execution:
        return None
    terms = affinity.preferred_during_scheduling_ignored_during_execution
    return scale(
        [
            float(sum(term.weight for term in terms if node_term_matches(term.preference, node.name, node.labels)))
            for node in nodes
        ]
    )


SCORE = Score(name="NodeAffinity", rate=rate, weight=2)
