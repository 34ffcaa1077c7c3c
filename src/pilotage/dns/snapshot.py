"""The last good view of the cluster in a file, for a start while the API is away.

Written beside the old one and renamed, with a checksum: a view is used whole or not at all. Encoding is spread over the
event loop's turns, since a hundred thousand endpoints take longer than a client should wait.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pilotage.api.codec import decode, encode
from pilotage.api.core_v1 import Namespace, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.telemetry import get_logger

FORMAT = 1
BATCH = 200
"""Objects encoded per turn, a few milliseconds."""
FILE_BYTES_MAX = 512 << 20
_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The objects that names are made of."""

    services: tuple[Service, ...] = ()
    slices: tuple[EndpointSlice, ...] = ()
    namespaces: tuple[Namespace, ...] = ()


class _Header(msgspec.Struct):
    format: int
    sha256: str
    counts: tuple[int, int, int]
    written: str


class SnapshotFile:
    """One file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    async def write(self, view: View, *, written: str) -> None:
        """Replace the file. Raises `OSError`."""
        lines: list[bytes] = []
        for objects in (view.services, view.slices, view.namespaces):
            await _encode(objects, lines)
        counts = (len(view.services), len(view.slices), len(view.namespaces))
        await asyncio.to_thread(self._write, lines, counts, written)

    def _write(self, lines: list[bytes], counts: tuple[int, int, int], written: str) -> None:
        body = b"\n".join(lines)
        header = _Header(format=FORMAT, sha256=hashlib.sha256(body).hexdigest(), counts=counts, written=written)
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            with beside.open("wb") as file:
                file.write(msgspec.json.encode(header) + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)

    def read(self) -> View | None:
        """The view; None when there is no file, or it is not what was written."""
        try:
            if self.path.stat().st_size > FILE_BYTES_MAX:
                raise ValueError("too large")
            head, _, body = self.path.read_bytes().partition(b"\n")
            header = msgspec.json.decode(head, type=_Header)
            if header.format != FORMAT or hashlib.sha256(body).hexdigest() != header.sha256:
                raise ValueError("the checksum does not fit")
            lines = body.split(b"\n") if body else []
            first, second, _ = header.counts
            return View(
                services=tuple(decode(Service, line) for line in lines[:first]),
                slices=tuple(decode(EndpointSlice, line) for line in lines[first : first + second]),
                namespaces=tuple(decode(Namespace, line) for line in lines[first + second :]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            _log.warning("snapshot is not used", path=str(self.path), error=str(error)[:300])
            return None


async def _encode(objects: Iterable[Service | EndpointSlice | Namespace], lines: list[bytes]) -> None:
    for index, item in enumerate(objects):
        lines.append(encode(item))
        if index % BATCH == BATCH - 1:
            await asyncio.sleep(0)
