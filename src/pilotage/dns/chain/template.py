"""Answers computed from the question by a pattern: `ip-10-1-2-3.example` → `10.1.2.3`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pilotage.dns.chain import Handler, Request, Step
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.name import Name, from_text, is_within, to_text
from pilotage.dns.core.record import ANY, CLASS_IN, Rcode, Record, soa_record
from pilotage.dns.core.text import parse_record, parse_type
from pilotage.dns.core.upstream import Reply, failure, local_reply
from pilotage.dns.core.wire import Query
from pilotage.dns.core.zone import Answer
from pilotage.dns.document import Section

_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One pattern and what it answers."""

    zones: tuple[Name, ...]
    types: frozenset[int]
    pattern: re.Pattern[str]
    """Matched against the whole name in lower case, without the final dot."""
    answers: tuple[tuple[str, str], ...]
    """(type, value), where `{1}` or `{group}` stand for groups of the pattern and `{name}` for the question's name."""
    rcode: Rcode
    ttl_s: int


class Template(Step):
    """Questions that the pattern does not match go on."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def _match(self, query: Query) -> re.Match[str] | None:
        options = self._options
        if query.rclass != CLASS_IN or (options.types and query.rtype not in options.types):
            return None
        if not any(is_within(query.name, zone) for zone in options.zones):
            return None
        return options.pattern.fullmatch(to_text(query.name).removesuffix("."))

    def claims(self, query: Query) -> bool:
        return self._match(query) is not None

    async def resolve(self, request: Request, following: Handler) -> Reply:
        query, options = request.query, self._options
        found = self._match(query)
        if found is None:
            return await following(request)
        groups: dict[str, str] = {str(i): text or "" for i, text in enumerate(found.groups(), 1)}
        groups |= {key: text or "" for key, text in found.groupdict().items()}
        groups["name"] = to_text(query.name)
        records: list[Record] = []
        try:
            for rtype, value in options.answers:
                filled = _PLACE.sub(lambda place: groups.get(place[1], place[0]), value)
                record = parse_record(query.name, options.ttl_s, rtype, filled)
                if query.rtype in (record.rtype, ANY):
                    records.append(record)
        except ValueError:
            return failure(query, Rcode.SERVFAIL)  # the pattern let something through that makes no record
        if records:
            return local_reply(query, Answer(rcode=options.rcode, answers=tuple(records)))
        zone = max((zone for zone in options.zones if is_within(query.name, zone)), key=len)
        soa = soa_record(zone, 1, options.ttl_s)
        return local_reply(query, Answer(rcode=options.rcode, authority=(soa,)))


def configure(section: Section) -> Callable[[Environment], Template]:
    """`template: {zones, types, match, answers: [{type, value}], rcode, ttl_s}`"""
    pattern = re.compile(".*")
    try:
        pattern = re.compile(section.text("match", ".*"))
    except re.error as error:
        section.problem(f"match: {error}", "match")
    answers = []
    for part in section.sections("answers"):
        rtype = part.text("type", None)
        try:
            parse_type(rtype)
        except ValueError as error:
            part.problem(f"type: {error}", "type")
        answers.append((rtype, part.text("value", None)))
        part.end()
    rcode = section.text("rcode", "NOERROR", choices=[code.name for code in Rcode if code < 16])
    options = Options(
        zones=section.convert_all("zones", from_text, ((),)),
        types=frozenset(section.convert_all("types", parse_type)),
        pattern=pattern,
        answers=tuple(answers),
        rcode=Rcode[rcode],
        ttl_s=section.integer("ttl_s", 60, most=86_400),
    )
    section.end()
    return lambda _: Template(options)
