"""The recent past and those who follow it: a bounded log of events with bounded subscribers.

Apart from the backends because memory and SQLite deliver watches alike. Fed by a backend after a commit, always in
revision order and always on the event loop's thread. It keeps no older past than its window: a watcher that asks for
more is told so and lists again, exactly as after an etcd compaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable

from pilotage.storage.backend import Batch, Event
from pilotage.storage.errors import CompactedError, OverrunError

# A reconnecting API server resumes within seconds; at a heavy 2,000 writes a second this is half a minute.
HISTORY_EVENTS_MAX = 65_536
# Only the API server's own feed watches; more than this behind means it is stuck.
WATCH_EVENTS_MAX = 131_072


class LocalWatch:
    """One subscriber's queue."""

    def __init__(self, history: History, prefix: str) -> None:
        self._history = history
        self._prefix = prefix
        self._pending: deque[Event] = deque()
        self._revision = 0  # seen up to here once _pending is delivered
        self._wakeup = asyncio.Event()
        self._closed = False
        self._overrun = False

    def offer(self, revision: int, events: Iterable[Event]) -> None:
        """Queue what matches; called by the history."""
        if self._overrun:
            return
        prefix = self._prefix
        self._pending.extend(event for event in events if event.key.startswith(prefix))
        self._revision = revision
        self._wakeup.set()
        if len(self._pending) > WATCH_EVENTS_MAX:
            self.cut_off()

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Batch]:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            if self._overrun:
                raise OverrunError(f"watch of {self._prefix!r} was cut off: it or its source fell too far behind")
            events = tuple(self._pending)
            self._pending.clear()
            if events or not self._closed:
                yield Batch(revision=self._revision, events=events)
            if self._closed:
                return

    def cut_off(self) -> None:
        """Let iteration raise."""
        self._overrun = True
        self._pending.clear()
        self._wakeup.set()

    def end(self) -> None:
        """Let iteration finish after what is queued."""
        self._closed = True
        self._wakeup.set()

    async def close(self) -> None:
        self._history.forget(self)
        self.end()


class History:
    """The log. `compacted_revision <= revision`; every event kept is newer than the former."""

    def __init__(self, revision: int, *, events_max: int = HISTORY_EVENTS_MAX) -> None:
        self.revision = revision
        self.compacted_revision = revision
        self._events_max = events_max
        self._events: deque[Event] = deque()
        self._watches: set[LocalWatch] = set()

    def publish(self, revision: int, events: Iterable[Event]) -> None:
        """Append one or more committed transactions, the newest at `revision`, and offer them to every watch."""
        events = tuple(events)
        self.revision = revision
        self._events.extend(events)
        while len(self._events) > self._events_max:
            self._drop_oldest()
        for watch in self._watches:
            watch.offer(revision, events)

    def _drop_oldest(self) -> None:
        # A transaction leaves as a whole: a watch that starts after its revision has missed nothing.
        revision = self._events[0].mod_revision
        while self._events and self._events[0].mod_revision == revision:
            self._events.popleft()
        self.compacted_revision = revision

    def watch(self, prefix: str, after: int) -> LocalWatch:
        """Subscribe, replaying what is kept after `after`."""
        if after < self.compacted_revision:
            raise CompactedError(after, self.compacted_revision)
        watch = LocalWatch(self, prefix)
        if after < self.revision:
            watch.offer(self.revision, (event for event in self._events if event.mod_revision > after))
        self._watches.add(watch)
        return watch

    def forget(self, watch: LocalWatch) -> None:
        """Unsubscribe."""
        self._watches.discard(watch)

    def compact(self, revision: int) -> None:
        """Drop events up to and including `revision`."""
        revision = min(revision, self.revision)
        while self._events and self._events[0].mod_revision <= revision:
            self._events.popleft()
        self.compacted_revision = max(self.compacted_revision, revision)

    def cut_off(self) -> None:
        """End every watch with an OverrunError: what came next is not known."""
        for watch in self._watches:
            watch.cut_off()

    def close(self) -> None:
        """End every watch."""
        for watch in self._watches:
            watch.end()
        self._watches.clear()
