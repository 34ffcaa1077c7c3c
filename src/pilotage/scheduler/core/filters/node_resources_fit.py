"""The node must have room: number of pods, and every resource the pod requests."""

from pilotage.scheduler.core.model import PODS, Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.queue import ClusterEvent


def prepare(pod: PodInfo, cluster: Cluster) -> NodeCheck | None:
    wanted = sorted(pod.requests.items())

    def check(node: NodeInfo) -> Rejection | None:
        reasons = []
        resolvable = True
        capacity = node.allocatable.get(PODS)
        if capacity is not None and len(node.pods) + 1 > capacity:
            reasons.append("Too many pods")
        for resource, quantity in wanted:
            allocatable = node.allocatable.get(resource, 0)
            if quantity > allocatable - node.requested.get(resource, 0):
                reasons.append(f"Insufficient {resource}")
                # Not even the empty node could hold it.
                resolvable = resolvable and quantity <= allocatable
        return Rejection(reasons=tuple(reasons), resolvable=resolvable) if reasons else None

    return check


FILTER = Filter(
    name="NodeResourcesFit",
    prepare=prepare,
    wakes=frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED, ClusterEvent.POD_GONE}),
)
