"""The store in etcd, which several API servers may share.

Apart because it is the only backend whose order is made elsewhere: etcd assigns revisions and detects conflicts, and
one watch over its whole keyspace feeds the same history that serves the watches of the local backends, whoever wrote.
A write is answered once etcd has it on a majority of disks *and* the watch has brought it back.

It speaks the JSON gateway that every etcd serves beside gRPC (ADR 7). While etcd is away writes fail as unavailable and
watches wait; when it returns, the watch goes on after the last revision it has seen. If etcd has forgotten that
revision meanwhile, or has gone back behind it, every watch is cut off: its owner must begin anew.
Differs from the local backends: a DELETE event carries no create revision and no version, and history before the start
is not asked for. Defragmentation and backup are etcd's own tools.

Specification: etcd v3 API and its gRPC gateway (https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/).
"""

from __future__ import annotations

import asyncio
import base64
import io
import math
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import aiohttp
import msgspec

from pilotage.kit.backoff import Backoff
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.storage.backend import Event, EventType, KeyValue, Listing, Operation, Watch
from pilotage.storage.errors import ConflictError, StorageError, TooLargeError, UnavailableError
from pilotage.storage.history import HISTORY_EVENTS_MAX, History
from pilotage.telemetry import get_logger

log = get_logger()

# etcd counts from 1 when it is empty, our stores from 0.
_FIRST_REVISION = 1
# A page must stay below the 4 MiB that etcd's gateway takes in one message, with objects of a few KiB.
LIST_KEYS_MAX = 500
BODY_BYTES_WHOLE_MAX = 512 * 1024
REQUEST_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 2.0
# Requests on their way to etcd at once; more wait their turn. The watch has a connection of its own.
REQUESTS_MAX = 128
# How often to ask whether etcd is well and whether the watch keeps up with it.
CHECK_INTERVAL_S = 2.0
# As kube-apiserver: what is older than five to ten minutes is forgotten.
COMPACTION_INTERVAL_S = 300.0
# As kube-apiserver: one lease serves the keys of a minute, and no more than a thousand of them.
LEASE_REUSE_S = 60.0
LEASE_KEYS_MAX = 1_000
_RECONNECT = Backoff(initial_s=0.05, max_s=2.0)
# gRPC status codes, as the gateway passes them on.
_INVALID_ARGUMENT, _OUT_OF_RANGE = 3, 11

T = TypeVar("T")


class _Header(msgspec.Struct):
    revision: int = 0


class _KeyValue(msgspec.Struct):
    key: bytes
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0


class _Range(msgspec.Struct):
    header: _Header = msgspec.field(default_factory=_Header)
    kvs: tuple[_KeyValue, ...] = ()
    more: bool = False


class _Part(msgspec.Struct):
    response_range: _Range | None = None


class _Txn(msgspec.Struct):
    header: _Header
    succeeded: bool = False
    responses: tuple[_Part, ...] = ()


class _Lease(msgspec.Struct):
    id: int = msgspec.field(name="ID")


class _Change(msgspec.Struct):
    kv: _KeyValue
    type: str = "PUT"


class _Changes(msgspec.Struct):
    header: _Header
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: tuple[_Change, ...] = ()


class _Refusal(msgspec.Struct):
    message: str = ""
    code: int = 0


class _Line(msgspec.Struct):
    """One line of a watch."""

    result: _Changes | None = None
    error: _Refusal | None = None


class _Anything(msgspec.Struct):
    pass


# The gateway writes 64-bit numbers as strings, as proto3's JSON mapping says.
_decode_line = msgspec.json.Decoder(_Line, strict=False).decode
_encode = msgspec.json.Encoder().encode


class _LostTrackError(StorageError):
    """etcd no longer has what comes after the last revision seen."""


class EtcdBackend:
    """A Backend on an etcd cluster. Open it with `await EtcdBackend.open(url)`."""

    leases = True

    def __init__(
        self, session: aiohttp.ClientSession, endpoints: Sequence[str], revision: int, history_events_max: int
    ) -> None:
        self._session = session
        self._endpoints = deque(endpoints)  # the first is asked; one that does not answer goes to the end
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
        endpoints, tls = _parsed(url)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=REQUESTS_MAX, ssl=tls or True),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
        )
        try:
            for endpoint in endpoints:
                try:
                    found = await _call(session, endpoint, "kv/range", _everything(count_only=True), _Range)
                except UnavailableError:
                    if endpoint == endpoints[-1]:
                        raise
                    continue
                return cls(session, endpoints, found.header.revision - _FIRST_REVISION, history_events_max)
            raise AssertionError("unreachable")
        except BaseException:
            await session.close()
            raise

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
        found = await self._call("kv/range", {"key": _text(key)}, _Range)
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
            asked = {"key": _base64(start), "range_end": _base64(end), "limit": wanted, "revision": revision}
            found = await self._call("kv/range", asked, _Range)
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
        answer = await self._call("kv/txn", asked, _Txn)
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
            await self._call("kv/compaction", asked, _Anything)
        except _Refused as refusal:
            if refusal.code != _OUT_OF_RANGE:  # another API server was faster
                raise

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._task.cancel()
        await asyncio.wait((self._task,))
        self._history.close()
        self._release()
        await self._session.close()

    # Asking.

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("the store is closed")

    async def _call(self, path: str, asked: object, type_: type[T]) -> T:
        self._check_open()
        endpoint = self._endpoints[0]
        try:
            return await _call(self._session, endpoint, path, asked, type_)
        except _Refused:
            raise
        except UnavailableError:
            if self._endpoints[0] == endpoint:
                self._endpoints.rotate(-1)
            raise

    async def _step(self, operation: Operation) -> dict[str, Any]:
        if operation.value is None:
            return {"request_delete_range": {"key": _text(operation.key)}}
        put: dict[str, Any] = {"key": _text(operation.key), "value": _base64(operation.value)}
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
                lease = (await self._call("lease/grant", asked, _Lease)).id
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
                async for changes in self._stream():
                    failures = 0
                    self._take(changes)
            except UnavailableError as error:
                self._failure = str(error)
            failures += 1
            await asyncio.sleep(_RECONNECT.delay_s(failures))

    async def _stream(self) -> AsyncIterator[_Changes]:
        """One connection's worth of changes after the newest that is known. Raises UnavailableError at its end."""
        start = self._history.revision + _FIRST_REVISION + 1
        asked = {"create_request": {**_everything(), "start_revision": str(start), "progress_notify": True}}
        endpoint = self._endpoints[0]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.post(f"{endpoint}/v3/watch", data=_encode(asked), timeout=timeout) as response:
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        read = _decode_line(line)
                        if read.result is None:
                            raise UnavailableError(f"etcd ends its watch: {read.error}")
                        yield read.result
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            if self._endpoints[0] == endpoint:
                self._endpoints.rotate(-1)
            raise UnavailableError(f"the watch of etcd broke: {error!r:.200}") from error
        raise UnavailableError("etcd has ended its watch")

    def _take(self, changes: _Changes) -> None:
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
                found = await self._call("kv/range", _everything(count_only=True), _Range)
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


class _Refused(UnavailableError):
    """etcd answered, and said no."""

    def __init__(self, refusal: _Refusal) -> None:
        super().__init__(f"etcd refuses: {refusal.message[:200]}")
        self.code = refusal.code


async def _call(session: aiohttp.ClientSession, endpoint: str, path: str, asked: object, type_: type[T]) -> T:
    body = _encode(asked)
    try:
        # aiohttp wants large bodies as files, which it sends piece by piece.
        data = io.BytesIO(body) if len(body) > BODY_BYTES_WHOLE_MAX else body
        async with session.post(f"{endpoint}/v3/{path}", data=data) as response:
            answer = await response.read()
        if response.status == 200:
            return msgspec.json.decode(answer, type=type_, strict=False)
        refusal = msgspec.json.decode(answer, type=_Refusal)
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
        raise UnavailableError(f"etcd does not answer: {error!r:.200}") from error
    if refusal.code == _INVALID_ARGUMENT and "too large" in refusal.message:
        raise TooLargeError(refusal.message[:200])
    raise _Refused(refusal)


def _parsed(url: str) -> tuple[list[str], ssl.SSLContext | None]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise ValueError(f"{url!r} is not http[s]://host:port[,host:port…]")
    endpoints = [f"{parts.scheme}://{host}" for host in parts.netloc.split(",") if host]
    files = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
    if unknown := files.keys() - {"ca", "cert", "key"}:
        raise ValueError(f"unknown options of etcd: {', '.join(sorted(unknown))}; known are ca, cert and key")
    if parts.scheme == "http":
        return endpoints, None
    try:
        context = ssl.create_default_context(cafile=files.get("ca"))
        if "cert" in files:
            context.load_cert_chain(files["cert"], files.get("key"))
    except OSError as error:
        raise UnavailableError(f"cannot read the certificates for etcd: {error}") from error
    return endpoints, context


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _text(key: str) -> str:
    return _base64(key.encode())


def _bounds(prefix: str) -> tuple[bytes, bytes]:
    """First key and end of a range. UTF-8 has no byte 0xff, so the last byte can always be increased."""
    if not prefix:
        return b"\0", b"\0"
    start = prefix.encode()
    return start, start[:-1] + bytes((start[-1] + 1,))


def _everything(**more: object) -> dict[str, object]:
    """Every key there is: from the smallest on, without end."""
    return {"key": _base64(b"\0"), "range_end": _base64(b"\0"), **more}


def _condition(operation: Operation) -> list[dict[str, object]]:
    compare: dict[str, object] = {"key": _text(operation.key)}
    conditions = []
    if operation.expected is not None:
        revision = operation.expected + _FIRST_REVISION if operation.expected else 0
        conditions.append(compare | {"target": "MOD", "result": "EQUAL", "mod_revision": str(revision)})
    if operation.value is None:  # what is deleted must exist
        conditions.append(compare | {"target": "VERSION", "result": "GREATER", "version": "0"})
    return conditions


def _conflict(operations: Sequence[Operation], found: Sequence[_Range | None]) -> ConflictError:
    for operation, range_ in zip(operations, found, strict=True):
        actual = range_.kvs[0].mod_revision - _FIRST_REVISION if range_ is not None and range_.kvs else 0
        expected = operation.expected
        if (expected is not None and expected != actual) or (operation.value is None and not actual):
            return ConflictError(operation.key, expected if expected is not None else -1, actual)
    raise UnavailableError("etcd refuses a transaction whose conditions all hold")


def _key_value(found: _KeyValue) -> KeyValue:
    return KeyValue(
        key=found.key.decode(),
        value=found.value,
        create_revision=found.create_revision - _FIRST_REVISION,
        mod_revision=found.mod_revision - _FIRST_REVISION,
        version=found.version,
    )


def _event(change: _Change) -> Event:
    deleted = change.type == "DELETE"
    return Event(
        type=EventType.DELETE if deleted else EventType.PUT,
        key=change.kv.key.decode(),
        value=change.kv.value,
        create_revision=0 if deleted else change.kv.create_revision - _FIRST_REVISION,
        mod_revision=change.kv.mod_revision - _FIRST_REVISION,
        version=change.kv.version,
    )
