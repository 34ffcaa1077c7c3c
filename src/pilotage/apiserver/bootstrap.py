"""Objects every cluster has, made when the server starts: namespaces, roles and bindings, the `kubernetes` Service.

Stands apart because it is the server's only writing of its own accord. Idempotent: it creates what is missing and
corrects what it owns, through the same pipeline as everybody else's writes. Called once, before the server is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pilotage.api.catalogue import by_kind
from pilotage.apiserver.authentication import LOOPBACK
from pilotage.apiserver.authorization import bootstrap_objects, reconciled
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.registry import Registry
from pilotage.kit import InvariantError
from pilotage.kit.clock import Clock

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
MANAGER = "kube-apiserver"

Decide = Callable[[Document | None, Document], Document | None]


async def bootstrap(registry: Registry, clock: Clock) -> None:
    """Make what is missing; namespaces first, for everything else lives in one."""
    namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES]
    # Together: they share commits, and starting is what users wait for.
    await asyncio.gather(*(converge(registry, clock, document, _unless_there) for document in namespaces))
    roles = [document for _, document in bootstrap_objects()]
    await asyncio.gather(*(converge(registry, clock, document, reconciled) for document in roles))


async def converge(registry: Registry, clock: Clock, wanted: Document, decide: Decide) -> None:
    """Create or update one object to what `decide(existing, wanted)` returns; None leaves it alone."""
    group, _, version = wanted["apiVersion"].rpartition("/")
    resource = by_kind(group, version, wanted["kind"])
    if resource is None:
        raise InvariantError(f"bootstrap makes a {wanted['kind']}, which is not served")
    metadata = wanted["metadata"]
    call = Call(
        resource=resource,
        namespace=metadata.get("namespace", "") if resource.namespaced else "",
        name=metadata["name"],
        subresource="",
        user=LOOPBACK,
        now=clock.wall(),
        user_agent=MANAGER,
    )
    existing = registry.cache(resource).get(call.key)
    document = decide(existing.copy() if existing is not None else None, wanted)
    if document is None:
        return
    body = registry.pipeline.decode(call, document)
    await (registry.create(call, body) if existing is None else registry.update(call, body))


def _unless_there(existing: Document | None, wanted: Document) -> Document | None:
    return wanted if existing is None else None
