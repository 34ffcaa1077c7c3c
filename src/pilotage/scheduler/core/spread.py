"""Topology spread constraints: what they select and how many pods each domain holds (KEP-895, KEP-3022, KEP-3094).

Shared by the filter (DoNotSchedule) and the score (ScheduleAnyway, and the cluster's default constraints).
"""

from dataclasses import dataclass

from pilotage.api.core_v1 import TopologySpreadConstraint
from pilotage.api.labels import Selector, from_label_selector
from pilotage.api.placement import node_matches, tolerates
from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo, with_label_keys

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """One constraint with the pod's namespace and label keys filled in."""

    topology_key: str
    max_skew: int
    min_domains: int
    namespace: str
    selector: Selector | None  # None: no pod
    honors_affinity: bool
    honors_taints: bool

    def selects(self, pod: PodInfo) -> bool:
        return (
            self.selector is not None
            and pod.key.namespace == self.namespace
            and not pod.is_deleting
            and self.selector.matches(pod.labels)
        )


def stated_constraints(pod: PodInfo, when_unsatisfiable: str) -> tuple[Constraint, ...]:
    """The pod's own constraints of that kind, in the order stated."""
    return tuple(
        Constraint(
            topology_key=item.topology_key,
            max_skew=item.max_skew,
            min_domains=item.min_domains or 1,
            namespace=pod.key.namespace,
            selector=_selector(item, pod),
            honors_affinity=item.node_affinity_policy != "Ignore",
            honors_taints=item.node_taints_policy == "Honor",
        )
        for item in pod.spec.topology_spread_constraints
        if item.when_unsatisfiable == when_unsatisfiable
    )


def default_constraints(pod: PodInfo) -> tuple[Constraint, ...]:
    """What kube-scheduler applies by default to pods of a Service or workload: hosts by 3, zones by 5."""
    if pod.spec.topology_spread_constraints or pod.owner_selector is None:
        return ()
    return tuple(
        Constraint(
            topology_key=key,
            max_skew=skew,
            min_domains=1,
            namespace=pod.key.namespace,
            selector=pod.owner_selector,
            honors_affinity=True,
            honors_taints=False,
        )
        for key, skew in ((HOSTNAME, 3), (ZONE, 5))
    )


def count_domains(
    constraint: Constraint, pod: PodInfo, cluster: Cluster, *, required_keys: tuple[str, ...]
) -> dict[str, int]:
    """Domain → pods the constraint selects, over the nodes the pod could use and that carry all `required_keys`.

    Costs the nodes and the pods that are selected, not all pods there are.
    """
    domains: dict[str, str] = {}  # node → domain
    counts: dict[str, int] = {}
    for name, node in cluster.nodes.items():
        if any(key not in node.labels for key in required_keys) or not _counts(constraint, pod, node):
            continue
        value = domains[name] = node.labels[constraint.topology_key]
        counts.setdefault(value, 0)
    if constraint.selector is not None:
        for other in cluster.labelled(constraint.namespace, constraint.selector):
            domain = domains.get(cluster.locations[other.key])
            if domain is not None and not other.is_deleting:
                counts[domain] += 1
    return counts


def _counts(constraint: Constraint, pod: PodInfo, node: NodeInfo) -> bool:
    if constraint.honors_affinity and not node_matches(pod.spec, node.name, node.labels):
        return False
    return not constraint.honors_taints or all(
        taint.effect == "PreferNoSchedule" or tolerates(pod.spec.tolerations, taint) for taint in node.taints
    )


def _selector(item: TopologySpreadConstraint, pod: PodInfo) -> Selector | None:
    selector = from_label_selector(item.label_selector)
    return None if selector is None else with_label_keys(selector, pod.labels, item.match_label_keys, "in")
