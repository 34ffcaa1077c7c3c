"""What is still in the way of a namespace's end, as conditions. Pure; fed by `reconciler.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pilotage.api import timestamp
from pilotage.api.core_v1 import Namespace
from pilotage.api.meta_v1 import Condition
from pilotage.api.workloads import with_condition
from pilotage.kit.backoff import Backoff

FINALIZER = "kubernetes"

LOOK_AGAIN = Backoff(initial_s=0.05, max_s=5.0)
"""Content goes when its own controllers let it; the first looks are quick because most content goes at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What one collection still holds."""

    resource: str  # "pods", "deployments.apps"
    count: int
    finalizers: tuple[str, ...]  # of the objects left, each once per object


def is_ours(namespace: Namespace | None) -> bool:
    """Whether the namespace waits for this controller."""
    return namespace is not None and namespace.metadata.is_deleting and FINALIZER in namespace.spec.finalizers


def conditions(namespace: Namespace, remains: Sequence[Remains], now: datetime) -> tuple[Condition, ...]:
    """The five conditions `kubectl describe` and people look at when a namespace will not go."""
    moment = timestamp.render(now)
    content = ", ".join(f"{item.resource} has {item.count} resource instances" for item in remains)
    finalizers: dict[str, int] = {}
    for item in remains:
        for name in item.finalizers:
            finalizers[name] = finalizers.get(name, 0) + 1
    held = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(finalizers.items()))
    result = namespace.status.conditions
    for type, absent in _FAILURES.items():
        result = _with(result, type, "", ("", ""), absent, moment)
    result = _with(result, "NamespaceContentRemaining", content, *_CONTENT, moment)
    return _with(result, "NamespaceFinalizersRemaining", held, *_FINALIZERS, moment)


Words = tuple[str, str]  # reason, message

# A failed look raises and is retried; the conditions that tell of one are therefore never true here.
_FAILURES: dict[str, Words] = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": (
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
}
_CONTENT: tuple[Words, Words] = (
    ("SomeResourcesRemain", "Some resources are remaining: "),
    ("ContentRemoved", "All content successfully removed"),
)
_FINALIZERS: tuple[Words, Words] = (
    ("SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "),
    ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
)


def _with(
    conditions: tuple[Condition, ...], type: str, what: str, present: Words, absent: Words, moment: str
) -> tuple[Condition, ...]:
    reason, message = (present[0], present[1] + what) if what else absent
    return with_condition(
        conditions,
        Condition(
            type=type,
            status="True" if what else "False",
            reason=reason,
            message=message,
            last_transition_time=moment,
        ),
    )
