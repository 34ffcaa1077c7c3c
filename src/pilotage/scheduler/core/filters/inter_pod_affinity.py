"""Required pod affinity and anti-affinity, in both directions.

The pod's terms against the pods already placed, and the anti-affinity of placed pods against this pod. Counted once a
cycle by (topology key, value), so that the check of a node is a few dictionary look-ups.
"""

from collections import Counter

from pilotage.scheduler.core.model import AffinityTerm, Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.queue import ClusterEvent

_AFFINITY = Rejection(reasons=("node(s) didn't match pod affinity rules",), resolvable=False)
_ANTI_AFFINITY = Rejection(reasons=("node(s) didn't match pod anti-affinity rules",))
_EXISTING = Rejection(reasons=("node(s) didn't satisfy existing pods anti-affinity rules",))

Domain = tuple[str, str]  # topology key, value


def prepare(pod: PodInfo, cluster: Cluster) -> NodeCheck | None:
    forbidden = _forbidden_by_existing(pod, cluster)
    if not (pod.affinity or pod.anti_affinity or forbidden):
        return None
    attracting = [_domains(term, cluster) for term in pod.affinity]
    repelling = [_domains(term, cluster) for term in pod.anti_affinity]
    # The first pod of a group that wants to be together must be allowed somewhere: if no pod matches any term and the
    # pod matches all of its own terms, affinity asks only that the node has the keys.
    is_first = (
        bool(pod.affinity)
        and not any(attracting)
        and all(term.selects(pod, cluster.namespaces) for term in pod.affinity)
    )

    def check(node: NodeInfo) -> Rejection | None:
        labels = node.labels
        for term, found in zip(pod.affinity, attracting, strict=True):
            value = labels.get(term.topology_key)
            if value is None or not (is_first or found[term.topology_key, value]):
                return _AFFINITY
        for term, found in zip(pod.anti_affinity, repelling, strict=True):
            value = labels.get(term.topology_key)
            if value is not None and found[term.topology_key, value]:
                return _ANTI_AFFINITY
        if any(labels.get(key) == value for key, value in forbidden):
            return _EXISTING
        return None

    return check


def _domains(term: AffinityTerm, cluster: Cluster) -> Counter[Domain]:
    """How many placed pods the term selects, by domain."""
    found: Counter[Domain] = Counter()
    if term.selector is None:
        return found
    wide = term.namespace_selector is not None
    namespaces = {*cluster.namespaces, *term.namespaces} if wide else term.namespaces
    for namespace in namespaces:
        for pod in cluster.labelled(namespace, term.selector):
            node = cluster.node_of(pod.key)
            value = node.labels.get(term.topology_key) if node is not None else None
            if value is not None and term.selects(pod, cluster.namespaces):
                found[term.topology_key, value] += 1
    return found


def _forbidden_by_existing(pod: PodInfo, cluster: Cluster) -> frozenset[Domain]:
    found = set()
    for existing in cluster.with_affinity.values():
        node = cluster.node_of(existing.key)
        if node is None:
            continue
        for term in existing.anti_affinity:
            value = node.labels.get(term.topology_key)
            if value is not None and term.selects(pod, cluster.namespaces):
                found.add((term.topology_key, value))
    return frozenset(found)


FILTER = Filter(
    name="InterPodAffinity",
    prepare=prepare,
    wakes=frozenset(
        {
            ClusterEvent.NODE_ADDED,
            ClusterEvent.NODE_CHANGED,
            ClusterEvent.POD_BOUND,
            ClusterEvent.POD_CHANGED,
            ClusterEvent.POD_GONE,
            ClusterEvent.NAMESPACE_CHANGED,
        }
    ),
)
