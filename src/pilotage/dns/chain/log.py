"""One line per answer: who asked what and heard what, as text or as JSON events.

A tap, because compiled answers must be logged too. Lines are written in blocks by a task, and dropped when the disk is
slower than the clients: a log that holds up names is worse than a gap, which is said.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pilotage.dns.chain import Step
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.bailiwick import read_name
from pilotage.dns.core.name import Name, from_text, is_within, to_text
from pilotage.dns.core.record import TYPE_NAMES, Rcode
from pilotage.dns.core.wire import HEADER_BYTES
from pilotage.dns.document import Section
from pilotage.kit.clock import Clock

FLUSH_S = 0.2
LINES_MAX = 20_000
"""Waiting to be written; further ones are counted only."""
WAITING_MAX = 4_000
"""Questions whose arrival is remembered, to tell how long the answer took."""
CLASSES = ("all", "denial", "error")
_FLAGS = (
    (0x8000, "qr"),
    (0x0400, "aa"),
    (0x0200, "tc"),
    (0x0100, "rd"),
    (0x0080, "ra"),
    (0x0020, "ad"),
    (0x0010, "cd"),
)


class Log(Step):
    """Both a tap and a step: the step's part is the task that writes."""

    def __init__(self, clock: Clock, path: str, *, json: bool, wanted: frozenset[str], names: tuple[Name, ...]) -> None:
        self._clock = clock
        self._path = path
        self._json = json
        self._wanted = wanted
        self._names = names
        self._lines: list[bytes] = []
        self._dropped = 0
        self._arrivals: OrderedDict[tuple[Any, ...], float] = OrderedDict()

    def received(self, client: tuple[Any, ...], data: bytes) -> None:
        if len(self._arrivals) >= WAITING_MAX:
            self._arrivals.popitem(last=False)
        self._arrivals[(client, data[:2])] = self._clock.monotonic()

    def sent(self, client: tuple[Any, ...], reply: bytes, *, transport: str) -> None:
        started = self._arrivals.pop((client, reply[:2]), None)
        rcode = reply[3] & 0xF
        kind = "denial" if rcode == Rcode.NXDOMAIN else "error" if rcode != Rcode.NOERROR else "success"
        if "all" not in self._wanted and kind not in self._wanted:
            return
        if len(self._lines) >= LINES_MAX:
            self._dropped += 1
            return
        try:
            name, end = read_name(reply, HEADER_BYTES)
        except ValueError:
            name, end = (), HEADER_BYTES  # refused before it had a question
        if self._names and not any(is_within(name, zone) for zone in self._names):
            return
        number = int.from_bytes(reply[end : end + 2], "big")
        flags = int.from_bytes(reply[2:4], "big")
        took = self._clock.monotonic() - started if started is not None else 0.0
        event = {
            "time": self._clock.wall().isoformat(timespec="milliseconds"),
            "client": client[0],
            "port": client[1],
            "transport": transport,
            "id": int.from_bytes(reply[:2], "big"),
            "name": to_text(name),
            "type": TYPE_NAMES.get(number, f"TYPE{number}"),
            "rcode": Rcode(rcode).name if rcode <= Rcode.REFUSED else str(rcode),
            "flags": [text for bit, text in _FLAGS if flags & bit],
            "answers": int.from_bytes(reply[6:8], "big"),
            "bytes": len(reply),
            "seconds": round(took, 6),
        }
        self._lines.append(msgspec.json.encode(event) if self._json else _text(event))

    async def run(self) -> None:
        """Write every 0.2 s until cancelled, then once more."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                await asyncio.to_thread(self._write, *self._take())
        finally:
            self._write(*self._take())

    def _take(self) -> tuple[list[bytes], int]:
        taken = self._lines, self._dropped
        self._lines, self._dropped = [], 0
        return taken

    def _write(self, lines: list[bytes], dropped: int) -> None:
        if dropped:
            lines.append(b"# %d lines were dropped" % dropped)
        if not lines:
            return
        block = b"\n".join(lines) + b"\n"
        if self._path in ("", "-"):
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            return
        try:
            with Path(self._path).open("ab") as file:
                file.write(block)
        except OSError:
            self._dropped += len(lines)  # a full disk must not stop names


def _text(event: dict[str, Any]) -> bytes:
    host = f"[{event['client']}]" if ":" in event["client"] else event["client"]
    line = (
        f"{event['time']} {host}:{event['port']} - {event['id']} "
        f'"{event["type"]} IN {event["name"]} {event["transport"]}" '
        f"{event['rcode']} {','.join(event['flags'])} {event['bytes']} {event['seconds']}s"
    )
    return line.encode()


def configure(section: Section) -> Callable[[Environment], Log]:
    """`log: {format, file, classes, names}`"""
    json = section.text("format", "text", choices=("text", "json")) == "json"
    path = section.text("file", "-")
    wanted = section.convert_all("classes", _class, ("all",))
    names = section.convert_all("names", from_text)
    section.end()
    return lambda environment: Log(environment.clock, path, json=json, wanted=frozenset(wanted), names=names)


def _class(text: str) -> str:
    if text not in CLASSES:
        raise ValueError(f"{text!r} is not one of {', '.join(CLASSES)}")
    return text
