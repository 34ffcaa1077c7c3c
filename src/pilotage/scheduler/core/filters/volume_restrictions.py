"""A claim that only one pod may use (ReadWriteOncePod, KEP-2485) must not be in use by another."""

from pilotage.api.labels import Selector
from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.queue import ClusterEvent
from pilotage.scheduler.core.volumes import claim_names, claims

_IN_USE = Rejection(
    reasons=(
        "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another "
        "pod",
    )
)
_EVERY_POD = Selector(())


def prepare(pod: PodInfo, cluster: Cluster) -> NodeCheck | None:
    exclusive = {name for name, claim in claims(pod, cluster) if claim.is_exclusive}
    if not exclusive:
        return None
    users = (other for other in cluster.labelled(pod.key.namespace, _EVERY_POD) if other.key != pod.key)
    if not any(exclusive.intersection(claim_names(other)) for other in users):
        return None

    def check(node: NodeInfo) -> Rejection | None:
        return _IN_USE

    return check


FILTER = Filter(
    name="VolumeRestrictions",
    prepare=prepare,
    wakes=frozenset({ClusterEvent.POD_GONE, ClusterEvent.CLAIM_CHANGED}),
)
