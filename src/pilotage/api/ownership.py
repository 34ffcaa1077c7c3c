"""Which objects a workload manages: the rules of adoption and release.

Stands apart because all workload controllers claim by the same rules and must never fight over an object. Pure: the
caller patches what is named here. Source: Kubernetes documentation "Garbage Collection" and the ReplicaSet page,
"Non-Template Pod acquisitions".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pilotage.api.core_v1 import Pod
from pilotage.api.labels import Selector
from pilotage.api.meta_v1 import Object
from pilotage.api.pods import controller_reference, is_terminal

K = TypeVar("K", bound=Object)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Generic[K]):
    """`mine` includes nothing of `adopt`: an adopted object is managed once the API server has agreed."""

    mine: tuple[K, ...]
    adopt: tuple[K, ...]
    release: tuple[K, ...]


def claim(owner: Object, selector: Selector | None, candidates: Iterable[K]) -> Claim[K]:
    """Sort `candidates` of the owner's namespace; order is kept.

    An empty or absent selector adopts nothing and releases nothing: an owner that lost its selector by accident must
    not let go of everything and create it anew.
    """
    mine, adopt, release = [], [], []
    for candidate in candidates:
        controller = candidate.metadata.controller
        selected = bool(selector) and selector is not None and selector.matches(candidate.metadata.labels)
        if controller is not None:
            if controller.uid != owner.metadata.uid:
                continue
            if selected or not selector or owner.metadata.is_deleting:
                mine.append(candidate)
            else:
                release.append(candidate)
        elif selected and not owner.metadata.is_deleting and _is_adoptable(candidate):
            adopt.append(candidate)
    return Claim(mine=tuple(mine), adopt=tuple(adopt), release=tuple(release))


def _is_adoptable(candidate: Object) -> bool:
    return not candidate.metadata.is_deleting and not (isinstance(candidate, Pod) and is_terminal(candidate))


def adoption_patch(owner: Object, candidate: Object) -> dict[str, Any]:
    """Strategic merge patch; the uid makes it fail on a namesake born in between."""
    return {"metadata": {"uid": candidate.metadata.uid, "ownerReferences": [controller_reference(owner)]}}


def release_patch(owner: Object, candidate: Object) -> dict[str, Any]:
    """Strategic merge patch that removes the owner's reference alone."""
    reference = {"$patch": "delete", "uid": owner.metadata.uid}
    return {"metadata": {"uid": candidate.metadata.uid, "ownerReferences": [reference]}}
