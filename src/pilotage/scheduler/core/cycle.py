"""One scheduling cycle: a pod and a snapshot in, a node or the reason there is none out.

Stands apart as the one place that joins filters and scores. Called by the shell for every pod the queue hands out;
same pod and same snapshot, same answer: ties go to the node with fewest pods, then to the lowest name.
A node promised to a pod by preemption is asked first, and counts as taken for pods of no more priority.
Leaves out preemption itself: `Unschedulable.resolvable_nodes` names the nodes on which removing pods could help.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pilotage.scheduler.core.filters import FILTERS
from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Filter, NodeCheck, Rejection
from pilotage.scheduler.core.preemption import rejection_with_guests
from pilotage.scheduler.core.queue import ClusterEvent
from pilotage.scheduler.core.scores import SCORES
from pilotage.scheduler.core.volumes import refusal

NO_NODES = "no nodes available to schedule pods"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The node to bind the pod to."""

    node_name: str
    feasible: int  # how many nodes passed the filters


@dataclass(frozen=True, slots=True, kw_only=True)
class Unschedulable:
    """No node passes."""

    message: str  # as `kubectl describe pod` shows it
    wakes: frozenset[ClusterEvent]  # events that may help
    plugins: tuple[str, ...]  # filters that rejected some node, in filter order
    resolvable_nodes: tuple[str, ...]


def schedule(pod: PodInfo, cluster: Cluster) -> Placement | Unschedulable:
    """Choose a node for `pod`.

    O(nodes × filters), plus one pass over all pods where affinity or spreading asks for it.
    """
    nodes = [cluster.nodes[name] for name in sorted(cluster.nodes)]
    if not nodes:
        return Unschedulable(
            message=NO_NODES, wakes=frozenset({ClusterEvent.NODE_ADDED}), plugins=(), resolvable_nodes=()
        )
    if why := refusal(pod, cluster):
        return Unschedulable(
            message=f"0/{len(nodes)} nodes are available: {why}.",
            wakes=frozenset({ClusterEvent.CLAIM_CHANGED}),
            plugins=("VolumeBinding",),
            resolvable_nodes=(),
        )
    promised = cluster.nodes.get(cluster.nominations.get(pod.key, ""))
    if promised is not None and rejection_with_guests(pod, cluster, promised) is None:
        return Placement(node_name=promised.name, feasible=1)
    checks = [(item, check) for item in FILTERS if (check := item.prepare(pod, cluster)) is not None]
    feasible: list[NodeInfo] = []
    reasons: Counter[str] = Counter()
    rejected_by: dict[str, frozenset[ClusterEvent]] = {}
    resolvable: list[str] = []
    for node in nodes:
        verdict = _first_rejection(node, [check for _, check in checks])
        if verdict is None:
            refused = _refused_for_guests(pod, cluster, node)
            if refused is None:
                feasible.append(node)
                continue
            item, rejection = refused
            # Whoever was promised the node may be bound elsewhere, or go.
            wakes = item.wakes | {ClusterEvent.POD_GONE, ClusterEvent.POD_BOUND}
        else:
            item, rejection = checks[verdict[0]][0], verdict[1]
            wakes = item.wakes
        reasons.update(rejection.reasons)
        rejected_by[item.name] = rejected_by.get(item.name, frozenset()) | wakes
        if rejection.resolvable:
            resolvable.append(node.name)
    if not feasible:
        return Unschedulable(
            message=failure_message(len(nodes), reasons),
            # A new node may always help, whoever rejected the old ones.
            wakes=frozenset({ClusterEvent.NODE_ADDED}).union(*rejected_by.values()),
            plugins=tuple(item.name for item in FILTERS if item.name in rejected_by),
            resolvable_nodes=tuple(resolvable),
        )
    if len(feasible) == 1:
        return Placement(node_name=feasible[0].name, feasible=1)
    totals = rate(pod, cluster, feasible)
    best = min(range(len(feasible)), key=lambda i: (-totals[i], len(feasible[i].pods), feasible[i].name))
    return Placement(node_name=feasible[best].name, feasible=len(feasible))


def _refused_for_guests(pod: PodInfo, cluster: Cluster, node: NodeInfo) -> tuple[Filter, Rejection] | None:
    """Why a node that passes does not, once the pods it was promised to are counted."""
    if not cluster.nominated_to(node.name, at_least=pod.priority, but=pod.key):
        return None
    return rejection_with_guests(pod, cluster, node)


def rate(pod: PodInfo, cluster: Cluster, nodes: Sequence[NodeInfo]) -> list[float]:
    """The weighted total of every score, one number a node in the order given."""
    totals = [0.0] * len(nodes)
    for item in SCORES:
        values = item.rate(pod, cluster, nodes)
        if values is not None:
            for index, value in enumerate(values):
                totals[index] += item.weight * value
    # Rounding hides the last bits of floating point, so that equal nodes tie on every machine.
    return [round(total, 6) for total in totals]


def failure_message(node_count: int, reasons: Counter[str]) -> str:
    """`0/3 nodes are available: 1 Insufficient memory, 2 Insufficient cpu.`, sorted as text as kube-scheduler does."""
    parts = sorted(f"{count} {reason}" for reason, count in reasons.items())
    return f"0/{node_count} nodes are available: {', '.join(parts)}."


def _first_rejection(node: NodeInfo, checks: Sequence[NodeCheck]) -> tuple[int, Rejection] | None:
    """Filters are asked in order and the first rejection stands, so a node is counted once for one filter."""
    for index, check in enumerate(checks):
        rejection = check(node)
        if rejection is not None:
            return index, rejection
    return None
