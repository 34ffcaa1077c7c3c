"""Empties and finalizes one namespace at a time. A request is the namespace's name.

Reads collections live, not from informers: only here all kinds are of interest, and only in this one namespace.
"""

import asyncio
from typing import Any

import msgspec

from pilotage.api.core_v1 import Namespace, Pod
from pilotage.api.status import ApiError, is_not_found
from pilotage.api.workloads import status_patch
from pilotage.client.discovery import ServedResource, discover
from pilotage.controllers.namespace.core import FINALIZER, LOOK_AGAIN, Remains, conditions, is_ours
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.writes import Writes

METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
PARALLEL_MAX = 8  # requests in flight for one namespace, so that its end does not slow down everybody else
DISCOVERY_S_MAX = 30.0  # a kind registered since is found by the next look


class NamespaceReconciler:
    """One namespace at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
        self._client = manager.client
        self._namespaces = manager.informer(Namespace)
        self._pods = manager.informer(Pod)
        self._writes = Writes(manager.client)
        self._looks: dict[Request, int] = {}
        self._resources: tuple[ServedResource, ...] = ()
        self._resources_until = 0.0
        self._slots = asyncio.Semaphore(PARALLEL_MAX)

    def controller(self) -> Controller:
        controller = Controller("namespace", self)
        controller.watch(self._namespaces)
        controller.reads(self._pods)

        def pod_changed(old: Pod | None, new: Pod | None) -> None:
            # Most of the wait is for pods to end; the last one to go is the moment to look.
            if new is None and old is not None and is_ours(self._namespaces.get(old.metadata.namespace)):
                controller.queue.add(Request("", old.metadata.namespace))

        self._pods.add_handler(pod_changed)
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        namespace = self._namespaces.get(request.name)
        if namespace is None or not is_ours(namespace):
            self._looks.pop(request, None)
            return DONE
        remains = await self._empty(request.name)
        status = msgspec.structs.replace(
            namespace.status,
            phase="Terminating",
            conditions=conditions(namespace, remains, self._clock.wall()),
        )
        if remains:
            changes = status_patch(namespace.status, status)
            await self._writes.patch_status(request, self._namespaces, namespace, changes)
            self._looks[request] = self._looks.get(request, 0) + 1
            return Result(requeue_after_s=LOOK_AGAIN.delay_s(self._looks[request]))
        await self._finalize(request.name)
        self._looks.pop(request, None)
        return DONE

    async def _empty(self, name: str) -> list[Remains]:
        """Delete what is there, pods first; what is left afterwards."""
        resources = [item for item in await self._served() if item.namespaced and {"list", "delete"} <= set(item.verbs)]
        pods = [item for item in resources if (item.api_version, item.plural) == ("v1", "pods")]
        remains = await self._empty_all(name, pods)
        if remains:
            return remains
        return await self._empty_all(name, [item for item in resources if item not in pods])

    async def _empty_all(self, name: str, resources: list[ServedResource]) -> list[Remains]:
        found = await asyncio.gather(*(self._empty_one(name, item) for item in resources))
        return [item for item in found if item is not None]

    async def _empty_one(self, name: str, resource: ServedResource) -> Remains | None:
        root = "/apis" if "/" in resource.api_version else "/api"
        path = f"{root}/{resource.api_version}/namespaces/{name}/{resource.plural}"
        async with self._slots:
            try:
                left = await self._left(path)
                if not left:
                    return None
                if any("deletionTimestamp" not in meta for meta in left):
                    await self._delete_all(path, resource, left)
                    left = await self._left(path)
            except ApiError as error:
                if is_not_found(error) or error.reason == "MethodNotAllowed":
                    return None  # the kind went away, or is no store of objects
                raise
        if not left:
            return None
        group = resource.api_version.rpartition("/")[0]
        return Remains(
            resource=f"{resource.plural}.{group}" if group else resource.plural,
            count=len(left),
            finalizers=tuple(finalizer for meta in left for finalizer in meta.get("finalizers") or ()),
        )

    async def _delete_all(self, path: str, resource: ServedResource, left: list[dict[str, Any]]) -> None:
        body = msgspec.json.encode({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"})
        if "deletecollection" in resource.verbs:
            await self._client.request("DELETE", path, body=body)
            return
        for meta in left:
            try:
                await self._client.request("DELETE", f"{path}/{meta['name']}", body=body)
            except ApiError as error:
                if not is_not_found(error):
                    raise

    async def _left(self, path: str) -> list[dict[str, Any]]:
        """The metadata of every object of a collection."""
        answer = await self._client.request("GET", path, accept=METADATA_LIST)
        return [item["metadata"] for item in msgspec.json.decode(answer).get("items") or ()]

    async def _finalize(self, name: str) -> None:
        """Take our finalizer off; the API server then removes the namespace."""
        path = f"/api/v1/namespaces/{name}"
        try:
            document = msgspec.json.decode(await self._client.request("GET", path))
            kept = [item for item in document.get("spec", {}).get("finalizers", ()) if item != FINALIZER]
            document["spec"] = {**document.get("spec", {}), "finalizers": kept}
            await self._client.request("PUT", f"{path}/finalize", body=msgspec.json.encode(document))
        except ApiError as error:
            if not is_not_found(error):
                raise

    async def _served(self) -> tuple[ServedResource, ...]:
        now = self._clock.monotonic()
        if now >= self._resources_until:
            self._resources = await discover(self._client)
            self._resources_until = now + DISCOVERY_S_MAX
        return self._resources
