"""Names and addresses as in hosts(5), from a file that is read again when it changes, and from the configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pilotage.dns.chain import Handler, Request, Step
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.name import Name, from_text, pack_address, reverse_name
from pilotage.dns.core.record import AAAA, CLASS_IN, PTR, A, Record, address_record, name_record
from pilotage.dns.core.upstream import Reply, local_reply
from pilotage.dns.core.wire import Query
from pilotage.dns.core.zone import Answer
from pilotage.dns.document import Section
from pilotage.telemetry import get_logger

RECHECK_S = 2.0
FILE_BYTES_MAX = 16 << 20
_log = get_logger()


@dataclass(slots=True)
class HostTable:
    """Owner name → records."""

    records: dict[Name, list[Record]] = field(default_factory=dict)

    def add_line(self, line: str, ttl: int) -> None:
        """`ADDRESS NAME…`, comments allowed. Raises `ValueError`."""
        words = line.partition("#")[0].split()
        if not words:
            return
        address = pack_address(words[0].partition("%")[0])
        if address is None or len(words) < 2:
            raise ValueError(f"{line.strip()[:80]!r} is not ADDRESS NAME")
        names = [from_text(word) for word in words[1:]]
        for name in names:
            self._add(address_record(name, address, ttl))
        self._add(name_record(reverse_name(address), PTR, names[0], ttl))

    def _add(self, record: Record) -> None:
        known = self.records.setdefault(record.owner, [])
        if record not in known:
            known.append(record)


def parse_hosts(lines: Iterable[str], ttl: int) -> HostTable:
    """Like the C library, which skips what it cannot read."""
    table = HostTable()
    for line in lines:
        try:
            table.add_line(line, ttl)
        except ValueError:
            continue
    return table


class Hosts(Step):
    """Addresses and PTR of the names it knows; every other question goes on."""

    def __init__(self, written: HostTable, path: Path | None, ttl: int, environment: Environment) -> None:
        self._written = written
        self._path = path
        self._ttl = ttl
        self._environment = environment
        self._file = HostTable()
        self._stamp: tuple[int, int, int] | None = None
        self.read()

    def read(self) -> bool:
        """Read the file if it changed; whether it did."""
        if self._path is None:
            return False
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp or status.st_size > FILE_BYTES_MAX:
                return False
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            if self._stamp is not None:
                _log.warning("hosts file is unreadable, what it said is kept", path=str(self._path), error=str(error))
            self._stamp = None
            return False
        self._stamp = stamp
        self._file = parse_hosts(lines, self._ttl)
        return True

    async def run(self) -> None:
        while self._path is not None:
            await asyncio.sleep(RECHECK_S)
            if self.read():
                table = self._environment.table
                table.forget_answers(recursion=table.recursion)

    def _find(self, name: Name) -> list[Record]:
        return [*self._written.records.get(name, ()), *self._file.records.get(name, ())]

    def claims(self, query: Query) -> bool:
        return bool(self._find(query.name))

    async def resolve(self, request: Request, following: Handler) -> Reply:
        query = request.query
        records = self._find(query.name) if query.rclass == CLASS_IN and query.rtype in (A, AAAA, PTR) else []
        if not records:
            return await following(request)
        found = tuple(record for record in records if record.rtype == query.rtype)
        return local_reply(query, Answer(answers=found))


def configure(section: Section) -> Callable[[Environment], Hosts]:
    """`hosts: {file, entries: ["192.0.2.1 name"], ttl_s}`"""
    path, ttl = section.text("file"), section.integer("ttl_s", 30, most=86_400)
    table = HostTable()

    def add(line: str) -> None:
        table.add_line(line, ttl)

    section.convert_all("entries", add)
    if path and not Path(path).is_file():
        section.problem(f"file: {path} is no file", "file")
    section.end()
    return lambda environment: Hosts(table, Path(path) if path else None, ttl, environment)
