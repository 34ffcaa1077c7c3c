"""Names of DNSRecord objects, with weights and zones."""

from __future__ import annotations

import random
from collections.abc import Callable

from pilotage.dns.chain import Handler, Request, Step
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.custom import is_weighted, pick
from pilotage.dns.core.name import Name, from_text
from pilotage.dns.core.record import ANY, CLASS_IN, CNAME, Rcode, Record, soa_record
from pilotage.dns.core.upstream import Reply, answer_records, failure, local_reply
from pilotage.dns.core.wire import Query
from pilotage.dns.core.zone import Answer
from pilotage.dns.document import Section

NEGATIVE_TTL_S = 5
"""Somebody may add the missing type any moment."""


class Records(Step):
    """Every other name goes on: an object owns a name, not what is around it."""

    def __init__(self, environment: Environment, zones: tuple[Name, ...], zone: str) -> None:
        self._custom = environment.custom
        self._zone = zone
        self._custom.allowed = zones
        self._custom.rejudge()

    def claims(self, query: Query) -> bool:
        return query.name in self._custom and query.rclass == CLASS_IN

    async def resolve(self, request: Request, following: Handler) -> Reply:
        query = request.query
        sets = self._custom.choices(query.name, self._zone) if query.rclass == CLASS_IN else None
        if sets is None:
            return await following(request)
        choices = sets.get(CNAME if CNAME in sets else query.rtype, ())
        if query.rtype == ANY:
            choices = next(iter(sets.values()))
        weighted = is_weighted(choices)
        records = tuple(choice.record for choice in pick(choices, random.random()))  # noqa: S311 - spreads load
        if not records:
            soa = soa_record(query.name, 1, NEGATIVE_TTL_S)
            return local_reply(query, Answer(authority=(soa,)))
        if records[0].rtype == CNAME and query.rtype not in (CNAME, ANY):
            return await self._follow(request, records, following, weighted=weighted)
        return local_reply(query, Answer(answers=records), private=weighted)

    async def _follow(
        self, request: Request, records: tuple[Record, ...], following: Handler, *, weighted: bool
    ) -> Reply:
        target = records[0].data[0]
        assert isinstance(target, tuple)
        reply = await following(request.about(target, request.query.rtype))
        try:
            answer = Answer(rcode=Rcode(reply.rcode), answers=(*records[:1], *answer_records(reply)))
        except ValueError:
            return failure(request.query, Rcode.SERVFAIL)
        return local_reply(request.query, answer, private=weighted or reply.private)


def configure(section: Section) -> Callable[[Environment], Records]:
    """`records: {zones, topology_zone}`"""
    zones = section.convert_all("zones", from_text)
    if not section.texts("zones"):
        section.problem("zones: at least one domain that objects may put names into")
    zone = section.text("topology_zone")
    section.end()
    return lambda environment: Records(environment, zones, zone or environment.topology_zone)
