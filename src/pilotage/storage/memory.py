"""The store without a disk: for tests and for clusters that may forget.

Apart from SQLite so that a test needs no file and no thread. Same ledger, same history; a write is as durable as it
gets the moment it is accepted.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from sortedcontainers import SortedDict

from pilotage.storage.backend import Event, EventType, KeyValue, Listing, Operation, Watch
from pilotage.storage.errors import UnavailableError
from pilotage.storage.history import HISTORY_EVENTS_MAX, History
from pilotage.storage.ledger import Ledger


class MemoryBackend:
    """A Backend whose contents end with the process."""

    leases = False

    def __init__(self, *, history_events_max: int = HISTORY_EVENTS_MAX) -> None:
        self._ledger = Ledger()
        self._history = History(0, events_max=history_events_max)
        self._items: SortedDict[str, KeyValue] = SortedDict()
        self._closed = False

    @property
    def revision(self) -> int:
        return self._history.revision

    @property
    def compacted_revision(self) -> int:
        return self._history.compacted_revision

    @property
    def failure(self) -> str | None:
        return None

    async def get(self, key: str) -> KeyValue | None:
        found: KeyValue | None = self._items.get(key)
        return found

    async def list(self, prefix: str, *, limit: int = 0, start_after: str = "") -> Listing:
        keys = self._items.keys()
        start = max(bisect_left(keys, prefix), bisect_right(keys, start_after) if start_after else 0)
        items: list[KeyValue] = []
        for key in self._items.islice(start):
            if not key.startswith(prefix):
                break
            if limit and len(items) == limit:
                return Listing(revision=self.revision, items=tuple(items), more=True)
            items.append(self._items[key])
        return Listing(revision=self.revision, items=tuple(items), more=False)

    async def create(self, key: str, value: bytes) -> int:
        return await self.txn((Operation(key=key, value=value, expected=0),))

    async def update(self, key: str, value: bytes, expected: int, *, ttl_s: float | None = None) -> int:
        return await self.txn((Operation(key=key, value=value, expected=expected),))

    async def delete(self, key: str, expected: int | None = None) -> int:
        return await self.txn((Operation(key=key, value=None, expected=expected),))

    async def txn(self, operations: Sequence[Operation]) -> int:
        if self._closed:
            raise UnavailableError("the store is closed")
        events = self._ledger.accept(operations)
        for event in events:
            self._apply(event)
        revision = self._ledger.revision
        self._history.publish(revision, events)
        await asyncio.sleep(0)  # one turn for the watchers, who were woken first
        return revision

    def _apply(self, event: Event) -> None:
        if event.type is EventType.DELETE:
            del self._items[event.key]
            return
        self._items[event.key] = KeyValue(
            key=event.key,
            value=event.value,
            create_revision=event.create_revision,
            mod_revision=event.mod_revision,
            version=event.version,
        )

    async def watch(self, prefix: str, after: int) -> Watch:
        return self._history.watch(prefix, after)

    async def compact(self, revision: int) -> None:
        self._history.compact(revision)

    async def close(self) -> None:
        self._closed = True
        self._history.close()
