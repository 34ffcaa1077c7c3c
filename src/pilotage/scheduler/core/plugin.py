"""The shape of a filter and of a score.

Stands apart so that a plugin file needs nothing but this and the model. A plugin is a value that names a function;
`filters/__init__.py` and `scores/__init__.py` list them in the order in which they are asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.queue import ClusterEvent

SCORE_MAX = 100
"""Every score is a number from 0 to this, so that weights compare plugins (kube-scheduler's MaxNodeScore)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why a node cannot take the pod, in Kubernetes' words."""

    reasons: tuple[str, ...]
    resolvable: bool = True  # False: removing other pods from the node would not help (the seam for preemption)


NodeCheck = Callable[[NodeInfo], Rejection | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """`prepare` looks at the pod once and returns the check to ask of each node; None if every node passes."""

    name: str
    prepare: Callable[[PodInfo, Cluster], NodeCheck | None]
    wakes: frozenset[ClusterEvent]  # what may turn its rejection into acceptance


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """`rate` returns one number in 0…SCORE_MAX a node, in the order given; None if it has no opinion on this pod."""

    name: str
    rate: Callable[[PodInfo, Cluster, Sequence[NodeInfo]], Sequence[float] | None]
    weight: int


def scale(values: Sequence[float], *, reverse: bool = False) -> list[float]:
    """`values` ≥ 0 scaled so that the greatest is SCORE_MAX; `reverse` turns the greatest into 0."""
    top = max(values, default=0.0)
    if top == 0:
        return [float(SCORE_MAX if reverse else 0)] * len(values)
    scaled = [value * SCORE_MAX / top for value in values]
    return [SCORE_MAX - value for value in scaled] if reverse else scaled
