"""Where a pod may run: tolerations against taints, node selectors and affinity against a node's labels.

Stands apart because the scheduler, the DaemonSet controller and taint-based eviction must agree to the letter. Pure.
Source: Kubernetes documentation "Taints and Tolerations", "Assigning Pods to Nodes". Leaves out everything that needs
other pods (affinity between pods, spreading) or quantities: that is the scheduler's.
"""

from collections.abc import Iterable, Mapping

from pilotage.api.core_v1 import NodeSelector, NodeSelectorTerm, PodSpec, Taint, Toleration
from pilotage.api.labels import requirement

NOT_READY_TAINT = "node.kubernetes.io/not-ready"
UNREACHABLE_TAINT = "node.kubernetes.io/unreachable"
UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
MEMORY_PRESSURE_TAINT = "node.kubernetes.io/memory-pressure"
DISK_PRESSURE_TAINT = "node.kubernetes.io/disk-pressure"
PID_PRESSURE_TAINT = "node.kubernetes.io/pid-pressure"
NETWORK_UNAVAILABLE_TAINT = "node.kubernetes.io/network-unavailable"


def tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Whether any of `tolerations` covers `taint`."""
    return any(covers(toleration, taint) for toleration in tolerations)


def covers(toleration: Toleration, taint: Taint) -> bool:
    """An empty effect covers every effect; an empty key with Exists covers every key."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and (toleration.operator or "Equal") == "Equal" and toleration.value == taint.value


def node_matches(spec: PodSpec, name: str, labels: Mapping[str, str]) -> bool:
    """nodeSelector and the required node affinity of a pod, both."""
    if any(labels.get(key) != value for key, value in spec.node_selector.items()):
        return False
    affinity = spec.affinity.node_affinity
    if affinity is None or affinity.required_during_scheduling_ignored_during_execution is None:
        return True
    return node_selector_matches(affinity.required_during_scheduling_ignored_during_execution, name, labels)


def node_selector_matches(selector: NodeSelector, name: str, labels: Mapping[str, str]) -> bool:
    """Terms are alternatives; no term matches no node."""
    return any(node_term_matches(term, name, labels) for term in selector.node_selector_terms)


def node_term_matches(term: NodeSelectorTerm, name: str, labels: Mapping[str, str]) -> bool:
    """All requirements of a term, over labels and over `metadata.name`; an empty term selects nothing."""
    if not term.match_expressions and not term.match_fields:
        return False
    fields = {"metadata.name": name}
    return all(
        requirement(item.key, item.operator, item.values).matches(values)
        for items, values in ((term.match_expressions, labels), (term.match_fields, fields))
        for item in items
    )
