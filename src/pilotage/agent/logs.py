"""Reading container logs from disk: tail, since, follow.

Stands apart from the server so that following is tested with files alone. `core.log_format` knows the lines; here
files are read in bounded pieces. Following waits for the file by inotify, goes on across rotations, and ends when the
container has ended. As with kubectl everywhere, what is there already is read from the latest file only.
"""

import contextlib
import gzip
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pilotage.agent.core import log_format
from pilotage.agent.core.log_format import LogLine
from pilotage.agent.inotify import FileWatch
from pilotage.agent.log_rotation import put_aside

CHUNK_BYTES = 64 * 1024
# Reading stops being a tail when this much was looked at from the end; a longer tail reads the whole file.
TAIL_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What of a log is wanted."""

    follow: bool = False
    tail_lines: int | None = None  # None: all
    since: float | None = None  # seconds since the epoch
    timestamps: bool = False
    limit_bytes: int | None = None


async def read_log(path: Path, options: LogOptions, *, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Pieces of text. With `follow`, until `ended()` is true and everything was read, or the caller stops."""
    remaining = options.limit_bytes
    async for piece in _pieces(path, options, ended):
        if remaining is not None:
            piece = piece[:remaining]
            remaining -= len(piece)
        if piece:
            yield piece
        if remaining == 0:
            return


async def _pieces(path: Path, options: LogOptions, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    renderer = log_format.Renderer(with_time=options.timestamps)
    watch = FileWatch(path.parent) if options.follow else None
    file, known = _open_latest(path)
    try:
        rest = b""
        first, rest = _first_part(file, options)
        yield b"".join(renderer.render(line) for line in first)
        while watch is not None:
            last_look = ended()
            watch.clear()
            # Before the reading: what its writer still wrote into a file that was put aside is read in the next round.
            was_replaced = _was_replaced(file, path)
            raw = file.read(CHUNK_BYTES)
            if raw:
                *lines, rest = (rest + raw).split(b"\n")
                yield b"".join(renderer.render(line) for line in _parsed(lines))
                continue
            if was_replaced:
                file.close()
                between = _put_aside_since(path, known)
                file, known = _open_latest(path)
                rest = b""
                for name in between:
                    for lines in _whole(name):
                        yield b"".join(renderer.render(line) for line in _parsed(lines))
                continue
            if last_look:
                return
            await watch.wait(timeout_s=1.0)
    finally:
        file.close()
        if watch is not None:
            watch.close()


def _open_latest(path: Path) -> tuple[BinaryIO, set[str]]:
    """The log, and what had been put aside of it when it was opened."""
    while True:
        before = {_stem(one) for one in put_aside(path)}
        file = _open(path)
        if before == {_stem(one) for one in put_aside(path)}:
            return file, before
        file.close()  # put aside just now


def _put_aside_since(path: Path, known: set[str]) -> list[Path]:
    """Files between the one that was being read, which is the first that was put aside, and the current one."""
    return [one for one in put_aside(path) if _stem(one) not in known][1:]


def _whole(path: Path) -> Iterator[list[bytes]]:
    """The lines of a file that was put aside, in pieces; nothing if it was dropped meanwhile."""
    for name in (path, path.with_name(f"{_stem(path)}.gz")):
        with contextlib.suppress(FileNotFoundError):
            with gzip.open(name) if name.suffix == ".gz" else open(name, "rb") as file:
                rest = b""
                while raw := file.read(CHUNK_BYTES):
                    *lines, rest = (rest + raw).split(b"\n")
                    yield lines
            return


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz")


def _first_part(file: BinaryIO, options: LogOptions) -> tuple[list[LogLine], bytes]:
    """What is there already: the selected lines, and an unfinished last line."""
    if options.tail_lines is not None:
        _seek_for_tail(file, options.tail_lines)
    *raw, rest = file.read().split(b"\n")
    lines: Iterator[LogLine] = iter(_parsed(raw))
    if options.since is not None:
        since = options.since
        lines = (line for line in lines if log_format.is_since(line, since))
    if options.tail_lines is not None:
        lines = log_format.tail(lines, options.tail_lines)
    return list(lines), rest


def _seek_for_tail(file: BinaryIO, count: int) -> None:
    """Go to the start of a line that surely lies before the last `count` whole lines."""
    size = file.seek(0, os.SEEK_END)
    position, found = size, 0
    while position > 0 and size - position < TAIL_BYTES_MAX:
        start = max(position - CHUNK_BYTES, 0)
        file.seek(start)
        # Only full lines count: partial entries belong to the line that follows them.
        found += file.read(position - start).count(b" F ")
        position = start
        if found > count:
            break
    file.seek(position)
    if position > 0:
        file.readline()


def _parsed(raw: list[bytes]) -> list[LogLine]:
    return [line for line in (log_format.parse(one) for one in raw) if line is not None]


def _open(path: Path) -> BinaryIO:
    return open(path, "rb")


def _was_replaced(file: BinaryIO, path: Path) -> bool:
    try:
        return os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
