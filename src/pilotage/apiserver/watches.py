"""WATCH: changes as a stream of lines, selected and encoded for one watcher.

Stands apart from the cursor below it (which knows no selectors) and HTTP above it (which writes whatever it is given).
A watcher that asks for initial events first gets the present state as ADDED lines and then a bookmark that says so
(KEP-3157); one that allows bookmarks is told how far it has come even when nothing of its resource changes. Encoded
lines are shared between watchers of one view. An object that moves out of a selection is a DELETED line, one that
moves in an ADDED line. Cancelling the consumer ends the watch.
A watcher that keeps up is told of a change in the turn of the event loop in which it becomes known, without its task;
one that does not is served by its task, at the pace of its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from pilotage.api.status import ApiError
from pilotage.apiserver.cache import ADDED, DELETED, MODIFIED, Cache, Change, Cursor
from pilotage.apiserver.core.forms import View
from pilotage.apiserver.core.options import ListOptions
from pilotage.apiserver.core.record import Record
from pilotage.apiserver.core.selection import Selection
from pilotage.apiserver.core.stored_form import home_of
from pilotage.kit.clock import Clock

# Lines joined into one write: bounds the memory of a watcher that starts with tens of thousands of objects.
LINES_PER_WRITE_MAX = 500


def select(change: Change, namespace: str, selection: Selection) -> str:
    """How a change looks to one watcher: ADDED, MODIFIED, DELETED, or "" for not at all."""
    record = change.record
    if namespace and record.namespace != namespace:
        return ""
    if selection.everything:
        return change.type
    before = change.previous is not None and selection.matches(change.previous)
    after = change.type != DELETED and selection.matches(record)
    if before and after:
        return MODIFIED
    if after:
        return ADDED
    return DELETED if before else ""


def initial_revision(options: ListOptions) -> int | None:
    """The revision to start after; None: begin with the present state as ADDED lines."""
    if options.send_initial_events:
        return None
    if options.send_initial_events is False:
        return options.resource_version or -1
    # Neither a version nor "0": "get state and start" (API concepts, "Semantics for watch").
    return options.resource_version or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What one watcher asks for."""

    cache: Cache
    view: View
    namespace: str
    selection: Selection
    options: ListOptions
    clock: Clock


class Stream:
    """One watch, opened. Raises ApiError (Expired, Timeout) before the first byte where that is possible.

    `pieces` is the stream; whoever consumes it closes the cursor, and ends it by `cursor.expire()`.
    """

    def __init__(self, cursor: Cursor, initial: list[Record], *, watched: Watched) -> None:
        self.cursor = cursor
        self._initial = initial
        self._watched = watched

    @classmethod
    async def open(cls, watched: Watched) -> Stream:
        """Find the place to begin at."""
        cache, options = watched.cache, watched.options
        objects = cache.resource(*home_of(watched.view.resource))
        if options.resource_version:
            await cache.wait_for(options.resource_version)
        start = initial_revision(options)
        if start is None or start < 0:
            cursor = objects.follow(cache.revision)
            initial = list(objects.scan(watched.namespace)) if start is None else []
        else:
            cursor = objects.follow(start)
            initial = []
        return cls(cursor, initial, watched=watched)

    def tell_promptly(self, write: Callable[[bytes], bool]) -> None:
        """Hand what is new to `write` in the turn it becomes known, for as long as it returns True.

        Where it returns False nothing has been written, and the stream's consumer gets the same from `pieces`.
        """

        def prompt() -> bool:
            if self.cursor.bookmark_due or self.cursor.expired:
                return False
            try:
                changes = self.cursor.peek()
            except ApiError:
                return False
            data = b"".join(self._lines(changes))
            if data and not write(data):
                return False
            self.cursor.advance(len(changes))
            return True

        self.cursor.prompt = prompt

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The lines, several at a time."""
        cache, view, options, cursor = self._watched.cache, self._watched.view, self._watched.options, self.cursor
        revision = cache.revision
        now = self._watched.clock.wall()
        chunk: list[bytes] = []
        initial, self._initial = self._initial, []
        for record in initial:
            if self._watched.selection.matches(record):
                chunk.append(view.event(ADDED, record, now))
                if len(chunk) == LINES_PER_WRITE_MAX:
                    yield b"".join(chunk)
                    chunk = []
        del initial
        if options.send_initial_events and options.bookmarks:
            chunk.append(view.bookmark(revision, initial_events_end=True))
        if chunk:
            yield b"".join(chunk)
        while not cursor.expired:
            await cursor.wait()
            try:
                changes = cursor.take()
            except ApiError as error:
                yield error_line(error)
                return
            chunk = self._lines(changes)
            if cursor.bookmark_due:
                cursor.bookmark_due = False
                if options.bookmarks:
                    chunk.append(view.bookmark(cache.revision))
            if chunk:
                yield b"".join(chunk)

    def _lines(self, changes: Iterable[Change]) -> list[bytes]:
        watched = self._watched
        now = watched.clock.wall()
        selected = ((change, select(change, watched.namespace, watched.selection)) for change in changes)
        return [_encoded(change, type_, watched.view, now) for change, type_ in selected if type_]


def _encoded(change: Change, type_: str, view: View, now: datetime) -> bytes:
    if type_ == DELETED and change.type != DELETED:
        # It left the selection: watchers get the last state that matched, at the revision of the change.
        previous = change.previous
        assert previous is not None
        return change.encoded(
            (view, type_, "left"), lambda: view.event(type_, previous.at(change.record.revision), now)
        )
    return change.encoded((view, type_), lambda: view.event(type_, change.record, now))


def error_line(error: ApiError) -> bytes:
    """The line that ends a watch that cannot go on."""
    return b'{"type":"ERROR","object":%b}\n' % msgspec.json.encode(error.to_wire())


async def tick_bookmarks(cache: Cache, interval_s: float, quiet_interval_s: float) -> None:
    """Mark bookmarks as due until cancelled.

    Every `interval_s` if anything but leases and events has changed since the last time: consumers of several
    resources prove progress by them. Otherwise every `quiet_interval_s`, as kube-apiserver does.
    """
    loop = asyncio.get_running_loop()
    told, told_at = -1, loop.time()
    while True:
        await asyncio.sleep(interval_s)
        quiet = loop.time() - told_at >= quiet_interval_s
        if cache.significant_revision == told and not quiet:
            continue
        told, told_at = cache.significant_revision, loop.time()
        for _, _, objects in cache.resources():
            for cursor in objects.cursors:
                cursor.bookmark_due = True
                cursor.wake()
