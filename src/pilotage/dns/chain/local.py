"""Zones that are written in the configuration or in a zone file, answered with authority."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pilotage.dns.chain import Handler, Request, Step
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.local import LocalZone
from pilotage.dns.core.name import from_text, is_within
from pilotage.dns.core.record import CLASS_IN, Rcode
from pilotage.dns.core.text import parse_line, parse_zone
from pilotage.dns.core.upstream import Reply, answer_records, failure, local_reply
from pilotage.dns.core.wire import Query
from pilotage.dns.core.zone import Answer
from pilotage.dns.document import Section


class Local(Step):
    """One zone."""

    def __init__(self, zone: LocalZone, *, fallthrough: bool) -> None:
        self._zone = zone
        self._fallthrough = fallthrough

    def claims(self, query: Query) -> bool:
        if not is_within(query.name, self._zone.origin):
            return False
        return not self._fallthrough or self._zone.answer(query.name, query.rtype).rcode != Rcode.NXDOMAIN

    async def resolve(self, request: Request, following: Handler) -> Reply:
        query = request.query
        if query.rclass != CLASS_IN or not is_within(query.name, self._zone.origin):
            return await following(request)
        answer = self._zone.answer(query.name, query.rtype)
        if answer.rcode == Rcode.NXDOMAIN and self._fallthrough:
            return await following(request)
        if answer.follow is None:
            return local_reply(query, answer)
        reply = await following(request.about(answer.follow, query.rtype))
        try:
            joined = Answer(rcode=Rcode(reply.rcode), answers=(*answer.answers, *answer_records(reply)))
        except ValueError:
            return failure(query, Rcode.SERVFAIL)
        return local_reply(query, joined, private=reply.private)


def configure(section: Section) -> Callable[[Environment], Local]:
    """`local: {zone, records: ["www 60 A 192.0.2.1"], file, fallthrough}`"""
    origin = section.convert("zone", from_text)
    records = list(section.convert_all("records", lambda line: parse_line(line, origin or ())))
    path = section.text("file")
    if path:
        try:
            records += parse_zone(Path(path).read_text(encoding="utf-8"), origin or ())
        except (OSError, ValueError) as error:
            section.problem(f"file: {path}: {error}", "file")
    fallthrough = section.flag("fallthrough")
    section.end()
    zone = LocalZone((), ())
    try:
        zone = LocalZone(origin or (), records)
    except ValueError as error:
        section.problem(str(error))
    return lambda _: Local(zone, fallthrough=fallthrough)
