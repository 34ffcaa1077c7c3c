"""Objects every cluster has, made when the server starts: the four system namespaces and the `kubernetes` Service.

Stands apart because it is the server's only writing of its own accord. Idempotent: it creates what is missing and
corrects what it owns, through the same pipeline as everybody else's writes. Called once, before the server is ready.
"""

from __future__ import annotations

from pilotage.api.catalogue import Resource, by_kind
from pilotage.api.status import ApiError
from pilotage.apiserver.authentication import LOOPBACK
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.registry import Registry
from pilotage.kit import InvariantError
from pilotage.kit.clock import Clock

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
MANAGER = "kube-apiserver"


async def bootstrap(registry: Registry, clock: Clock) -> None:
    """Make what is missing."""
    for name in NAMESPACES:
        await ensure(registry, clock, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


async def ensure(registry: Registry, clock: Clock, document: Document) -> None:
    """Create an object unless it exists."""
    group, _, version = document["apiVersion"].rpartition("/")
    resource = _resource(group, version, document["kind"])
    metadata = document["metadata"]
    call = Call(
        resource=resource,
        namespace=metadata.get("namespace", "") if resource.namespaced else "",
        name=metadata["name"],
        subresource="",
        user=LOOPBACK,
        now=clock.wall(),
        user_agent=MANAGER,
    )
    if registry.cache(resource).get(call.key) is None:
        try:
            await registry.create(call, registry.pipeline.decode(call, document))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise


def _resource(group: str, version: str, kind: str) -> Resource:
    found = by_kind(group, version, kind)
    if found is None:
        raise InvariantError(f"bootstrap makes a {kind}, which is not served")
    return found
