"""One packet in, one packet out, whatever the transport: the table first, then the chain.

Apart from the listeners so that UDP, TCP and tests share it. `now` answers what needs nobody else, at once; `later`
asks upstreams. Leaves out sockets, and the limits of how many may wait, which are the listeners'.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pilotage.dns.chain import Chain, Request
from pilotage.dns.core.record import Rcode
from pilotage.dns.core.table import Table
from pilotage.dns.core.upstream import answer_records, render
from pilotage.dns.core.wire import (
    STREAM_BYTES_MAX,
    Malformed,
    Query,
    compile_answer,
    fast_key,
    is_fast,
    parse_query,
    rcode_reply,
)
from pilotage.dns.core.zone import Answer
from pilotage.dns.metrics import RESPONSES

EXTERNAL = "."
"""Scope of upstreams' answers in the table's fast dict. No namespace is called so."""
EXTERNAL_KEPT_S = 1.0
"""TTLs count in whole seconds: for one second an upstream's answer may be repeated byte by byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A question for the upstreams."""

    data: bytes
    query: Query
    partial: Answer | None
    """The CNAMEs found so far; None when the whole question is the upstreams'."""
    client: str = ""
    """The asker's address."""


class Resolver:
    """Answers packets."""

    def __init__(self, table: Table, chain: Chain) -> None:
        self.table = table
        self.chain = chain
        table.recursion = chain.recursive
        self._flush: asyncio.TimerHandle | None = None
        self._changes = 0

    def exchange(self, chain: Chain) -> None:
        """Serve by another configuration from the next packet on; questions under way end by the old one."""
        self.chain = chain
        self.table.forget_answers(recursion=chain.recursive)

    def cluster_changed(self) -> None:
        """An object changed: answers of the chain that depend on the cluster are not to be repeated."""
        self._changes += 1
        if self._flush is not None and self.chain.depends_on_cluster:
            self.table.drop(EXTERNAL)

    def now(self, data: bytes, *, stream: bool = False, client: str = "") -> bytes | Pending | None:
        """The reply; a `Pending` for `later`; None for what deserves no answer."""
        try:
            query = parse_query(data)
        except Malformed as error:
            return error.reply
        if self.chain.claiming and not query.edns_version and self.chain.claims(query):
            return Pending(data=data, query=query, partial=None, client=client)
        result = self.table.respond(data, query, stream=stream)
        if isinstance(result, bytes):
            return result
        return Pending(data=data, query=query, partial=result, client=client)

    async def later(self, pending: Pending, *, stream: bool = False) -> bytes:
        """The reply, with the upstreams' help. Never raises for what they do."""
        query = pending.query
        bytes_max = STREAM_BYTES_MAX if stream else query.answer_bytes_max
        if pending.partial is not None:
            return await self._follow(pending, pending.partial, bytes_max)
        changes, chain = self._changes, self.chain
        reply = await chain.handler(Request(query=query, client=pending.client))
        RESPONSES.labels(str(reply.rcode)).inc()
        rendered = render(reply, query, bytes_max=bytes_max)
        if chain is not self.chain or (chain.depends_on_cluster and changes != self._changes):
            return rendered  # true when asked for, perhaps not any more
        if not stream and reply.repeatable_s > EXTERNAL_KEPT_S and is_fast(pending.data, query):
            self._keep(fast_key(pending.data), rendered[2:])
        return rendered

    def refuse(self, pending: Pending) -> bytes:
        """What to say when too many already wait."""
        return rcode_reply(pending.query, Rcode.SERVFAIL, recursion=True)

    async def _follow(self, pending: Pending, partial: Answer, bytes_max: int) -> bytes:
        """An ExternalName: our CNAMEs, then whatever the upstreams say about the last target."""
        assert partial.follow is not None
        query = pending.query
        reply = await self.chain.handler(Request(query=query, client=pending.client).about(partial.follow, query.rtype))
        RESPONSES.labels(str(reply.rcode)).inc()
        try:
            # RFC 6604: the response code is that of the last name.
            rcode, records = Rcode(reply.rcode), answer_records(reply)
        except ValueError:
            rcode, records = Rcode.SERVFAIL, ()
        answer = Answer(rcode=rcode, answers=(*partial.answers, *records), authoritative=False)
        compiled = compile_answer(query, answer, bytes_max=bytes_max, recursion=True)
        return query.id.to_bytes(2, "big") + (compiled if isinstance(compiled, bytes) else compiled())

    def _keep(self, key: bytes, reply: bytes) -> None:
        """Let the fast path repeat an upstream's answer until its TTLs would be wrong by a second."""
        self.table.keep(key, reply, EXTERNAL)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(EXTERNAL_KEPT_S, self._drop_external)

    def _drop_external(self) -> None:
        self._flush = None
        self.table.drop(EXTERNAL)

    def close(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._drop_external()
