"""The store in one SQLite file: durable before it answers, one fsync for many writers.

Apart because it is the only module that knows SQL and the only one with a thread. The event loop accepts writes
(ledger, revision) and queues them; one writer thread owns the connection, takes whatever has queued up, commits it as
a single transaction and reports back; only then are watches and callers told. Under load the batch grows by itself,
so a thousand writers share an fsync (group commit) and a lone writer waits for nobody.

The file is WAL with synchronous=FULL (https://sqlite.org/pragma.html#pragma_synchronous): a commit survives power loss.
A lock beside it keeps a second owner away and lets others read, for backups. The highest revision is a row of its own,
written in the same transaction, so that deleting the newest key cannot make a revision come back.
Differs from etcd: history is kept in memory only; after a restart a watch from an older revision is told to list again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pilotage.storage.backend import Event, EventType, KeyValue, Listing, Operation, Watch
from pilotage.storage.errors import CorruptError, StorageError, UnavailableError
from pilotage.storage.history import HISTORY_EVENTS_MAX, History
from pilotage.storage.ledger import Ledger

T = TypeVar("T")

APPLICATION_ID = 0x50494C54  # "PILT": says whose file it is, https://sqlite.org/pragma.html#pragma_application_id
FORMAT = 1
# Enough to fill a batch while the previous one syncs; beyond it writers wait their turn.
WRITES_IN_FLIGHT_MAX = 4_096
# Bounds the time and the WAL growth of a single transaction.
BATCH_WRITES_MAX = 1_024
# Rows of one statement.
_GROUP_ROWS = (64, 16, 4, 1)
# A backup reads; the end of it is a matter of milliseconds.
BUSY_TIMEOUT_S = 10.0
# Each attempt reads the whole index; a disk that is still full should not make every writer pay that.
RECOVERY_INTERVAL_S = 1.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kv (
    key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL,
    create_revision INTEGER NOT NULL, mod_revision INTEGER NOT NULL, version INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('revision', 0);
"""
_PUT = "INSERT OR REPLACE INTO kv (key, value, create_revision, mod_revision, version) VALUES "
_COLUMNS = "key, value, create_revision, mod_revision, version"

_Write = tuple[tuple[Event, ...], "asyncio.Future[int]"]
_Writes = list[_Write]
_Read = Callable[[sqlite3.Connection], None]


class SqliteBackend:
    """A Backend on one file. Open it with `await SqliteBackend.open(path)`."""

    leases = False

    def __init__(
        self,
        connection: sqlite3.Connection,
        ownership: contextlib.ExitStack,
        revision: int,
        entries: Sequence[KeyValue],
        history_events_max: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ledger = Ledger(revision, entries)
        self._history = History(revision, events_max=history_events_max)
        self._connection = connection
        self._ownership = ownership
        self._queue: queue.SimpleQueue[_Write | _Read | None] = queue.SimpleQueue()
        self._slots = asyncio.Semaphore(WRITES_IN_FLIGHT_MAX)
        self._failure: Exception | None = None  # a commit failed: the ledger is ahead of what will ever be durable
        self._recovery = asyncio.Lock()
        self._recovered_at = -RECOVERY_INTERVAL_S
        self._closed = False
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._thread.start()

    @classmethod
    async def open(cls, path: Path, *, history_events_max: int = HISTORY_EVENTS_MAX) -> SqliteBackend:
        """Open or create the file, check it, and load its index.

        Raises CorruptError for a damaged or foreign file, UnavailableError when it cannot be opened or is in use.
        """
        try:
            connection, ownership, revision, entries = await asyncio.to_thread(_open, path)
        except sqlite3.OperationalError as error:
            raise UnavailableError(f"cannot open {path}: {error}") from error
        except OSError as error:
            raise UnavailableError(f"cannot open {path}: {error.strerror}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptError(f"{path} is not a usable store: {error}") from error
        return cls(connection, ownership, revision, entries, history_events_max)

    @property
    def revision(self) -> int:
        return self._history.revision

    @property
    def compacted_revision(self) -> int:
        return self._history.compacted_revision

    async def get(self, key: str) -> KeyValue | None:
        rows = await self._read(lambda c: c.execute(f"SELECT {_COLUMNS} FROM kv WHERE key = ?", (key,)).fetchall())  # noqa: S608
        return _key_value(rows[0]) if rows else None

    async def list(self, prefix: str, *, limit: int = 0, start_after: str = "") -> Listing:
        def read(connection: sqlite3.Connection) -> tuple[int, Sequence[tuple[str, bytes, int, int, int]]]:
            # The upper bound is the prefix followed by the highest code point: BINARY collation compares UTF-8 bytes.
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM kv WHERE key >= ? AND key < ? AND key > ? ORDER BY key LIMIT ?",  # noqa: S608
                (prefix, prefix + "\U0010ffff", start_after, limit + 1 if limit else -1),
            ).fetchall()
            return newest_revision(connection), rows

        revision, rows = await self._read(read)
        more = bool(limit) and len(rows) > limit
        return Listing(revision=revision, items=tuple(map(_key_value, rows[:limit] if more else rows)), more=more)

    async def create(self, key: str, value: bytes) -> int:
        return await self.txn((Operation(key=key, value=value, expected=0),))

    async def update(self, key: str, value: bytes, expected: int, *, ttl_s: float | None = None) -> int:
        return await self.txn((Operation(key=key, value=value, expected=expected),))

    async def delete(self, key: str, expected: int | None = None) -> int:
        return await self.txn((Operation(key=key, value=None, expected=expected),))

    async def txn(self, operations: Sequence[Operation]) -> int:
        async with self._slots:
            if self._failure is not None:
                await self._recover()
            self._check_open()
            done: asyncio.Future[int] = self._loop.create_future()
            self._queue.put((self._ledger.accept(operations), done))
            # A cancelled caller gives up waiting; the accepted write goes through regardless.
            return await asyncio.shield(done)

    async def watch(self, prefix: str, after: int) -> Watch:
        self._check_open()
        return self._history.watch(prefix, after)

    async def compact(self, revision: int) -> None:
        self._history.compact(revision)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.shield(self._stopped)
        self._history.close()

    @property
    def failure(self) -> str | None:
        return None if self._failure is None else str(self._failure)

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("the store is closed")

    async def _recover(self) -> None:
        """Go on from what is durable, now that the writes accepted on top of a failed one have failed too.

        A full disk may have room again. Revisions go on from the highest ever assigned, so none is used twice.
        """
        async with self._recovery:
            failure = self._failure
            if failure is None:
                return
            if self._loop.time() - self._recovered_at < RECOVERY_INTERVAL_S:
                raise UnavailableError(f"the store failed: {failure}") from failure
            self._recovered_at = self._loop.time()
            revision, entries = await self._read(_index)
            self._ledger = Ledger(max(revision, self._ledger.revision), entries)
            self._failure = None

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        self._check_open()
        done: asyncio.Future[T] = self._loop.create_future()

        def run(connection: sqlite3.Connection) -> None:
            try:
                result = read(connection)
            except sqlite3.Error as error:
                self._post(_fail, done, UnavailableError(f"read failed: {error}"))
            else:
                self._post(_succeed, done, result)

        self._queue.put(run)
        return await done

    # The writer thread. It touches the connection and the queue; everything else goes through _post.

    def _run(self) -> None:
        stop = False
        while not stop:
            item = self._queue.get()
            writes: _Writes = []
            while True:
                if item is None:
                    stop = True
                elif isinstance(item, tuple):
                    writes.append(item)
                else:
                    self._commit(writes)  # a read sees every write accepted before it
                    writes = []
                    item(self._connection)
                if stop or len(writes) >= BATCH_WRITES_MAX:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            self._commit(writes)
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        self._ownership.close()
        self._post(_succeed, self._stopped, None)

    def _commit(self, writes: _Writes) -> None:
        if not writes:
            return
        try:
            if self._failure is not None:
                raise UnavailableError("an earlier write failed")
            _write(self._connection, [event for events, _ in writes for event in events])
        except (sqlite3.Error, StorageError) as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.rollback()
            self._failure = self._failure or error
            self._post(self._failed, writes, error)
        else:
            self._post(self._committed, writes)

    def _post(self, callback: Callable[..., None], *args: object) -> None:
        # The loop is gone only when the process is ending; then nobody waits for the answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)

    # Back on the event loop.

    def _committed(self, writes: _Writes) -> None:
        self._history.publish(writes[-1][0][0].mod_revision, [event for events, _ in writes for event in events])
        for events, done in writes:
            _succeed(done, events[0].mod_revision)

    def _failed(self, writes: _Writes, error: Exception) -> None:
        for _, done in writes:
            _fail(done, UnavailableError(f"write failed: {error}"))


def _succeed(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[T], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
        done.exception()  # retrieved: a caller that was cancelled never looks


@contextlib.contextmanager
def owned(path: Path) -> Iterator[None]:
    """Be the one process that may write the file. Raises UnavailableError when another is.

    A file of its own holds the lock: closing any descriptor of the database would release SQLite's own locks on it.
    """
    descriptor = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UnavailableError(f"{path} is in use by another process") from error
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> tuple[sqlite3.Connection, contextlib.ExitStack, int, list[KeyValue]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    ownership = contextlib.ExitStack()
    with contextlib.ExitStack() as undo:
        undo.enter_context(ownership)
        ownership.enter_context(owned(path))
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        # Nobody else writes; a reader that takes a backup is waited for.
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        undo.callback(connection.close)
        check_header(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if (verdict := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise CorruptError(f"{path} failed its integrity check: {verdict}; restore a copy or start with a new file")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        revision, entries = _index(connection)
        undo.pop_all()
    return connection, ownership, revision, entries


def check_header(connection: sqlite3.Connection, path: Path) -> None:
    """Raises CorruptError unless the file is ours, or new, and of the format this version reads."""
    if (found := connection.execute("PRAGMA application_id").fetchone()[0]) not in (0, APPLICATION_ID):
        raise CorruptError(f"{path} belongs to another program (application id {found:#x})")
    if (found := connection.execute("PRAGMA user_version").fetchone()[0]) not in (0, FORMAT):
        raise CorruptError(f"{path} has format {found}, this version reads format {FORMAT}")


def _write(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
    # Only how a key ends matters. Few statements with many rows each: every statement gives up the interpreter's lock
    # and has to get it back from the busy event loop.
    last = {event.key: event for event in events}
    gone = [(event.key,) for event in last.values() if event.type is EventType.DELETE]
    puts = [
        (event.key, event.value, event.create_revision, event.mod_revision, event.version)
        for event in last.values()
        if event.type is EventType.PUT
    ]
    connection.execute("BEGIN IMMEDIATE")
    for values in _grouped(puts):
        connection.execute(_PUT + ",".join(["(?, ?, ?, ?, ?)"] * (len(values) // 5)), values)
    for values in _grouped(gone):
        connection.execute(f"DELETE FROM kv WHERE key IN ({','.join('?' * len(values))})", values)  # noqa: S608
    connection.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (events[-1].mod_revision,))
    connection.execute("COMMIT")


def _grouped(rows: Sequence[tuple[object, ...]]) -> Iterator[list[object]]:
    """The rows' values in groups of a few fixed sizes, so that their statements are prepared once."""
    start = 0
    for size in _GROUP_ROWS:
        while len(rows) - start >= size:
            yield [value for row in rows[start : start + size] for value in row]
            start += size


def _index(connection: sqlite3.Connection) -> tuple[int, list[KeyValue]]:
    rows = connection.execute("SELECT key, x'', create_revision, mod_revision, version FROM kv").fetchall()
    return newest_revision(connection), list(map(_key_value, rows))


def newest_revision(connection: sqlite3.Connection) -> int:
    """The highest revision ever committed."""
    return int(connection.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()[0])


def _key_value(row: tuple[str, bytes, int, int, int]) -> KeyValue:
    key, value, create_revision, mod_revision, version = row
    return KeyValue(key=key, value=value, create_revision=create_revision, mod_revision=mod_revision, version=version)
