"""From objects to the workload that manages them, and back: indexes, mappings, adoption and release.

The shell around `pilotage.api.ownership`. Stands apart because ReplicaSet, StatefulSet, DaemonSet, Job and Deployment
share it to the letter.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from pilotage.api.labels import Selector
from pilotage.api.meta_v1 import Object
from pilotage.api.ownership import Claim, adoption_patch, claim, release_patch
from pilotage.api.status import ApiError, is_not_found
from pilotage.client.client import PatchType
from pilotage.client.informer import Informer
from pilotage.reconcile.request import Request
from pilotage.reconcile.writes import Writes

K = TypeVar("K", bound=Object)
O = TypeVar("O", bound=Object)  # noqa: E741 - the owner's kind

INDEX = "controller"


def index_by_controller(informer: Informer[K]) -> None:
    """Index by the managing owner's uid; objects without one by their namespace."""

    def keys(obj: K) -> Iterable[Hashable]:
        controller = obj.metadata.controller
        return (controller.uid,) if controller else (("orphan", obj.metadata.namespace),)

    informer.add_index(INDEX, keys)


def managed(informer: Informer[K], owner: Object) -> list[K]:
    """What `owner` manages according to the cache, in order of creation."""
    return sorted(informer.by_index(INDEX, owner.metadata.uid), key=_age)


def to_manager(owners: Informer[O], selector_of: Callable[[O], Selector | None]) -> Callable[[Object], list[Request]]:
    """Maps an object to the owner that manages it, or to all owners in its namespace that would adopt it."""
    kind = owners.kind

    def requests(obj: Object) -> list[Request]:
        controller = obj.metadata.controller
        if controller is not None:
            if (controller.api_version, controller.kind) != (kind.api_version, kind.kind):
                return []
            return [Request(obj.metadata.namespace, controller.name)]
        if not obj.metadata.labels:
            return []
        return [
            Request.of(owner)
            for owner in owners.list(obj.metadata.namespace)
            if (selector := selector_of(owner)) and selector.matches(obj.metadata.labels)
        ]

    return requests


async def claimed(
    writes: Writes, request: Request, owner: Object, selector: Selector | None, informer: Informer[K]
) -> list[K]:
    """What `owner` manages, after adopting and releasing what the rules say; adopted objects included."""
    candidates = [*managed(informer, owner), *informer.by_index(INDEX, ("orphan", owner.metadata.namespace))]
    verdict: Claim[K] = claim(owner, selector, candidates)
    mine = list(verdict.mine)
    for candidate in verdict.adopt:
        patched = await _patched(writes, request, informer, candidate, adoption_patch(owner, candidate))
        if patched is not None:
            mine.append(patched)
    for candidate in verdict.release:
        await _patched(writes, request, informer, candidate, release_patch(owner, candidate))
    return sorted(mine, key=_age)


async def _patched(
    writes: Writes, request: Request, informer: Informer[K], candidate: K, body: dict[str, object]
) -> K | None:
    """The patched object; None if it is gone or another object has taken its name."""
    try:
        return await writes.patch(request, informer, candidate, body, patch_type=PatchType.STRATEGIC)
    except ApiError as error:
        if is_not_found(error) or error.reason in ("Conflict", "Invalid"):
            return None
        raise


def _age(obj: Object) -> tuple[str, str]:
    return (obj.metadata.creation_timestamp, obj.metadata.name)
