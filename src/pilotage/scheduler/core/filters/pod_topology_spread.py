"""DoNotSchedule spread constraints (KEP-895): after placing, no domain may lead the emptiest by more than maxSkew."""

from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.queue import ClusterEvent
from pilotage.scheduler.core.spread import Constraint, count_domains, stated_constraints

_MISSING = Rejection(
    reasons=("node(s) didn't match pod topology spread constraints (missing required label)",), resolvable=False
)
_SKEWED = Rejection(reasons=("node(s) didn't match pod topology spread constraints",))


def prepare(pod: PodInfo, cluster: Cluster) -> NodeCheck | None:
    constraints = stated_constraints(pod, "DoNotSchedule")
    if not constraints:
        return None
    keys = tuple(constraint.topology_key for constraint in constraints)
    counted = [
        (constraint, counts, _global_minimum(constraint, counts), int(constraint.selects(pod)))
        for constraint in constraints
        for counts in [count_domains(constraint, pod, cluster, required_keys=keys)]
    ]

    def check(node: NodeInfo) -> Rejection | None:
        for constraint, counts, minimum, own in counted:
            value = node.labels.get(constraint.topology_key)
            if value is None:
                return _MISSING
            # A domain that was not counted (its nodes are out of the pod's reach) holds none of the pods.
            if counts.get(value, 0) + own - minimum > constraint.max_skew:
                return _SKEWED
        return None

    return check


def _global_minimum(constraint: Constraint, counts: dict[str, int]) -> int:
    """The emptiest domain; none at all, or fewer than minDomains, counts as an empty one."""
    if len(counts) < constraint.min_domains:
        return 0
    return min(counts.values(), default=0)


FILTER = Filter(
    name="PodTopologySpread",
    prepare=prepare,
    wakes=frozenset(
        {
            ClusterEvent.NODE_ADDED,
            ClusterEvent.NODE_CHANGED,
            ClusterEvent.POD_BOUND,
            ClusterEvent.POD_CHANGED,
            ClusterEvent.POD_GONE,
        }
    ),
)
