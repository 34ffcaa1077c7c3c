"""Which pods of lower priority must go, and from which node, so that a pod fits.

Stands apart from the cycle because it tries what is not: on every candidate node it takes pods away in the snapshot,
asks the same filters again, and puts everything back. Fed by the shell after `schedule` found no node; the shell
carries out what is chosen: condition, deletion and event for each victim, `nominatedNodeName` for the pod.
Source: Kubernetes documentation "Pod Priority and Preemption"; the order of preference among nodes is kube-scheduler's.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pilotage.api.labels import Selector
from pilotage.scheduler.core.filters import FILTERS
from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo, PodKey
from pilotage.scheduler.core.plugin import Filter, Rejection

CANDIDATES_MAX = 100
"""Nodes tried in one preemption, as kube-scheduler's minCandidateNodesAbsolute; the rest is tried the next time."""

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"
_POLICY = "not eligible due to preemptionPolicy=Never."
_LEAVING = "not eligible due to a terminating pod on the nominated node."


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A PodDisruptionBudget as preemption sees it."""

    namespace: str
    selector: Selector | None  # None: no pod
    allowed: int
    disrupted: frozenset[str]  # pods whose eviction was granted already and that cost nothing more

    def covers(self, pod: PodInfo) -> bool:
        return (
            pod.key.namespace == self.namespace
            and self.selector is not None
            and pod.key.name not in self.disrupted
            and self.selector.matches(pod.labels)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Preemption:
    """Remove `victims` from the node, lowest claim first, and nominate it for the pod."""

    node_name: str
    victims: tuple[PodInfo, ...]
    violations: int  # how many of them no budget allowed to disturb


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPreemption:
    """Nothing to remove would help, or the pod may not remove anything."""

    message: str  # the end of the FailedScheduling message
    keeps_nomination: bool  # whether an earlier nomination stands


def preempt(
    pod: PodInfo, cluster: Cluster, resolvable_nodes: Sequence[str], budgets: Sequence[Budget]
) -> Preemption | NoPreemption:
    """`resolvable_nodes`: where the filters said that fewer pods could help.

    O(candidates × pods of lower priority × filters); the snapshot is changed while this runs and is as before at the
    end.
    """
    if pod.spec.preemption_policy == "Never":
        return NoPreemption(message=_POLICY, keeps_nomination=True)
    if _is_making_room(pod, cluster):
        return NoPreemption(message=_LEAVING, keeps_nomination=True)
    found: list[Preemption] = []
    reasons: Counter[str] = Counter({NOT_HELPFUL: len(cluster.nodes) - len(resolvable_nodes)})
    for name in resolvable_nodes:
        if len(found) >= CANDIDATES_MAX:
            break
        outcome = _dry_run(pod, cluster, cluster.nodes[name], budgets)
        if isinstance(outcome, Preemption):
            found.append(outcome)
        else:
            reasons.update(outcome)
    if not found:
        parts = sorted(f"{count} {reason}" for reason, count in reasons.items() if count)
        message = f"0/{len(cluster.nodes)} nodes are available: {', '.join(parts)}."
        return NoPreemption(message=message, keeps_nomination=False)
    return min(found, key=_cost)


def first_rejection(pod: PodInfo, cluster: Cluster, node: NodeInfo) -> tuple[Filter, Rejection] | None:
    """What the filters say about one node as the snapshot stands."""
    for item in FILTERS:
        check = item.prepare(pod, cluster)
        rejection = check(node) if check is not None else None
        if rejection is not None:
            return item, rejection
    return None


def rejection_with_guests(pod: PodInfo, cluster: Cluster, node: NodeInfo) -> tuple[Filter, Rejection] | None:
    """As `first_rejection`, and also if every pod nominated to the node with no less priority were there already.

    Both are asked, because such a pod may never come, and another's affinity must not be met by one that is absent.
    """
    guests = cluster.nominated_to(node.name, at_least=pod.priority, but=pod.key)
    if guests:
        with _changed(cluster, node, add=guests):
            rejection = first_rejection(pod, cluster, node)
        if rejection is not None:
            return rejection
    return first_rejection(pod, cluster, node)


def _is_making_room(pod: PodInfo, cluster: Cluster) -> bool:
    """Whether pods of lower priority are already leaving the node that this pod was promised."""
    node = cluster.nodes.get(cluster.nominations.get(pod.key, ""))
    return node is not None and any(other.is_deleting and other.priority < pod.priority for other in node.pods.values())


def _dry_run(
    pod: PodInfo, cluster: Cluster, node: NodeInfo, budgets: Sequence[Budget]
) -> Preemption | tuple[str, ...]:  # fmt: skip
    """The fewest victims on this node, or why none helps."""
    lower = [other for other in node.pods.values() if other.priority < pod.priority]
    if not lower:
        return (NO_VICTIMS,)
    with _changed(cluster, node, remove=lower):
        refused = rejection_with_guests(pod, cluster, node)
        if refused is not None:
            return refused[1].reasons
        violating, free = _by_budget(lower, budgets)
        victims: list[PodInfo] = []
        violations = 0
        # The most important stay first, and those whose budgets are spent before all others.
        for group, costs in ((violating, 1), (free, 0)):
            for candidate in group:
                cluster.place(candidate, node.name)
                if rejection_with_guests(pod, cluster, node) is not None:
                    cluster.displace(candidate.key)
                    victims.append(candidate)
                    violations += costs
    return Preemption(
        node_name=node.name, victims=tuple(sorted(victims, key=_importance, reverse=True)), violations=violations
    )


def _by_budget(pods: Iterable[PodInfo], budgets: Sequence[Budget]) -> tuple[list[PodInfo], list[PodInfo]]:
    """(pods whose removal breaks a budget, the others), most important first."""
    left = [budget.allowed for budget in budgets]
    violating: list[PodInfo] = []
    free: list[PodInfo] = []
    for pod in sorted(pods, key=_importance):
        broken = False
        for index, budget in enumerate(budgets):
            if budget.covers(pod):
                left[index] -= 1
                broken = broken or left[index] < 0
        (violating if broken else free).append(pod)
    return violating, free


def _importance(pod: PodInfo) -> tuple[Any, ...]:
    """Higher priority, then longer running; pods that do not run yet last among their equals."""
    return (-pod.priority, not pod.started_at, pod.started_at, pod.key)


def _cost(found: Preemption) -> tuple[Any, ...]:
    """Fewest broken budgets, lowest top priority, lowest sum, fewest victims, latest start of the top ones, name."""
    top = max((victim.priority for victim in found.victims), default=-(2**31))
    starts = [victim.started_at or "~" for victim in found.victims if victim.priority == top]
    return (
        found.violations,
        top,
        # Shifted above zero, so that more victims of negative priority do not look cheaper than fewer.
        sum(victim.priority + 2**31 for victim in found.victims),
        len(found.victims),
        _Reversed(min(starts, default="")),
        found.node_name,
    )


@dataclass(frozen=True, slots=True)
class _Reversed:
    """Sorts the other way round: the latest earliest start is preferred."""

    text: str

    def __lt__(self, other: "_Reversed") -> bool:
        return self.text > other.text


@contextmanager
def _changed(
    cluster: Cluster, node: NodeInfo, *, add: Iterable[PodInfo] = (), remove: Iterable[PodInfo] = ()
) -> Iterator[None]:
    """The snapshot with pods added to and removed from a node; as before when the block ends."""
    added, removed = tuple(add), tuple(remove)
    for pod in removed:
        cluster.displace(pod.key)
    for pod in added:
        cluster.place(pod, node.name)
    try:
        yield
    finally:
        for pod in added:
            cluster.displace(pod.key)
        for pod in removed:
            cluster.place(pod, node.name)


def lower_nominations(key: PodKey, priority: int, node_name: str, cluster: Cluster) -> tuple[PodInfo, ...]:
    """Pods whose promise of the node is void now, since a pod of more priority takes it."""
    return tuple(other for other in cluster.nominated_to(node_name, but=key) if other.priority < priority)
