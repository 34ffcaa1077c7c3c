"""Prefer the node that keeps the greatest free share of CPU and memory."""

from collections.abc import Sequence

from pilotage.scheduler.core.model import CPU, MEMORY, Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import SCORE_MAX, Score


def rate(pod: PodInfo, cluster: Cluster, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    return [
        (
            _free(node.allocatable.get(CPU, 0), node.scored_cpu + pod.scored_cpu)
            + _free(node.allocatable.get(MEMORY, 0), node.scored_memory + pod.scored_memory)
        )
        / 2
        for node in nodes
    ]


def _free(allocatable: int, requested: int) -> float:
    if allocatable <= 0 or requested >= allocatable:
        return 0.0
    return (allocatable - requested) * SCORE_MAX / allocatable


SCORE = Score(name="NodeResourcesFit", rate=rate, weight=1)
