"""nodeSelector and required node affinity: the node's labels must satisfy both."""

from pilotage.api.placement import node_matches
from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.queue import ClusterEvent

_REJECTION = Rejection(reasons=("node(s) didn't match Pod's node affinity/selector",), resolvable=False)


def prepare(pod: PodInfo, cluster: Cluster) -> NodeCheck | None:
    affinity = pod.spec.affinity.node_affinity
    if not pod.spec.node_selector and (
        affinity is None or affinity.required_during_scheduling_ignored_during_execution is None
    ):
        return None

    def check(node: NodeInfo) -> Rejection | None:
        return None if node_matches(pod.spec, node.name, node.labels) else _REJECTION

    return check


FILTER = Filter(
    name="NodeAffinity", prepare=prepare, wakes=frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED})
)
