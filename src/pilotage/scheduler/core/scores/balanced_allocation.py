"""Prefer the node whose CPU and memory would be used in equal shares, so that neither runs out alone."""

from collections.abc import Sequence

from pilotage.scheduler.core.model import CPU, MEMORY, Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import SCORE_MAX, Score


def rate(pod: PodInfo, cluster: Cluster, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    if not (pod.requests.get(CPU) or pod.requests.get(MEMORY)):
        return None  # best effort: there is nothing to balance
    return [_balance(pod, node) for node in nodes]


def _balance(pod: PodInfo, node: NodeInfo) -> float:
    shares = [
        min((node.requested.get(resource, 0) + pod.requests.get(resource, 0)) / node.allocatable[resource], 1.0)
        for resource in (CPU, MEMORY)
        if node.allocatable.get(resource)
    ]
    # With two resources the standard deviation is half of their distance.
    return (1 - (max(shares) - min(shares)) / 2) * SCORE_MAX if shares else 0.0


SCORE = Score(name="NodeResourcesBalancedAllocation", rate=rate, weight=1)
