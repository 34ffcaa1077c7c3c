"""Host ports must be free: same protocol and port, on the same address or on all."""

from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.queue import ClusterEvent

_REJECTION = Rejection(reasons=("node(s) didn't have free ports for the requested pod ports",))


def prepare(pod: PodInfo, cluster: Cluster) -> NodeCheck | None:
    if not pod.host_ports:
        return None

    def check(node: NodeInfo) -> Rejection | None:
        for taken in node.host_ports.values():
            if any(wanted.conflicts(port) for wanted in pod.host_ports for port in taken):
                return _REJECTION
        return None

    return check


FILTER = Filter(name="NodePorts", prepare=prepare, wakes=frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.POD_GONE}))
