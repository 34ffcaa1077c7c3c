"""A node's NoSchedule and NoExecute taints must all be tolerated."""

from pilotage.api.placement import tolerates
from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.queue import ClusterEvent

_REJECTION = Rejection(reasons=("node(s) had untolerated taint(s)",), resolvable=False)
HARD = ("NoSchedule", "NoExecute")


def prepare(pod: PodInfo, cluster: Cluster) -> NodeCheck | None:
    def check(node: NodeInfo) -> Rejection | None:
        for taint in node.taints:
            if taint.effect in HARD and not tolerates(pod.spec.tolerations, taint):
                return _REJECTION
        return None

    return check


FILTER = Filter(
    name="TaintToleration",
    prepare=prepare,
    wakes=frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED, ClusterEvent.POD_CHANGED}),
)
