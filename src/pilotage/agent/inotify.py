"""inotify(7) on one directory: a callback for every file that becomes complete in it, or changes.

Stands apart because it is the only way to learn of exit files without polling, and the standard library has none.
"""

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

_IN_CLOSE_WRITE = 0x8
_IN_MOVED_TO = 0x80
_IN_CLOEXEC = os.O_CLOEXEC
_IN_NONBLOCK = os.O_NONBLOCK
_HEADER = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """Calls `on_file(name)` on the event loop; files that were there before are not reported."""

    def __init__(
        self, directory: Path, on_file: Callable[[str], None], *, mask: int = _IN_CLOSE_WRITE | _IN_MOVED_TO
    ) -> None:
        self._on_file = on_file
        self._fd: int = _libc.inotify_init1(ctypes.c_int(_IN_CLOEXEC | _IN_NONBLOCK))
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if _libc.inotify_add_watch(ctypes.c_int(self._fd), os.fsencode(directory), ctypes.c_uint32(mask)) < 0:
            code = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(code, os.strerror(code), str(directory))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset + _HEADER.size <= len(data):
            _, _, _, length = _HEADER.unpack_from(data, offset)
            start = offset + _HEADER.size
            name = data[start : start + length].rstrip(b"\0").decode(errors="replace")
            offset = start + length
            if name:
                self._on_file(name)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class FileWatch:
    """Waits for a directory's files to grow or be replaced."""

    _IN_MODIFY = 0x2

    def __init__(self, directory: Path) -> None:
        self._changed = asyncio.Event()
        self._watch = DirectoryWatch(directory, lambda _: self._changed.set(), mask=self._IN_MODIFY | _IN_MOVED_TO)

    def clear(self) -> None:
        """Forget changes up to now; to be called before looking at the files."""
        self._changed.clear()

    async def wait(self, *, timeout_s: float) -> None:
        """Until something changed since `clear`, or the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    def close(self) -> None:
        self._watch.close()
