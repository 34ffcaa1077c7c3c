"""Carries out what the graph decides. A request is an object's uid.

Deletions name uid and resourceVersion, so that a decision made on an old view fails and is made again.
"""

from typing import Any
from urllib.parse import quote

import msgspec

from pilotage.api.meta_v1 import UID, Object, OwnerReference
from pilotage.api.status import ApiError, is_not_found
from pilotage.client.client import Client
from pilotage.client.discovery import ServedResource
from pilotage.client.informer import Informer
from pilotage.controllers.garbagecollector.core import (
    Action,
    Delete,
    DropOwners,
    Graph,
    Item,
    RemoveFinalizer,
    Unblock,
)
from pilotage.controllers.garbagecollector.sources import Key, Sources
from pilotage.reconcile import DONE, Controller, Request, Result

NOT_SYNCED_S = 0.1
MERGE = "application/merge-patch+json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"


class GarbageCollector:
    """One object at a time; `run` keeps the graph."""

    def __init__(self, client: Client, shared: dict[Key, Informer[Any]]) -> None:
        self._client = client
        self._sources = Sources(client, shared)
        self._graph = Graph()
        self._controller = Controller("garbagecollector", self)

    def controller(self) -> Controller:
        return self._controller

    async def run(self) -> None:
        """Follow all kinds until cancelled."""
        await self._sources.run(self._follow)

    def snapshot(self) -> dict[str, int]:
        return {"objects": len(self._graph.items), "kinds": len(self._sources.resources)}

    def _follow(self, resource: ServedResource, informer: Informer[Any]) -> None:
        def changed(old: Object | None, new: Object | None) -> None:
            look: set[UID] = set()
            if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
                look |= self._graph.forget(old.metadata.uid)
            if new is not None:
                look |= self._graph.observe(
                    Item(
                        api_version=resource.api_version,
                        kind=resource.kind,
                        plural=resource.plural,
                        meta=new.metadata,
                    )
                )
            for uid in look:
                self._controller.queue.add(Request("", uid))

        informer.add_handler(changed)

    async def reconcile(self, request: Request) -> Result:
        if not self._sources.synced:
            return Result(requeue_after_s=NOT_SYNCED_S)
        uid = UID(request.name)
        item = self._graph.items.get(uid)
        if item is None:
            return DONE
        present = set()
        for owner in self._graph.unknown_owners(item):
            exists = await self._exists(item, owner)
            self._graph.note(owner.uid, exists=exists)
            if exists:
                present.add(owner.uid)
        for action in self._graph.decide(uid, frozenset(present)):
            try:
                await self._carry_out(action)
            except ApiError as error:
                if not is_not_found(error):
                    raise  # a conflict too: the object changed since it was seen, and is looked at again
        return DONE

    async def _exists(self, item: Item, owner: OwnerReference) -> bool:
        resource = self._sources.resources.get((owner.api_version, owner.kind))
        if resource is None:
            # Perhaps another version of a known kind; otherwise nothing can be said, and nothing is deleted.
            group = owner.api_version.rpartition("/")[0]
            resource = next(
                (
                    known
                    for (version, kind), known in self._sources.resources.items()
                    if kind == owner.kind and version.rpartition("/")[0] == group
                ),
                None,
            )
            if resource is None:
                return True
        if resource.namespaced and not item.meta.namespace:
            return True  # a cluster-scoped object cannot have a namespaced owner: the reference is nonsense
        namespace = item.meta.namespace if resource.namespaced else ""
        try:
            path = _path(resource.api_version, resource.plural, namespace, owner.name)
            answer = await self._client.request("GET", path, accept=METADATA)
        except ApiError as error:
            if is_not_found(error):
                return False
            raise
        return bool(msgspec.json.decode(answer)["metadata"].get("uid") == owner.uid)

    async def _carry_out(self, action: Action) -> None:
        item = action.item
        path = _path(item.api_version, item.plural, item.meta.namespace, item.meta.name)
        guard = {"uid": item.meta.uid, "resourceVersion": item.meta.resource_version}
        match action:
            case Delete():
                options = {
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "propagationPolicy": action.propagation,
                    "preconditions": guard,
                }
                await self._client.request("DELETE", path, body=msgspec.json.encode(options))
                return
            case RemoveFinalizer():
                kept = [name for name in item.meta.finalizers if name != action.finalizer]
                change: dict[str, Any] = {"finalizers": kept or None}
            case DropOwners():
                change = {"ownerReferences": await self._references(path, guard, action.owners, unblock=False)}
            case Unblock():
                change = {"ownerReferences": await self._references(path, guard, frozenset(), unblock=True)}
        body = msgspec.json.encode({"metadata": {**guard, **change}})
        await self._client.request("PATCH", path, body=body, content_type=MERGE)

    async def _references(
        self, path: str, guard: dict[str, str], dropped: frozenset[UID], *, unblock: bool
    ) -> list[dict[str, Any]] | None:
        """The references to write, from the stored object, since the typed ones may lack a field.

        Sets the guard to the version that was read.
        """
        meta = msgspec.json.decode(await self._client.request("GET", path, accept=METADATA))["metadata"]
        guard["resourceVersion"] = meta["resourceVersion"]
        kept = [item for item in meta.get("ownerReferences") or () if item["uid"] not in dropped]
        return [{**item, "blockOwnerDeletion": False} for item in kept] if unblock else kept or None


def _path(api_version: str, plural: str, namespace: str, name: str) -> str:
    root = "/apis" if "/" in api_version else "/api"
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root}/{api_version}{scope}/{plural}/{quote(name, safe='')}"
