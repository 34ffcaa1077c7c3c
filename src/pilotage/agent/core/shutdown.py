"""In which order the pods of a node end when its machine goes down, and how long each may take (KEP-2712).

Stands apart because it is a table and a sort. The agent carries the steps out, one after the other. Leaves out learning
that the machine goes down.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilotage.agent.core.qos import CRITICAL_PRIORITY
from pilotage.api.core_v1 import Pod

# Words of the kubelet: of the pods that end, of those that come too late, and of the node.
ENDED_REASON = "Terminated"
ENDED_MESSAGE = "Pod was terminated in response to imminent node shutdown."
LATE_REASON = "NodeShutdown"
LATE_MESSAGE = "Pod was rejected as the node is shutting down."
NODE_MESSAGE = "node is shutting down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Pods of at least this priority (and less than the next period's) end together, within `grace_s`."""

    priority: int
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Pods, by uid, that end together before the next step begins."""

    grace_s: float
    uids: tuple[str, ...]


def two_periods(total_s: float, critical_s: float) -> tuple[Period, ...]:
    """Ordinary pods first, then critical ones, in the last `critical_s` of `total_s`. Empty when there is no time."""
    if total_s <= 0:
        return ()
    critical_s = min(critical_s, total_s)
    return (
        Period(priority=0, grace_s=total_s - critical_s),
        Period(priority=CRITICAL_PRIORITY, grace_s=critical_s),
    )


def steps(pods: Iterable[Pod], periods: Sequence[Period]) -> tuple[Step, ...]:
    """The lowest priority first; a period without pods takes no time.

    A pod below every period belongs to the lowest one. Within a step each pod has its own grace period, at most the
    step's.
    """
    ordered = sorted(periods, key=lambda period: period.priority)
    members: list[list[str]] = [[] for _ in ordered]
    for pod in pods:
        below = sum(1 for period in ordered if period.priority <= pod.spec.priority)
        if members:
            members[max(below - 1, 0)].append(pod.metadata.uid)
    return tuple(
        Step(grace_s=period.grace_s, uids=tuple(sorted(uids)))
        for period, uids in zip(ordered, members, strict=True)
        if uids
    )
