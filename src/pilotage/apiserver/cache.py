"""The watch cache: every object in memory, and the recent changes of each resource.

Stands apart because reads never touch storage: GET, LIST and watch are answered from here, and one encoded event
serves every watcher. Fed by one watch over the whole store, so that after revision N *every* resource is current as of
N; that makes bookmarks of quiet resources true at once. Read by the registry and the watch streams; written by nobody
else. All of it lives on the event loop's thread, without locks.
Source of the semantics: KEP-2340 (consistent reads from cache), KEP-3157 (watch list), KEP-956 (bookmarks).
"""

from __future__ import annotations

import asyncio
import bisect
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice

from sortedcontainers import SortedDict

from pilotage.api.status import ApiError, StatusCause, StatusDetails
from pilotage.apiserver.core.record import Document, Record
from pilotage.kit import InvariantError
from pilotage.storage import Backend, Event, EventType

ROOT = "/registry/"
# As in etcd-backed clusters: what is older than this many changes of a resource must be listed again.
CHANGES_MAX = 4_096
# A read that names a future revision waits this long, as kube-apiserver does, before it answers "too large".
FUTURE_REVISION_WAIT_S = 3.0

# Watchers told in one turn of the event loop, two milliseconds of it: others get their turn between, the writer too.
WATCHERS_PER_TURN = 64

# Nobody waits for proof that these were seen; they change all the time.
_INSIGNIFICANT = frozenset(("leases", "events"))

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"


Observer = Callable[[str, str, Document | None, Document | None], None]


class Change:
    """One change of one object, with the encodings its watchers share."""

    __slots__ = ("_encoded", "previous", "record", "type")

    def __init__(self, type_: str, record: Record, previous: Record | None) -> None:
        self.type = type_
        self.record = record  # for DELETED: the last state, at the deletion's revision
        self.previous = previous  # None: ADDED
        self._encoded: dict[Hashable, bytes] = {}

    def encoded(self, form: Hashable, encode: Callable[[], bytes]) -> bytes:
        """The bytes for one form, made by the first watcher that wants it."""
        data = self._encoded.get(form)
        if data is None:
            data = self._encoded[form] = encode()
        return data


class Cursor:
    """A watcher's place in the changes of one resource.

    A watcher sleeps in `wait`. To wake its task costs more than to tell it what is new, so one that has set `prompt` is
    asked first, while it sleeps: the function does the work at once and returns True, or False to have it woken.
    """

    def __init__(self, cache: ResourceCache, sequence: int) -> None:
        self._cache = cache
        self._sequence = sequence
        self._wakeup = asyncio.Event()
        self._asleep = False
        self.prompt: Callable[[], bool] | None = None  # None: always wake the task; must not raise
        self.expired = False  # set by its owner's timer: the watch has lasted long enough
        self.bookmark_due = False  # set by the bookmark ticker
        if sequence < cache.end_sequence:
            self._wakeup.set()

    def wake(self) -> None:
        """Let the watcher see what is new."""
        if self._asleep and self.prompt is not None and not self._wakeup.is_set() and self.prompt():
            return
        self._wakeup.set()

    def expire(self) -> None:
        """End the watch at its next turn."""
        self.expired = True
        self._wakeup.set()

    async def wait(self) -> None:
        """Sleep until there are changes, a bookmark is due or the watch has expired."""
        self._asleep = True
        try:
            await self._wakeup.wait()
        finally:
            self._asleep = False
        self._wakeup.clear()

    def peek(self) -> list[Change]:
        """The changes not yet taken, oldest first. Raises ApiError Expired when some have been dropped."""
        return self._cache.since(self._sequence)

    def advance(self, count: int) -> None:
        """So many of them have been taken."""
        self._sequence += count

    def take(self) -> list[Change]:
        """The changes since the last call, oldest first. Raises ApiError Expired when some have been dropped."""
        changes = self.peek()
        self.advance(len(changes))
        return changes

    def close(self) -> None:
        """Forget this watcher."""
        self._cache.cursors.discard(self)


class ResourceCache:
    """The objects of one resource by key, in key order, and its recent changes."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.items: SortedDict[str, Record] = SortedDict()
        self._changes: deque[Change] = deque()
        self.end_sequence = 0  # changes ever seen; the oldest kept is `end_sequence - len(_changes)`
        self.floor = cache.revision  # a watch may start after this revision
        self.cursors: set[Cursor] = set()

    @property
    def revision(self) -> int:
        """The revision this view is current as of."""
        return self._cache.revision

    def get(self, key: str) -> Record | None:
        """The object at `key`."""
        record: Record | None = self.items.get(key)
        return record

    def scan(self, namespace: str, start_after: str = "") -> Iterator[Record]:
        """Records of a namespace ("" for all) in key order."""
        if not namespace and not start_after:
            return iter(self.items.values())
        # "0" is the character after "/": every key of the namespace lies between the two.
        low = max(f"{namespace}/" if namespace else "", start_after)
        high = f"{namespace}0" if namespace else None
        keys = self.items.irange(low, high, inclusive=(low != start_after, False))
        items = self.items
        return (items[key] for key in keys)

    def scan_at(self, revision: int, namespace: str, start_after: str = "") -> Iterator[Record]:
        """As `scan`, but as of a past revision, by undoing newer changes. Raises ApiError Expired."""
        if revision < self.floor:
            raise expired(revision, self.floor)
        undone: dict[str, Record | None] = {}
        for change in reversed(self._changes):
            if change.record.revision <= revision:
                break
            undone[change.record.key] = change.previous
        if not undone:
            return self.scan(namespace, start_after)
        records = [record for record in self.scan(namespace, start_after) if record.key not in undone]
        prefix = f"{namespace}/" if namespace else ""
        for key, record in undone.items():
            if record is not None and key > start_after and key.startswith(prefix):
                bisect.insort(records, record, key=lambda item: item.key)
        return iter(records)

    def since(self, sequence: int) -> list[Change]:
        """Changes from `sequence` on. Raises ApiError Expired when the oldest of them is gone."""
        count = self.end_sequence - sequence
        if count <= 0:
            return []
        if count > len(self._changes):
            raise expired(0, self.floor)
        if count == 1:
            return [self._changes[-1]]
        changes = list(islice(reversed(self._changes), count))
        changes.reverse()
        return changes

    def follow(self, after: int) -> Cursor:
        """A cursor over changes newer than revision `after`. Raises ApiError Expired."""
        if after < self.floor:
            raise expired(after, self.floor)
        sequence = self.end_sequence
        for change in reversed(self._changes):
            if change.record.revision <= after:
                break
            sequence -= 1
        cursor = Cursor(self, sequence)
        self.cursors.add(cursor)
        return cursor

    def load(self, record: Record) -> None:
        """Put an object that was there before the history begins."""
        self.items[record.key] = record

    def apply(self, key: str, event: Event, document: Document | None) -> None:
        """Take over one stored change; watchers see it when they are woken."""
        previous = self.items.get(key)
        if event.type is EventType.DELETE:
            if previous is None:
                return
            del self.items[key]
            change = Change(DELETED, previous.at(event.mod_revision), previous)
        else:
            record = Record.from_stored(key, event.value, event.mod_revision)
            if document is not None:
                record.adopt(document)
            self.items[key] = record
            change = Change(ADDED if previous is None else MODIFIED, record, previous)
        self._changes.append(change)
        self.end_sequence += 1
        if len(self._changes) > CHANGES_MAX:
            # Of several changes at one revision the rest may linger: `floor` keeps anyone from starting among them.
            self.floor = self._changes.popleft().record.revision


class Cache:
    """All resources, fed in revision order."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._resources: dict[tuple[str, str], ResourceCache] = {}
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._hints: dict[str, tuple[bytes, Document]] = {}
        self._observers: dict[tuple[str, str | None], list[Observer]] = {}
        self.revision = 0
        self.significant_revision = 0  # the newest change of anything but heartbeats and reports

    def resource(self, group: str, plural: str) -> ResourceCache:
        """The cache of one resource, made at first use."""
        found = self._resources.get((group, plural))
        if found is None:
            found = self._resources[(group, plural)] = ResourceCache(self)
        return found

    def resources(self) -> Iterator[tuple[str, str, ResourceCache]]:
        """Every resource that was ever used, as group, plural, cache."""
        return ((group, plural, cache) for (group, plural), cache in tuple(self._resources.items()))

    def hint(self, key: str, value: bytes, document: Document) -> None:
        """The decoded form of a value about to be written, to spare its decoding when it comes back."""
        self._hints[key] = (value, document)

    def drop_hint(self, key: str) -> None:
        """The write failed."""
        self._hints.pop(key, None)

    def observe(self, group: str, plural: str | None, observer: Observer) -> None:
        """Call `observer(group, plural, previous, current)` for every change of a resource, or of a whole group.

        It sees a change before any watcher and before the writer is answered; it must be cheap and must not raise.
        """
        self._observers.setdefault((group, plural), []).append(observer)

    async def load(self) -> None:
        """Read the whole store; call once, before `run`."""
        listing = await self._backend.list(ROOT)
        self.revision = listing.revision
        for item in listing.items:
            group, plural, key = split_key(item.key)
            self.resource(group, plural).load(Record.from_stored(key, item.value, item.mod_revision))

    async def run(self) -> None:
        """Follow the store until cancelled or until it closes."""
        watch = await self._backend.watch(ROOT, self.revision)
        try:
            async for batch in watch:
                changed = {self._apply(event): None for event in batch.events}
                self.revision = batch.revision
                await self._tell(changed)
        finally:
            await watch.close()

    async def _tell(self, changed: Iterable[ResourceCache]) -> None:
        """Wake the watchers of what has changed, then those who wait for the revision."""
        told = 0
        for cache in changed:
            for cursor in tuple(cache.cursors):
                if told and told % WATCHERS_PER_TURN == 0:
                    self._release()
                    await asyncio.sleep(0)
                cursor.wake()
                told += 1
        self._release()

    def _apply(self, event: Event) -> ResourceCache:
        group, plural, key = split_key(event.key)
        hint = self._hints.pop(event.key, None) if self._hints else None
        document = hint[1] if hint is not None and hint[0] is event.value else None
        cache = self.resource(group, plural)
        previous = cache.get(key)
        cache.apply(key, event, document)
        if plural not in _INSIGNIFICANT:
            self.significant_revision = event.mod_revision
        observers = (*self._observers.get((group, plural), ()), *self._observers.get((group, None), ()))
        if observers:
            current = cache.get(key)
            before = previous.document if previous is not None else None
            after = current.document if current is not None else None
            for observer in observers:
                observer(group, plural, before, after)
        return cache

    def _release(self) -> None:
        waiters = self._waiters
        for _ in range(len(waiters)):
            revision, waiter = waiters.popleft()
            if revision > self.revision:
                waiters.append((revision, waiter))
            elif not waiter.done():
                waiter.set_result(None)

    async def wait_for(self, revision: int, timeout_s: float = FUTURE_REVISION_WAIT_S) -> None:
        """Return once everything up to `revision` has been applied. Raises ApiError Timeout."""
        if revision <= self.revision:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((revision, waiter))
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            message = f"Too large resource version: {revision}, current: {self.revision}"
            # client-go looks for this cause, and waits before it asks again.
            cause = StatusCause(reason="ResourceVersionTooLarge", message="Too large resource version")
            details = StatusDetails(causes=(cause,), retry_after_seconds=1)
            raise ApiError("Timeout", message, details=details) from None


def full_key(group: str, plural: str, key: str) -> str:
    """The store's key of an object."""
    return f"{ROOT}{group or 'core'}/{plural}/{key}"


def split_key(key: str) -> tuple[str, str, str]:
    """The store's key → group, plural, and the key within the resource."""
    parts = key[len(ROOT) :].split("/", 2)
    if len(parts) != 3:
        raise InvariantError(f"the store holds a key that is no object's: {key!r}")
    group, plural, rest = parts
    return "" if group == "core" else group, plural, rest


def expired(requested: int, floor: int) -> ApiError:
    """410: the client must list again."""
    return ApiError("Expired", f"too old resource version: {requested} ({floor})")
