"""A cordoned node takes no new pod unless the pod tolerates being there."""

from pilotage.api.core_v1 import Taint
from pilotage.api.placement import UNSCHEDULABLE_TAINT, tolerates
from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.queue import ClusterEvent

CORDON = Taint(key=UNSCHEDULABLE_TAINT, effect="NoSchedule")
_REJECTION = Rejection(reasons=("node(s) were unschedulable",), resolvable=False)


def prepare(pod: PodInfo, cluster: Cluster) -> NodeCheck | None:
    if tolerates(pod.spec.tolerations, CORDON):
        return None

    def check(node: NodeInfo) -> Rejection | None:
        return _REJECTION if node.node.spec.unschedulable else None

    return check


FILTER = Filter(
    name="NodeUnschedulable", prepare=prepare, wakes=frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED})
)
