"""WATCH: changes as a stream of lines, selected and encoded for one watcher.

Stands apart from the cursor below it (which knows no selectors) and HTTP above it (which writes whatever it is given).
A watcher that asks for initial events first gets the present state as ADDED lines and then a bookmark that says so
(KEP-3157); one that allows bookmarks is told how far it has come even when nothing of its resource changes. Encoded
lines are shared between watchers of one view. An object that moves out of a selection is a DELETED line, one that
moves in an ADDED line. Cancelling the consumer ends the watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
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


async def lines(
    cache: Cache, view: View, namespace: str, selection: Selection, options: ListOptions, clock: Clock
) -> tuple[Cursor, AsyncGenerator[bytes, None]]:
    """Open the watch; raises ApiError (Expired, Timeout) before the first byte where that is possible.

    The caller closes the cursor, and ends the stream by `cursor.expire()`.
    """
    resource = view.resource
    objects = cache.resource(*home_of(resource))
    if options.resource_version:
        await cache.wait_for(options.resource_version)
    start = initial_revision(options)
    if start is None or start < 0:
        cursor = objects.follow(cache.revision)
        initial = list(objects.scan(namespace)) if start is None else []
    else:
        cursor = objects.follow(start)
        initial = []
    return cursor, _stream(cache, view, cursor, initial, namespace, selection, options, clock)


async def _stream(
    cache: Cache,
    view: View,
    cursor: Cursor,
    initial: list[Record],
    namespace: str,
    selection: Selection,
    options: ListOptions,
    clock: Clock,
) -> AsyncGenerator[bytes, None]:
    revision = cache.revision
    now = clock.wall()
    chunk: list[bytes] = []
    for record in initial:
        if selection.matches(record):
            chunk.append(view.event(ADDED, record, now))
            if len(chunk) == LINES_PER_WRITE_MAX:
                yield b"".join(chunk)
                chunk = []
    if options.send_initial_events and options.bookmarks:
        chunk.append(view.bookmark(revision, initial_events_end=True))
    if chunk:
        yield b"".join(chunk)
    chunk = []
    while not cursor.expired:
        await cursor.wait()
        try:
            changes = cursor.take()
        except ApiError as error:
            yield error_line(error)
            return
        now = clock.wall()
        for change in changes:
            if type_ := select(change, namespace, selection):
                chunk.append(_encoded(change, type_, view, now))
        if cursor.bookmark_due:
            cursor.bookmark_due = False
            if options.bookmarks:
                chunk.append(view.bookmark(cache.revision))
        if chunk:
            yield b"".join(chunk)
            chunk = []


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
