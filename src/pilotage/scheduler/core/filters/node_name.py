"""A pod that names its node goes nowhere else."""

from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.queue import ClusterEvent

_REJECTION = Rejection(reasons=("node(s) didn't match the requested node name",), resolvable=False)


def prepare(pod: PodInfo, cluster: Cluster) -> NodeCheck | None:
    wanted = pod.spec.node_name
    if not wanted:
        return None

    def check(node: NodeInfo) -> Rejection | None:
        return None if node.name == wanted else _REJECTION

    return check


FILTER = Filter(name="NodeName", prepare=prepare, wakes=frozenset({ClusterEvent.NODE_ADDED}))
