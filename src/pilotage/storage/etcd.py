"""The store in etcd, which several API servers may share.

Apart because it is the only backend whose order is made elsewhere: etcd assigns revisions and detects conflicts, and
one watch over its whole keyspace feeds the same history that serves the watches of the local backends, whoever wrote.
A write is answered once etcd has it on a majority of disks *and* the watch has brought it back.

It speaks the JSON gateway that every etcd serves beside gRPC (ADR 7; `etcd_gateway`). While etcd is away writes fail as
unavailable and watches wait; when it returns, the watch goes on after the last revision it has seen. If etcd has
forgotten that revision meanwhile, or has gone back behind it, every watch is cut off: its owner must begin anew.
Differs from the local backends: a DELETE event carries no create revision and no version, and history before the start
is not asked for. Defragmentation and backup are etcd's own tools.

Specification: etcd v3 API and its gRPC gateway (https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

from pilotage.kit.backoff import Backoff
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.storage.backend import Event, EventType, KeyValue, Listing, Operation, Watch
from pilotage.storage.errors import ConflictError, StorageError, UnavailableError
from pilotage.storage.etcd_gateway import (
    OUT_OF_RANGE,
    REQUEST_TIMEOUT_S,
    AnyAnswer,
    Change,
    Changes,
    Gateway,
    LeaseAnswer,
    RangeAnswer,
    RefusedError,
    Stored,
    TxnAnswer,
    base64_of,
    everything,
)
from pilotage.storage.history import HISTORY_EVENTS_MAX, History
from pilotage.telemetry import get_logger

log = get_logger()

# etcd counts from 1 when it is empty, our stores from 0.
_FIRST_REVISION = 1
# A page must stay below the 4 MiB that etcd's gateway takes in one message, with objects of a few KiB.
LIST_KEYS_MAX = 500
# How often to ask whether etcd is well and whether the watch keeps up with it.
CHECK_INTERVAL_S = 2.0
# As kube-apiserver: what is older than five to ten minutes is forgotten.
COMPACTION_INTERVAL_S = 300.0
# As kube-apiserver: one lease serves the keys of a minute, and no more than a thousand of them.
LEASE_REUSE_S = 60.0
LEASE_KEYS_MAX = 1_000
_RECONNECT = Backoff(initial_s=0.05, max_s=2.0)

T = TypeVar("T")


class _LostTrackError(StorageError):
    """etcd no longer has what comes after the last revision seen."""


class EtcdBackend:
    """A Backend on an etcd cluster. Open it with `await EtcdBackend.open(url)`."""

    leases = True

    def __init__(self, gateway: Gateway, revision: int, history_events_max: int) -> None:
        self._gateway = gateway
        self._history = History(revision, events_max=history_events_max)
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._lease_lock = asyncio.Lock()
        self._lease: dict[float, tuple[int, float, int]] = {}  # time to live → lease, last moment of use, keys left
        self._failure: str | None = None
        self._closed = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="etcd")

    @classmethod
    async def open(cls, url: str, *, history_events_max: int = HISTORY_EVENTS_MAX) -> EtcdBackend:
        """Connect to `http[s]://host:port[,host:port…]`, with `?ca=FILE&cert=FILE&key=FILE` for TLS.

        Raises ValueError for a malformed URL, UnavailableError when nobody answers.
        """
        gateway, revision = await Gateway.open(url)
        return cls(gateway, revision - _FIRST_REVISION, history_events_max)

    @property
    def revision(self) -> int:
        return self._history.revision

    @property
    def compacted_revision(self) -> int:
        return self._history.compacted_revision

    @property
    def failure(self) -> str | None:
        return self._failure

    async def get(self, key: str) -> KeyValue | None:
        found = await self._call("kv/range", {"key": _text(key)}, RangeAnswer)
        await self._seen(found.header.revision - _FIRST_REVISION)
        return _key_value(found.kvs[0]) if found.kvs else None

    async def list(self, prefix: str, *, limit: int = 0, start_after: str = "") -> Listing:
        start, end = _bounds(prefix)
        if start_after and start_after.encode() >= start:
            start = start_after.encode() + b"\0"
        items: list[KeyValue] = []
        revision = 0  # of the first page, and then of all
        while True:
            wanted = min(limit - len(items), LIST_KEYS_MAX) if limit else LIST_KEYS_MAX
            asked = {"key": base64_of(start), "range_end": base64_of(end), "limit": wanted, "revision": revision}
            found = await self._call("kv/range", asked, RangeAnswer)
            revision = revision or found.header.revision
            items += map(_key_value, found.kvs)
            if not found.more or len(items) == limit:
                break
            start = found.kvs[-1].key + b"\0"
        # Who goes on with a watch from here must not be told again what the listing has shown.
        await self._seen(revision - _FIRST_REVISION)
        return Listing(revision=revision - _FIRST_REVISION, items=tuple(items), more=found.more)

    async def create(self, key: str, value: bytes) -> int:
        return await self.txn((Operation(key=key, value=value, expected=0),))

    async def update(self, key: str, value: bytes, expected: int, *, ttl_s: float | None = None) -> int:
        return await self.txn((Operation(key=key, value=value, expected=expected, ttl_s=ttl_s),))

    async def delete(self, key: str, expected: int | None = None) -> int:
        return await self.txn((Operation(key=key, value=None, expected=expected),))

    async def txn(self, operations: Sequence[Operation]) -> int:
        if not operations:
            raise ValueError("a transaction needs at least one operation")
        if len({operation.key for operation in operations}) != len(operations):
            raise ValueError("a transaction names a key twice")
        asked = {
            "compare": [each for operation in operations for each in _condition(operation)],
            "success": [await self._step(operation) for operation in operations],
            "failure": [{"request_range": {"key": _text(operation.key)}} for operation in operations],
        }
        answer = await self._call("kv/txn", asked, TxnAnswer)
        if not answer.succeeded:
            raise _conflict(operations, [part.response_range for part in answer.responses])
        revision = answer.header.revision - _FIRST_REVISION
        await self._seen(revision)
        return revision

    async def watch(self, prefix: str, after: int) -> Watch:
        self._check_open()
        return self._history.watch(prefix, after)

    async def compact(self, revision: int) -> None:
        self._history.compact(revision)
        asked = {"revision": str(self._history.compacted_revision + _FIRST_REVISION)}
        try:
            await self._call("kv/compaction", asked, AnyAnswer)
        except RefusedError as refusal:
            if refusal.code != OUT_OF_RANGE:  # another API server was faster
                raise

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._task.cancel()
        await asyncio.wait((self._task,))
        self._history.close()
        self._release()
        await self._gateway.aclose()

    # Asking.

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("the store is closed")

    async def _call(self, path: str, asked: object, type_: type[T]) -> T:
        self._check_open()
        return await self._gateway.call(path, asked, type_)

    async def _step(self, operation: Operation) -> dict[str, Any]:
        if operation.value is None:
            return {"request_delete_range": {"key": _text(operation.key)}}
        put: dict[str, Any] = {"key": _text(operation.key), "value": base64_of(operation.value)}
        if operation.ttl_s is not None:
            put["lease"] = str(await self._leased(operation.ttl_s))
        return {"request_put": put}

    async def _leased(self, ttl_s: float) -> int:
        """A lease that lasts at least `ttl_s` from now; shared, because each costs etcd a heap entry and a deletion."""
        async with self._lease_lock:
            now = asyncio.get_running_loop().time()
            lease, until, left = self._lease.get(ttl_s, (0, 0.0, 0))
            if now > until or not left:
                reuse_s = min(LEASE_REUSE_S, ttl_s / 20)
                asked = {"TTL": str(math.ceil(ttl_s + reuse_s)), "ID": "0"}
                lease = (await self._call("lease/grant", asked, LeaseAnswer)).id
                until, left = now + reuse_s, LEASE_KEYS_MAX
            self._lease[ttl_s] = (lease, until, left - 1)
            return lease

    async def _seen(self, revision: int) -> None:
        """Return once the watch has brought everything up to `revision`."""
        if revision <= self._history.revision:
            await asyncio.sleep(0)  # one turn for the watchers, who have been woken but may not have run
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((revision, waiter))
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await waiter
        except TimeoutError:
            raise UnavailableError("etcd has the write, but its watch does not bring it") from None
        self._check_open()

    def _release(self) -> None:
        for _ in range(len(self._waiters)):
            revision, waiter = self._waiters.popleft()
            if revision > self._history.revision and not self._closed:
                self._waiters.append((revision, waiter))
            elif not waiter.done():
                waiter.set_result(None)

    # Following.

    async def _run(self) -> None:
        try:
            async with task_set() as tasks:
                tasks.start(self._follow(), key="watch", name="etcd-watch")
                tasks.start(self._tend(tasks), name="etcd-check")
                await tasks.wait()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failure = str(error)
            log.exception("etcd cannot be followed any more")
            self._history.cut_off()

    async def _follow(self) -> None:
        """Feed the history, reconnecting for as long as it takes. Raises _LostTrackError."""
        failures = 0
        while True:
            try:
                async for changes in self._gateway.changes(self._history.revision + _FIRST_REVISION + 1):
                    failures = 0
                    self._take(changes)
            except UnavailableError as error:
                self._failure = str(error)
            failures += 1
            await asyncio.sleep(_RECONNECT.delay_s(failures))

    def _take(self, changes: Changes) -> None:
        if changes.compact_revision:
            raise _LostTrackError("etcd has compacted what comes after the last revision seen")
        if changes.canceled:
            raise UnavailableError(f"etcd cancels its watch: {changes.cancel_reason}")
        self._failure = None
        if changes.created:
            if changes.header.revision < self._history.revision + _FIRST_REVISION:
                raise _LostTrackError("etcd has gone back to an older revision: it was restored or replaced")
            return  # its revision is where etcd stands, not how far this watch has come
        events = [_event(change) for change in changes.events]
        revision = events[-1].mod_revision if events else changes.header.revision - _FIRST_REVISION
        if revision > self._history.revision:
            self._history.publish(revision, events)
            self._release()

    async def _tend(self, tasks: TaskSet) -> None:
        """Notice an etcd that is away and a watch that has gone silent; compact."""
        loop = asyncio.get_running_loop()
        behind = -1  # the revision the watch stood at when it was last found behind
        compact_to, compact_at = self._history.revision, loop.time() + COMPACTION_INTERVAL_S
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            try:
                found = await self._call("kv/range", everything(count_only=True), RangeAnswer)
                self._failure = None
                if found.header.revision - _FIRST_REVISION <= self._history.revision:
                    behind = -1
                elif behind == self._history.revision:
                    tasks.start(self._follow(), key="watch", name="etcd-watch")
                    behind = -1
                else:
                    behind = self._history.revision
                if loop.time() >= compact_at:
                    await self.compact(compact_to)
                    compact_to, compact_at = self._history.revision, loop.time() + COMPACTION_INTERVAL_S
            except StorageError as error:
                self._failure = str(error)


def _text(key: str) -> str:
    return base64_of(key.encode())


def _bounds(prefix: str) -> tuple[bytes, bytes]:
    """First key and end of a range. UTF-8 has no byte 0xff, so the last byte can always be increased."""
    if not prefix:
        return b"\0", b"\0"
    start = prefix.encode()
    return start, start[:-1] + bytes((start[-1] + 1,))


def _condition(operation: Operation) -> list[dict[str, object]]:
    compare: dict[str, object] = {"key": _text(operation.key)}
    conditions = []
    if operation.expected is not None:
        revision = operation.expected + _FIRST_REVISION if operation.expected else 0
        conditions.append(compare | {"target": "MOD", "result": "EQUAL", "mod_revision": str(revision)})
    if operation.value is None:  # what is deleted must exist
        conditions.append(compare | {"target": "VERSION", "result": "GREATER", "version": "0"})
    return conditions


def _conflict(operations: Sequence[Operation], found: Sequence[RangeAnswer | None]) -> ConflictError:
    for operation, range_ in zip(operations, found, strict=True):
        actual = range_.kvs[0].mod_revision - _FIRST_REVISION if range_ is not None and range_.kvs else 0
        expected = operation.expected
        if (expected is not None and expected != actual) or (operation.value is None and not actual):
            return ConflictError(operation.key, expected if expected is not None else -1, actual)
    raise UnavailableError("etcd refuses a transaction whose conditions all hold")


def _key_value(found: Stored) -> KeyValue:
    return KeyValue(
        key=found.key.decode(),
        value=found.value,
        create_revision=found.create_revision - _FIRST_REVISION,
        mod_revision=found.mod_revision - _FIRST_REVISION,
        version=found.version,
    )


def _event(change: Change) -> Event:
    deleted = change.type == "DELETE"
    return Event(
        type=EventType.DELETE if deleted else EventType.PUT,
        key=change.kv.key.decode(),
        value=change.kv.value,
        create_revision=0 if deleted else change.kv.create_revision - _FIRST_REVISION,
        mod_revision=change.kv.mod_revision - _FIRST_REVISION,
        version=change.kv.version,
    )
