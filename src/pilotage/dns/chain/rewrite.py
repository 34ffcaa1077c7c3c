"""Asking for another name than the client did, and answering as if it had been that one.

The first rule that matches counts. Owner names in the answer are turned back, so that resolvers accept it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from pilotage.dns.chain import Handler, Request, Step
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.name import Name, from_text, is_within, to_text
from pilotage.dns.core.record import CLASS_IN, Rcode
from pilotage.dns.core.upstream import Reply, answer_records, authority_records, failure, local_reply
from pilotage.dns.core.wire import Query
from pilotage.dns.core.zone import Answer
from pilotage.dns.document import Section

MATCHES = ("exact", "suffix", "prefix", "substring", "regex")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rewriting."""

    match: str
    name: str
    """What is looked for, lower case, without the final dot; a pattern for "regex"."""
    to: str
    """What takes its place; groups of a pattern as `\\1` or `{1}`."""
    ttl_s: int | None = None
    """TTL of the answer; None: as it came."""

    def apply(self, name: Name) -> Name | None:
        """The other name; None when the rule does not match, or makes no name."""
        text = to_text(name).removesuffix(".")
        match self.match:
            case "exact":
                other = self.to if text == self.name else None
            case "suffix":
                matched = is_within(name, from_text(self.name))
                other = text[: len(text) - len(self.name)] + self.to if matched else None
            case "prefix":
                other = self.to + text[len(self.name) :] if text.startswith(self.name) else None
            case "substring":
                other = text.replace(self.name, self.to) if self.name in text else None
            case _:
                found = re.fullmatch(self.name, text)
                other = found.expand(re.sub(r"\{(\d+)\}", r"\\\1", self.to)) if found else None
        try:
            return from_text(other) if other else None
        except ValueError:
            return None


class Rewrite(Step):
    """Rules in order."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules

    def _find(self, name: Name) -> tuple[Rule, Name] | None:
        return next(((rule, other) for rule in self._rules if (other := rule.apply(name)) is not None), None)

    def claims(self, query: Query) -> bool:
        return query.rclass == CLASS_IN and self._find(query.name) is not None

    async def resolve(self, request: Request, following: Handler) -> Reply:
        query = request.query
        found = self._find(query.name) if query.rclass == CLASS_IN else None
        if found is None:
            return await following(request)
        rule, other = found
        reply = await following(request.about(other, query.rtype))
        try:
            answers, authority = answer_records(reply), authority_records(reply)
            rcode = Rcode(reply.rcode)
        except ValueError:
            return failure(query, Rcode.SERVFAIL)
        if rule.ttl_s is not None:
            answers = tuple(record._replace(ttl=rule.ttl_s) for record in answers)
        renamed = tuple(r._replace(owner=query.name) if r.owner == other else r for r in answers)
        answer = Answer(rcode=rcode, answers=renamed, authority=authority, authoritative=reply.authoritative)
        made = local_reply(query, answer, private=reply.private)
        return replace(made, lifetime_s=0) if not reply.lifetime_s else made


def configure(section: Section) -> Callable[[Environment], Rewrite]:
    """`rewrite: {rules: [{match, name, to, ttl_s}]}`"""
    rules = []
    for part in section.sections("rules"):
        match = part.text("match", "exact", choices=MATCHES)
        name, to = part.text("name", None), part.text("to", None)
        ttl = part.integer("ttl_s", -1, least=-1, most=86_400)
        try:
            if match == "regex":
                re.compile(name)
            else:
                name, to = name.lower().removesuffix("."), to.lower().removesuffix(".")
                if match == "suffix":
                    name = name.removeprefix(".")
                    to = to.removeprefix(".")
                if match in ("exact", "suffix"):
                    from_text(name)
        except (ValueError, re.error) as error:
            part.problem(f"name: {error}", "name")
            match = "exact"
        part.end()
        rules.append(Rule(match=match, name=name, to=to, ttl_s=ttl if ttl >= 0 else None))
    section.end()
    if not rules:
        section.problem("rules: at least one")
    return lambda _: Rewrite(tuple(rules))
