"""Who may ask for what. The first rule that matches counts; whom no rule matches is served.

A guard, not a link: it must also stand before the compiled answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pilotage.dns.chain import Verdict
from pilotage.dns.chain.clients import KNOWN_MAX, ClientSet, parse_network
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.bailiwick import read_name
from pilotage.dns.core.name import Name, from_text, is_within
from pilotage.dns.core.wire import HEADER_BYTES
from pilotage.dns.document import Section
from pilotage.dns.metrics import GUARDED

ACTIONS = {"allow": Verdict.SERVE, "refuse": Verdict.REFUSE, "drop": Verdict.DROP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line."""

    verdict: Verdict
    clients: ClientSet
    """Empty: everybody."""
    names: tuple[Name, ...]
    """Zones; empty: every name."""


class AccessList:
    """Rules in order."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._of_client: dict[str, tuple[Rule, ...]] = {}
        self._denied = GUARDED.labels("acl")

    def admit(self, client: str, data: bytes) -> Verdict:
        rules = self._of_client.get(client)
        if rules is None:
            if len(self._of_client) >= KNOWN_MAX:
                self._of_client.clear()
            rules = self._of_client[client] = self._select(client)
        if not rules:
            return Verdict.SERVE
        verdict = rules[0].verdict if not rules[0].names else self._by_name(rules, data)
        if verdict is not Verdict.SERVE:
            self._denied.inc()
        return verdict

    def _select(self, client: str) -> tuple[Rule, ...]:
        """The rules about this client, up to the first about every name."""
        found = []
        for rule in self._rules:
            if not rule.clients or client in rule.clients:
                found.append(rule)
                if not rule.names:
                    break
        return tuple(found)

    def _by_name(self, rules: tuple[Rule, ...], data: bytes) -> Verdict:
        try:
            name, _ = read_name(data, HEADER_BYTES)
        except ValueError:
            return Verdict.SERVE  # to be refused as malformed
        for rule in rules:
            if not rule.names or any(is_within(name, zone) for zone in rule.names):
                return rule.verdict
        return Verdict.SERVE


def configure(section: Section) -> Callable[[Environment], AccessList]:
    """`acl: {rules: [{action, clients, names}]}`"""
    rules = []
    for part in section.sections("rules"):
        action = part.text("action", None, choices=ACTIONS)
        clients = ClientSet(part.convert_all("clients", parse_network))
        rules.append(Rule(verdict=ACTIONS[action], clients=clients, names=part.convert_all("names", from_text)))
        part.end()
    section.end()
    return lambda _: AccessList(tuple(rules))
