"""The ConfigMaps and Secrets that pods of this node use, each kept current by a watch of its own.

Stands apart because variables and volumes share them. One watch an object, not one for all of them: a node may read
only what its pods name (the node authorizer's rule), and most pods of a node name the same few objects. A watch ends
with the last pod that uses its object, or as soon as the object turns out to be immutable.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pilotage.api.core_v1 import ConfigMap, Secret
from pilotage.client import Client, Informer
from pilotage.kit.tasks import TaskSet

K = TypeVar("K", ConfigMap, Secret)

SYNC_TIMEOUT_S = 10.0  # an API server that does not answer within this fails the mount, which is tried again


@dataclass(slots=True)
class _Watched(Generic[K]):
    informer: Informer[K]
    holders: set[str] = field(default_factory=set)


class References:
    """Objects by kind, namespace and name, held on behalf of pods (by uid)."""

    def __init__(self, client: Client, tasks: TaskSet, on_change: Callable[[str], None]) -> None:
        self._client = client
        self._tasks = tasks
        self._on_change = on_change  # called with the uid of every holder of a changed object
        self._watched: dict[tuple[str, str, str], _Watched[ConfigMap] | _Watched[Secret]] = {}

    async def config_map(self, namespace: str, name: str, *, holder: str) -> ConfigMap | None:
        """The object as it is now, None if it does not exist; raises `TimeoutError`."""
        found = await self._get(ConfigMap, namespace, name, holder)
        assert found is None or isinstance(found, ConfigMap)
        return found

    async def secret(self, namespace: str, name: str, *, holder: str) -> Secret | None:
        """The object as it is now, None if it does not exist; raises `TimeoutError`."""
        found = await self._get(Secret, namespace, name, holder)
        assert found is None or isinstance(found, Secret)
        return found

    async def _get(self, kind: type[K], namespace: str, name: str, holder: str) -> ConfigMap | Secret | None:
        key = (kind.kind, namespace, name)
        watched = self._watched.get(key)
        if watched is None:
            watched = self._open(kind, key)
        watched.holders.add(holder)
        async with asyncio.timeout(SYNC_TIMEOUT_S):
            await watched.informer.wait_synced()
        found = watched.informer.get(name, namespace)
        if found is not None and found.immutable:
            # It cannot change any more (KEP-1412); the informer goes on answering from what it has.
            self._tasks.cancel(key)
        return found

    def _open(self, kind: type[K], key: tuple[str, str, str]) -> "_Watched[ConfigMap] | _Watched[Secret]":
        _, namespace, name = key
        informer = Informer(self._client, kind, namespace=namespace, field_selector=f"metadata.name={name}")
        watched = _Watched(informer=informer)
        self._watched[key] = watched

        def changed(old: K | None, new: K | None) -> None:
            # The first state is what the holder waits for; only what comes later is a change.
            if informer.synced:
                for holder in tuple(watched.holders):
                    self._on_change(holder)

        informer.add_handler(changed)
        self._tasks.start(informer.run(), key=key)
        return watched

    def release(self, holder: str) -> None:
        """`holder` needs nothing any more."""
        for key, watched in tuple(self._watched.items()):
            watched.holders.discard(holder)
            if not watched.holders:
                self._tasks.cancel(key)
                del self._watched[key]
