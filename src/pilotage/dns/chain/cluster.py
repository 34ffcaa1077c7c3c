"""The cluster's own names, for questions that reach the chain after another step has changed or claimed them."""

from __future__ import annotations

from pilotage.dns.chain import Handler, Request, Step
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.record import CLASS_IN, Rcode
from pilotage.dns.core.upstream import Reply, answer_records, failure, local_reply
from pilotage.dns.core.zone import Answer
from pilotage.dns.document import Section


class Cluster(Step):
    """Answers from the table. Not kept: only the table knows what would make the answer stale."""

    def __init__(self, environment: Environment) -> None:
        self._table = environment.table

    async def resolve(self, request: Request, following: Handler) -> Reply:
        query = request.query
        answer = self._table.answer(query.name, query.rtype) if query.rclass == CLASS_IN else None
        if answer is None:
            return await following(request)
        if answer.follow is None:
            return local_reply(query, answer, private=True)
        reply = await following(request.about(answer.follow, query.rtype))
        try:
            joined = Answer(rcode=Rcode(reply.rcode), answers=(*answer.answers, *answer_records(reply)))
        except ValueError:
            return failure(query, Rcode.SERVFAIL)
        return local_reply(query, joined, private=True)


def configure(section: Section) -> type[Cluster]:
    """`cluster: {}`"""
    section.end()
    return Cluster
