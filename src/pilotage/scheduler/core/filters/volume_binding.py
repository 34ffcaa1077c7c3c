"""The volumes that a pod's claims are bound to must be reachable from the node, by what the volumes say of nodes."""

from pilotage.api.placement import node_selector_matches
from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.queue import ClusterEvent
from pilotage.scheduler.core.volumes import claims

_CONFLICT = Rejection(reasons=("node(s) had volume node affinity conflict",), resolvable=False)
_ABSENT = Rejection(
    reasons=("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",), resolvable=False
)


def prepare(pod: PodInfo, cluster: Cluster) -> NodeCheck | None:
    names = [claim.volume for _, claim in claims(pod, cluster)]
    if not names:
        return None
    found = [cluster.volumes.get(name) for name in names]
    wanted = [
        volume.spec.node_affinity.required
        for volume in found
        if volume is not None and volume.spec.node_affinity is not None and volume.spec.node_affinity.required
    ]

    def check(node: NodeInfo) -> Rejection | None:
        if None in found:
            return _ABSENT
        reaches = all(node_selector_matches(selector, node.name, node.labels) for selector in wanted)
        return None if reaches else _CONFLICT

    return check


FILTER = Filter(
    name="VolumeBinding",
    prepare=prepare,
    wakes=frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED, ClusterEvent.CLAIM_CHANGED}),
)
