"""A local copy of one kind, kept current by one watch.

Reflector and store in one: opens a streaming list (KEP-3157) where the server can, list + watch where it cannot,
resumes from the last resourceVersion, starts afresh on 410 Gone, and keeps its last state while the API is away. Feeds
controllers, proxy, DNS, gateway and agent. Leaves out resync timers: handlers enqueue keys, and whoever wants a
periodic look has a timer of its own.
"""

import asyncio
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from pilotage.api.meta_v1 import Object
from pilotage.api.status import ApiError, is_gone
from pilotage.client.client import Client, WatchEvent
from pilotage.client.errors import ConnectionFailed
from pilotage.kit.backoff import Backoff
from pilotage.telemetry import get_logger

K = TypeVar("K", bound=Object)
Handler = Callable[[K | None, K | None], None]

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
WATCH_TIMEOUT_S = 480  # the server ends the stream then; spread over twice this as client-go does
PAGE_SIZE = 500

_RETRY = Backoff(initial_s=0.05, max_s=5.0)
_log = get_logger()


class Informer(Generic[K]):
    """The objects of one kind (optionally selected), by `namespace/name`.

    Handlers run in the event loop, in the order of events, after the store changed: `handler(old, new)` with None for
    "was not there" and "is gone". They must only enqueue. Objects are frozen and may be shared.
    """

    def __init__(
        self,
        client: Client,
        kind: type[K],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        transform: Callable[[K], K] | None = None,
    ) -> None:
        """`transform` is applied to every object before it is stored, to keep less of it; it must leave identity and
        resourceVersion alone."""
        self.kind = kind
        self.resource_version = 0  # everything up to here is in the store; bookmarks advance it too
        self._client = client
        self._transform = transform
        self._scope: dict[str, Any] = {
            "namespace": namespace,
            "label_selector": label_selector,
            "field_selector": field_selector,
        }
        self._store: dict[str, K] = {}
        self._handlers: list[Handler[K]] = []
        self._progress: list[Callable[[int], None]] = []
        self._indexers: dict[str, Callable[[K], Iterable[Hashable]]] = {}
        self._indexes: dict[str, dict[Hashable, dict[str, K]]] = {}
        self._synced = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._can_stream = True

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def synced(self) -> bool:
        """Whether the store has held a complete copy at least once."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    async def wait_for(self, resource_version: int) -> None:
        """Until the store contains everything up to `resource_version`, for instance one's own write."""
        if self.resource_version < resource_version:
            reached = asyncio.get_running_loop().create_future()
            self._waiting.append((resource_version, reached))
            await reached

    def get(self, name: str, namespace: str = "") -> K | None:
        return self._store.get(f"{namespace}/{name}" if namespace else name)

    def get_key(self, key: str) -> K | None:
        """By `metadata.key`."""
        return self._store.get(key)

    def list(self, namespace: str = "") -> Sequence[K]:
        """All objects, or those of one namespace (a scan; index what is asked often). In no particular order."""
        if not namespace:
            return [*self._store.values()]
        return [obj for obj in self._store.values() if obj.metadata.namespace == namespace]

    def by_index(self, index: str, value: Hashable) -> Sequence[K]:
        """The objects whose index function yielded `value`."""
        return [*self._indexes[index].get(value, {}).values()]

    def __len__(self) -> int:
        return len(self._store)

    def snapshot(self) -> dict[str, Any]:
        """For debugging: what is held and how far."""
        return {
            "kind": self.kind.kind,
            "objects": len(self._store),
            "resourceVersion": self.resource_version,
            "synced": self.synced,
        }

    # ── wiring, before `run` ────────────────────────────────────────────────────────────────────────────────────

    def add_handler(self, handler: Handler[K]) -> None:
        """Call `handler(old, new)` for every change; objects already held are reported at once as added."""
        self._handlers.append(handler)
        for obj in self._store.values():
            handler(None, obj)

    def add_progress(self, progress: Callable[[int], None]) -> None:
        """Call `progress(resource_version)` whenever it advanced, after the handlers (watermarks)."""
        self._progress.append(progress)

    def add_index(self, index: str, function: Callable[[K], Iterable[Hashable]]) -> None:
        """Keep `by_index(index, value)` for every value that `function(object)` yields."""
        if index in self._indexers:
            return
        self._indexers[index] = function
        self._indexes[index] = {}
        for key, obj in self._store.items():
            self._index(index, key, None, obj)

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Keep the store current until cancelled. Never raises for what the server or network does."""
        failures = 0
        while True:
            try:
                if self.resource_version and self.synced:
                    await self._resume()
                else:
                    await self._start_afresh()
                failures = 0
            except ApiError as error:
                if is_gone(error):
                    self.resource_version = 0
                    failures = 0
                    continue
                if self._can_stream and error.reason in ("Invalid", "BadRequest", "NotAcceptable"):
                    self._can_stream = False
                    continue
                failures += 1
                _log.warning("watch refused", kind=self.kind.kind, reason=error.reason, error=str(error)[:300])
            except ConnectionFailed as error:
                failures += 1
                level = _log.debug if failures < 3 else _log.warning
                level("watch lost", kind=self.kind.kind, error=str(error)[:300], failures=failures)
            if failures:
                await asyncio.sleep(_RETRY.delay_s(failures, roll=random.random(), jitter=0.2))  # noqa: S311 - jitter

    async def _start_afresh(self) -> None:
        if not self._can_stream:
            await self._list()
            return
        fresh: dict[str, K] | None = {}
        async for event in self._client.watch(
            self.kind, send_initial_events=True, timeout_s=_watch_timeout(), **self._scope
        ):
            if fresh is None:
                self._apply(event)
            elif event.type == "BOOKMARK" and INITIAL_EVENTS_END in event.object.metadata.annotations:
                self._replace(fresh, event.object.metadata.version_number)
                fresh = None
            elif event.type in ("ADDED", "MODIFIED"):
                fresh[event.object.metadata.key] = self._kept(event.object)
            elif event.type == "DELETED":
                fresh.pop(event.object.metadata.key, None)
        if fresh is not None:
            raise ConnectionFailed("the stream ended before the initial events were complete")

    async def _list(self) -> None:
        fresh: dict[str, K] = {}
        page = await self._client.list(self.kind, limit=PAGE_SIZE, **self._scope)
        while True:
            fresh |= {item.metadata.key: self._kept(item) for item in page.items}
            if not page.continue_token:
                break
            page = await self._client.list(
                self.kind, limit=PAGE_SIZE, continue_token=page.continue_token, **self._scope
            )
        self._replace(fresh, int(page.resource_version or 0))

    async def _resume(self) -> None:
        async for event in self._client.watch(
            self.kind, resource_version=str(self.resource_version), timeout_s=_watch_timeout(), **self._scope
        ):
            self._apply(event)

    def _apply(self, event: WatchEvent[K]) -> None:
        meta = event.object.metadata
        if event.type in ("ADDED", "MODIFIED"):
            self._change(meta.key, self._kept(event.object))
        elif event.type == "DELETED":
            self._change(meta.key, None)
        self._advance(meta.version_number)

    def _kept(self, obj: K) -> K:
        return obj if self._transform is None else self._transform(obj)

    def _replace(self, fresh: dict[str, K], resource_version: int) -> None:
        for key in [key for key in self._store if key not in fresh]:
            self._change(key, None)
        for key, obj in fresh.items():
            self._change(key, obj)
        self.resource_version = 0  # a restored server may legitimately be behind what we saw
        self._advance(resource_version)
        self._synced.set()

    def _change(self, key: str, new: K | None) -> None:
        old = self._store.get(key)
        if new is None:
            if old is None:
                return
            del self._store[key]
        else:
            if old is not None and old.metadata.resource_version == new.metadata.resource_version != "":
                return
            self._store[key] = new
        for index in self._indexers:
            self._index(index, key, old, new)
        for handler in self._handlers:
            handler(old, new)

    def _index(self, index: str, key: str, old: K | None, new: K | None) -> None:
        function, entries = self._indexers[index], self._indexes[index]
        for value in function(old) if old is not None else ():
            if (bucket := entries.get(value)) is not None:
                bucket.pop(key, None)
                if not bucket:
                    del entries[value]
        for value in function(new) if new is not None else ():
            entries.setdefault(value, {})[key] = new  # type: ignore[assignment]  # new is not None here

    def _advance(self, resource_version: int) -> None:
        if resource_version <= self.resource_version:
            return
        self.resource_version = resource_version
        for progress in self._progress:
            progress(resource_version)
        if self._waiting:
            due = [future for version, future in self._waiting if version <= resource_version]
            self._waiting = [entry for entry in self._waiting if entry[0] > resource_version and not entry[1].done()]
            for future in due:
                if not future.done():
                    future.set_result(None)


def _watch_timeout() -> int:
    return WATCH_TIMEOUT_S + int(random.random() * WATCH_TIMEOUT_S)  # noqa: S311 - spreads reconnects
