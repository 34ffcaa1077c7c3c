"""Writes that a reconciler remembers until its own caches show them.

Stands apart because every controller that creates or deletes objects would otherwise count from a cache that lags
behind its own hands, and create twice. Instead of expectations (client-go) a reconciler waits, before it looks again,
until the informer has passed the resourceVersion that its last write was answered with; versions are comparable
integers since Kubernetes 1.35 (KEP-5504). Called by reconcilers; bounded by the requests in work.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from pilotage.api.codec import decode, encode
from pilotage.api.meta_v1 import Object
from pilotage.api.status import is_not_found
from pilotage.client.client import Client, PatchType, path_of
from pilotage.client.informer import Informer
from pilotage.kit.errors import PilotageError
from pilotage.reconcile.request import Request
from pilotage.telemetry import get_logger

K = TypeVar("K", bound=Object)

SETTLE_S_MAX = 10.0
"""A cache that lags more than this is broken, not late; deciding on old news is then better than never deciding."""

_log = get_logger()


class Writes:
    """The writes of one controller, and which of its requests still wait to see them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._versions: dict[Request, dict[Informer[Any], int]] = {}
        self._deletions: dict[Request, dict[str, asyncio.Future[None]]] = {}
        self._watched: dict[Informer[Any], dict[str, asyncio.Future[None]]] = {}

    def follow(self, informer: Informer[K]) -> None:
        """Notice deletions in `informer`; call once for each kind that is deleted, before it runs."""
        pending = self._watched.setdefault(informer, {})

        def seen(old: K | None, new: K | None) -> None:
            for obj in (old, new):
                if obj is None or (uid := obj.metadata.uid) not in pending:
                    continue
                if new is None or new.metadata.uid != uid or new.metadata.is_deleting:
                    future = pending.pop(uid)
                    if not future.done():
                        future.set_result(None)

        informer.add_handler(seen)

    async def settle(self, request: Request) -> None:
        """Until the caches contain everything that was written for `request`; to be awaited before reading them."""
        versions = self._versions.pop(request, {})
        deletions = self._deletions.pop(request, {})
        if not versions and all(future.done() for future in deletions.values()):
            return
        try:
            async with asyncio.timeout(SETTLE_S_MAX):
                for informer, version in versions.items():
                    await informer.wait_for(version)
                for future in deletions.values():
                    await future
        except TimeoutError:
            _log.warning("cache does not show own writes", request=str(request))

    async def create(self, request: Request, informer: Informer[K], document: Mapping[str, Any]) -> K:
        """Create an object from its whole document, so that no field is lost which the types do not know."""
        namespace = document["metadata"].get("namespace", "")
        answer = await self.client.request("POST", path_of(informer.kind, namespace), body=encode(document))
        return self._wrote(request, informer, decode(informer.kind, answer))

    async def patch(
        self,
        request: Request,
        informer: Informer[K],
        obj: K,
        body: object,
        *,
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
    ) -> K:
        """Change parts of `obj`."""
        answer = await self.client.patch(
            informer.kind,
            obj.metadata.name,
            body,
            namespace=obj.metadata.namespace,
            patch_type=patch_type,
            subresource=subresource,
        )
        return self._wrote(request, informer, answer)

    async def patch_status(self, request: Request, informer: Informer[K], obj: K, changes: Mapping[str, Any]) -> None:
        """Merge `changes` into the status; nothing is sent when there are none."""
        if changes:
            await self.patch(request, informer, obj, {"status": changes}, subresource="status")

    async def delete(
        self,
        request: Request,
        informer: Informer[K],
        obj: K,
        *,
        propagation: str = "",
        grace_period_s: int | None = None,
    ) -> None:
        """Delete exactly this object (by uid); one that is gone already is fine."""
        uid = obj.metadata.uid
        pending = self._watched[informer]
        future = pending.get(uid)
        if future is None:
            future = pending[uid] = asyncio.get_running_loop().create_future()
        self._deletions.setdefault(request, {})[uid] = future
        try:
            await self.client.delete(
                informer.kind,
                obj.metadata.name,
                namespace=obj.metadata.namespace,
                propagation=propagation,
                grace_period_s=grace_period_s,
                uid=uid,
            )
        except PilotageError as error:
            pending.pop(uid, None)
            self._deletions.get(request, {}).pop(uid, None)
            if not is_not_found(error):
                raise

    def _wrote(self, request: Request, informer: Informer[K], obj: K) -> K:
        versions = self._versions.setdefault(request, {})
        versions[informer] = max(versions.get(informer, 0), obj.metadata.version_number)
        return obj


async def slow_start(count: int, act: Callable[[], Awaitable[object]]) -> None:
    """`act` `count` times in parallel batches of 1, 2, 4 …, so that a refusal costs one request and not hundreds.

    The first failure of a batch is raised after the batch has ended.
    """
    size = 1
    while count > 0:
        batch = min(size, count)
        await together([act() for _ in range(batch)])
        count -= batch
        size *= 2


async def together(actions: list[Awaitable[object]]) -> None:
    """Await all; the first failure is raised once all have ended, so that no write is left half known."""
    for outcome in await asyncio.gather(*actions, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
