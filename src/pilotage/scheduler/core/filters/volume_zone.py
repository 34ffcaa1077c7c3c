"""A volume that is labelled with zones or regions is used from nodes there; several are joined by two underscores."""

from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.queue import ClusterEvent
from pilotage.scheduler.core.volumes import claims

_CONFLICT = Rejection(reasons=("node(s) had no available volume zone",), resolvable=False)
KEYS = (
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
)


def prepare(pod: PodInfo, cluster: Cluster) -> NodeCheck | None:
    volumes = [cluster.volumes.get(claim.volume) for _, claim in claims(pod, cluster)]
    allowed = [
        (key, frozenset(volume.metadata.labels[key].split("__")))
        for volume in volumes
        if volume is not None
        for key in KEYS
        if key in volume.metadata.labels
    ]
    if not allowed:
        return None

    def check(node: NodeInfo) -> Rejection | None:
        return None if all(node.labels.get(key) in values for key, values in allowed) else _CONFLICT

    return check


FILTER = Filter(
    name="VolumeZone",
    prepare=prepare,
    wakes=frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED, ClusterEvent.CLAIM_CHANGED}),
)
