"""Sends one packet through a rule set in memory and says what became of it.

Stands apart so that tests assert meaning (this packet arrives there) instead of text, and so that `observe` can explain
a path. It carries out the very values that are rendered for the kernel. One call is the first packet of a connection:
connection tracking is reduced to that packet's original destination and whether it was translated. Leaves out
fragments, expiry, counters and reply packets; chance is an argument.

Specification: the packet flow in netfilter (nft(8) "ADDRESS FAMILIES", hooks and their order).
"""

import ipaddress
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import assert_never

from pilotage.nft.core.expressions import (
    Concat,
    CtState,
    Dnat,
    Field,
    HasPort,
    InNetworks,
    InSet,
    IsDnatted,
    IsLocal,
    IsProtocol,
    Lookup,
    Masquerade,
    Numgen,
    OutInterface,
    Reject,
    Rule,
    SetPriority,
    Statement,
    Update,
    Verdict,
    VerdictMap,
)
from pilotage.nft.core.objects import Chain, ElementValue, Set, Table
from pilotage.nft.core.ruleset import Ruleset, TableContent
from pilotage.nft.core.types import PROTOCOL, Layout

_STEPS_MAX = 1000  # far above any real path: a loop in a broken rule set ends here


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a connection."""

    source: str
    destination: str
    protocol: str = "tcp"
    source_port: int = 40000
    destination_port: int = 0
    state: str = "new"  # as `ct state` sees it
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a packet."""

    verdict: str  # accept, drop or reject
    packet: Packet  # as it leaves; the source is "masquerade" once masqueraded
    steps: tuple[str, ...]  # chain and statement, in the order carried out

    @property
    def destination(self) -> str:
        """`address:port` the packet goes to."""
        return f"{self.packet.destination}:{self.packet.destination_port}"

    @property
    def masqueraded(self) -> bool:
        return self.packet.source == "masquerade"


MASQUERADED = "masquerade"


def trace(
    ruleset: Ruleset,
    packet: Packet,
    *,
    local: Collection[str] = (),
    from_host: bool = False,
    out_interface: str = "eth0",
    roll: Callable[[int], int] = lambda mod: 0,
) -> Outcome:
    """Send `packet` in through prerouting (or output, when `from_host`) and out through postrouting.

    `local`: addresses of the host; a packet for one of them that did not come from the host goes out through input.
    `roll(mod)` answers `numgen random mod`. Dynamic elements that rules write stay in `ruleset`.
    """
    walk = _Walk(ruleset, packet, frozenset(local), out_interface, roll)
    verdict = walk.hook("output" if from_host else "prerouting")
    delivered_here = walk.packet.destination in local and not from_host
    if verdict == "accept":
        verdict = walk.hook("input" if delivered_here else "postrouting")
    return Outcome(verdict=verdict, packet=walk.packet, steps=tuple(walk.steps))


class _Break(Exception):
    """The rule at hand ends; the next one follows."""


class _Walk:
    """One packet on its way; mutable because a packet's way is."""

    def __init__(
        self, ruleset: Ruleset, packet: Packet, local: frozenset[str], out: str, roll: Callable[[int], int]
    ) -> None:
        self.ruleset, self.packet, self.local, self.out, self.roll = ruleset, packet, local, out, roll
        self.original, self.dnatted = packet, False
        self.family = "ip6" if ":" in packet.destination else "ip"
        self.steps: list[str] = []

    def hook(self, hook: str) -> str:
        bases = [
            (chain.hook.priority, table.name, chain.name, table, chain)
            for table, content in self.ruleset.tables.items()
            if table.family in (self.family, "inet")
            for chain in content.chains.values()
            if chain.hook is not None and chain.hook.hook == hook
        ]
        for *_, table, chain in sorted(bases, key=lambda base: base[:3]):
            if chain.hook is not None and chain.hook.type == "nat" and self.packet.state != "new":
                continue  # nat chains see a connection's first packet only
            verdict = self.chain(table, self.ruleset.tables[table], chain)
            if verdict in ("drop", "reject"):
                return verdict
        return "accept"

    def chain(self, table: Table, content: TableContent, chain: Chain) -> str:
        """The final verdict of the chain, or "continue" when it runs out or returns."""
        for rule in chain.rules:
            verdict = self.rule(table, content, chain, rule)
            if verdict == "return":
                return "continue"
            if verdict != "continue":
                return verdict
        return "continue"

    def rule(self, table: Table, content: TableContent, chain: Chain, rule: Rule) -> str:
        for statement in rule.statements:
            try:
                verdict = self.statement(content, statement)
            except _Break:
                return "continue"
            self.steps.append(f"{chain.name}: {statement.text()}")
            if len(self.steps) > _STEPS_MAX:
                raise RecursionError("the rule set does not end")
            if isinstance(verdict, str):
                return verdict
            if verdict is None:
                continue
            if not verdict.chain:
                return verdict.kind
            result = self.chain(table, content, content.chains[verdict.chain])
            if result != "continue":
                return result
            # After `goto` the caller's caller goes on, which here is the base chain's end or the jump before it.
            return "return" if verdict.kind == "goto" else "continue"
        return "continue"

    def statement(self, content: TableContent, statement: Statement) -> Verdict | str | None:
        """None: go on with the rule. A string: the packet's fate. A verdict: follow it."""
        match statement:
            case InSet(key, name, negated):
                found = _find(content.sets[name], content.elements[name], self.key(key))
                _require((found is not _MISSING) != negated)
            case InNetworks(field, networks, negated):
                address = ipaddress.ip_address(str(self.field(field)))
                _require(any(address in ipaddress.ip_network(network) for network in networks) != negated)
            case IsProtocol(protocol):
                _require(self.packet.protocol == protocol)
            case HasPort(protocol):
                _require(self.packet.protocol == protocol and self.packet.destination_port != 0)
            case IsLocal(side, negated):
                address_text = self.packet.source if side == "saddr" else self.packet.destination
                _require((address_text in self.local) != negated)
            case CtState(state, negated):
                _require((self.packet.state == state) != negated)
            case IsDnatted():
                _require(self.dnatted)
            case OutInterface(name):
                _require(self.out == name)
            case VerdictMap(key, name):
                verdict = self.lookup(content, Lookup(key, name))
                assert isinstance(verdict, Verdict)
                return verdict
            case SetPriority(value):
                self.packet = replace(self.packet, priority=self.number(content, value))
            case Dnat():
                self.dnat(content, statement)
                return "accept"
            case Masquerade():
                self.packet = replace(self.packet, source=MASQUERADED)
                return "accept"
            case Reject():
                return "reject"
            case Update(name, key, value, _):
                content.elements[name][self.key(key)] = self.key(value)
            case Verdict():
                return statement
            case _:
                assert_never(statement)
        return None

    def number(self, content: TableContent, value: Lookup | Numgen | int) -> int:
        match value:
            case Lookup():
                return int.from_bytes(self.data(content, value), "little")
            case Numgen(mod, offset):
                return offset + self.roll(mod)
            case int():
                return value
            case _:
                assert_never(value)

    def dnat(self, content: TableContent, statement: Dnat) -> None:
        target = content.sets[statement.target.map]
        assert isinstance(target.value, Layout)
        address, port = target.value.decode(self.data(content, statement.target))
        self.packet = replace(self.packet, destination=address, destination_port=int(port))
        self.dnatted = True

    def lookup(self, content: TableContent, lookup: Lookup) -> ElementValue:
        found = _find(content.sets[lookup.map], content.elements[lookup.map], self.key(lookup.key))
        if isinstance(found, _Missing):
            raise _Break
        return found

    def data(self, content: TableContent, lookup: Lookup) -> bytes:
        found = self.lookup(content, lookup)
        assert isinstance(found, bytes)
        return found

    def key(self, key: Concat) -> bytes:
        return b"".join(part.type.encode(self.field(part)) for part in key.parts)

    def field(self, field: Field) -> str | int:
        packet, original = self.packet, self.original
        match field.name:
            case "ip saddr" | "ip6 saddr":
                return packet.source
            case "ip daddr" | "ip6 daddr":
                return packet.destination
            case "th dport":
                if packet.protocol not in ("tcp", "udp", "sctp"):
                    raise _Break
                return packet.destination_port
            case "meta priority":
                return packet.priority
            case "ct original proto-dst":
                return original.destination_port
            case "ct original ip daddr" | "ct original ip6 daddr":
                return original.destination
            case _:
                assert field.type is PROTOCOL, field.name
                return packet.protocol


class _Missing:
    pass


_MISSING = _Missing()


def _find(target: Set, elements: dict[bytes, ElementValue], key: bytes) -> ElementValue | _Missing:
    if not target.interval:
        return elements.get(key, _MISSING)
    parts = target.key.split(key)
    for element, value in elements.items():
        low, high = target.key.split(element[: target.key.size]), target.key.split(element[target.key.size :])
        if all(a <= part <= b for a, part, b in zip(low, parts, high, strict=True)):
            return value
    return _MISSING


def _require(matches: bool) -> None:
    if not matches:
        raise _Break
