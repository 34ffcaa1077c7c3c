"""Search completion: the whole search list answered in one round (known as autopath).

A pod's resolver with `ndots:5` asks for `www.example.com.shop.svc.cluster.local.` first, and only after three
NXDOMAINs for `www.example.com.`. The first question names the namespace in its suffix, so the rest of the list is
known without knowing the pod: where it finds nothing, the remaining names are tried here, and the first that exists is
answered behind a CNAME. A question for a name that exists never comes here. When an upstream fails, the first name is
answered alone, as without completion: a cluster's name that does not exist needs no upstream to say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pilotage.dns.chain import Handler, Request, Step
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.name import NAME_BYTES_MAX, Name, from_text, is_within, wire_length
from pilotage.dns.core.record import AAAA, CLASS_IN, CNAME, A, Rcode, name_record
from pilotage.dns.core.table import Table
from pilotage.dns.core.upstream import Reply, answer_records, authority_records, failure, local_reply
from pilotage.dns.core.wire import Query
from pilotage.dns.core.zone import Answer
from pilotage.dns.document import Section


class Search(Step):
    """Completes questions that end in `NAMESPACE.svc.ZONE` and find nothing."""

    def __init__(self, table: Table, domains: tuple[Name, ...]) -> None:
        self._table = table
        self._domains = domains
        """Those of the nodes' own resolv.conf, which pods search last."""

    def split(self, name: Name) -> Name | None:
        """What the client was looking for; None when this is not the first name of a pod's search list."""
        zone = self._table.settings.zone
        rest = name[: len(name) - len(zone) - 2]
        if not rest or not is_within(name, (b"svc", *zone)) or rest[0].startswith(b"_"):
            return None
        namespace = name[len(rest)]
        return rest if self._table.has_namespace(namespace.decode("latin-1")) else None

    def claims(self, query: Query) -> bool:
        if query.rtype not in (A, AAAA) or query.rclass != CLASS_IN or self.split(query.name) is None:
            return False
        answer = self._table.answer(query.name, query.rtype)
        return answer is not None and answer.rcode == Rcode.NXDOMAIN and not answer.answers

    def candidates(self, rest: Name) -> Iterator[Name]:
        """The names after the first, in the order in which the client would ask."""
        zone = self._table.settings.zone
        for suffix in ((b"svc", *zone), zone, *self._domains, ()):
            if wire_length((*rest, *suffix)) <= NAME_BYTES_MAX:
                yield (*rest, *suffix)

    async def resolve(self, request: Request, following: Handler) -> Reply:
        query = request.query
        rest = self.split(query.name) if self.claims(query) else None
        if rest is None:
            return await following(request)
        reply = failure(query, Rcode.NXDOMAIN)
        exists: Reply | None = None
        for candidate in self.candidates(rest):
            reply = await following(request.about(candidate, query.rtype))
            if reply.rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
                return await following(request)  # true of this one name; the client goes on to ask for the others
            if reply.rcode == Rcode.NOERROR:
                if reply.message[6:8] != b"\0\0":
                    return self._join(query, candidate, reply)
                exists = exists or reply
        return self._negative(query, exists or reply)

    def _join(self, query: Query, candidate: Name, reply: Reply) -> Reply:
        ttl = self._table.settings.ttl  # the name in front may get a Service of its own any moment
        try:
            found = answer_records(reply)
        except ValueError:
            return failure(query, Rcode.SERVFAIL)
        alias = name_record(query.name, CNAME, candidate, ttl)
        return local_reply(query, Answer(answers=(alias, *found), authoritative=False)).with_ttls(0, ttl)

    def _negative(self, query: Query, reply: Reply) -> Reply:
        """NODATA if any of the names exists, else NXDOMAIN; with the SOA of whoever said so."""
        try:
            authority = authority_records(reply)
        except ValueError:
            authority = ()
        answer = Answer(rcode=Rcode(reply.rcode), authority=authority, authoritative=False)
        return local_reply(query, answer).with_ttls(0, self._table.settings.ttl)


def configure(section: Section) -> Callable[[Environment], Search]:
    """`search: {domains}`"""
    domains = section.convert_all("domains", from_text)
    section.end()
    return lambda environment: Search(environment.table, domains)
