"""What a rule is made of: expressions that read a packet, statements that act.

Stands apart from `objects` because it is a small language of its own, with two readers: `text()` for the kernel (by way
of libnftables) and goldens, and the tracer, which carries rules out in memory. Only what the project uses is here;
every form was tried on nft 1.0.6, the oldest supported.

Specification: nft(8) "PAYLOAD EXPRESSIONS", "META EXPRESSIONS", "CT EXPRESSIONS", "STATEMENTS".
"""

from dataclasses import dataclass
from typing import TypeAlias

from pilotage.nft.core.types import CLASS_ID, IPV4, IPV6, PORT, PROTOCOL, DataType, Layout


@dataclass(frozen=True, slots=True)
class Field:
    """A header or meta field, by its nft name."""

    name: str
    type: DataType

    def text(self) -> str:
        return self.name


SADDR = {"ip": Field("ip saddr", IPV4), "ip6": Field("ip6 saddr", IPV6)}
DADDR = {"ip": Field("ip daddr", IPV4), "ip6": Field("ip6 daddr", IPV6)}
ORIGINAL_DADDR = {"ip": Field("ct original ip daddr", IPV4), "ip6": Field("ct original ip6 daddr", IPV6)}
L4PROTO = Field("meta l4proto", PROTOCOL)
DPORT = Field("th dport", PORT)
# nft knows the type of this field only after `meta l4proto PROTOCOL` earlier in the same rule.
ORIGINAL_DPORT = Field("ct original proto-dst", PORT)
PRIORITY = Field("meta priority", CLASS_ID)


@dataclass(frozen=True, slots=True)
class Numgen:
    """A fresh random number in [offset, offset + mod)."""

    mod: int
    offset: int = 0

    def text(self) -> str:
        return f"numgen random mod {self.mod}" + (f" offset {self.offset}" if self.offset else "")


@dataclass(frozen=True, slots=True)
class Concat:
    """Several expressions side by side: the key of a map."""

    parts: tuple[Field, ...]

    @property
    def layout(self) -> Layout:
        return Layout(tuple(part.type for part in self.parts))

    def text(self) -> str:
        return " . ".join(part.text() for part in self.parts)


@dataclass(frozen=True, slots=True)
class Lookup:
    """The value that `key` has in a map; a missing key ends the rule."""

    key: Concat
    map: str

    def text(self) -> str:
        return f"{self.key.text()} map @{self.map}"


# ── verdicts ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Verdict:
    """`accept`, `drop`, `return`, or `jump`/`goto` with a chain."""

    kind: str
    chain: str = ""

    def text(self) -> str:
        return f"{self.kind} {self.chain}" if self.chain else self.kind


ACCEPT, DROP, RETURN = Verdict("accept"), Verdict("drop"), Verdict("return")


def jump(chain: str) -> Verdict:
    return Verdict("jump", chain)


def goto(chain: str) -> Verdict:
    return Verdict("goto", chain)


# ── matches ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class InSet:
    """The key is (or, negated, is not) an element of a named set."""

    key: Concat
    set: str
    negated: bool = False

    def text(self) -> str:
        return f"{self.key.text()} {'!= ' if self.negated else ''}@{self.set}"


@dataclass(frozen=True, slots=True)
class InNetworks:
    """An address lies (or, negated, does not lie) in one of some networks (CIDR text, sorted, not overlapping)."""

    field: Field
    networks: tuple[str, ...]
    negated: bool = False

    def text(self) -> str:
        right = self.networks[0] if len(self.networks) == 1 else "{ " + ", ".join(self.networks) + " }"
        return f"{self.field.text()} {'!= ' if self.negated else ''}{right}"


@dataclass(frozen=True, slots=True)
class IsProtocol:
    protocol: str  # tcp, udp or sctp

    def text(self) -> str:
        return f"meta l4proto {self.protocol}"


@dataclass(frozen=True, slots=True)
class HasPort:
    """The packet is of `protocol` and has a destination port other than 0.

    Says the same as `IsProtocol` for real packets. nft 1.0.6 leaves `meta l4proto` out when it lists a rule whose later
    parts imply it, and then cannot read back a rule that needs it for `ORIGINAL_DPORT`; this form survives.
    """

    protocol: str

    def text(self) -> str:
        return f"{self.protocol} dport != 0"


@dataclass(frozen=True, slots=True)
class IsLocal:
    """The packet's source or destination is an address of this host (`fib … type local`)."""

    side: str  # saddr or daddr
    negated: bool = False

    def text(self) -> str:
        return f"fib {self.side} type {'!= ' if self.negated else ''}local"


@dataclass(frozen=True, slots=True)
class CtState:
    """The connection tracking state is (or is not) `state`."""

    state: str  # new, established or invalid
    negated: bool = False

    def text(self) -> str:
        return f"ct state {'!= ' if self.negated else ''}{self.state}"


@dataclass(frozen=True, slots=True)
class IsDnatted:
    """The connection's destination has been translated."""

    def text(self) -> str:
        return "ct status dnat"


@dataclass(frozen=True, slots=True)
class OutInterface:
    name: str

    def text(self) -> str:
        return f'oifname "{self.name}"'


# ── statements ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class VerdictMap:
    """Carry out the verdict that `key` has in a verdict map; a missing key ends the rule."""

    key: Concat
    map: str

    def text(self) -> str:
        return f"{self.key.text()} vmap @{self.map}"


@dataclass(frozen=True, slots=True)
class SetPriority:
    """Write the packet's priority: the one field a rule may use to hand a number to the next."""

    value: Lookup | Numgen | int

    def text(self) -> str:
        return f"meta priority set {self.value if isinstance(self.value, int) else self.value.text()}"


@dataclass(frozen=True, slots=True)
class Dnat:
    """Send the connection to the address and port found in a map."""

    family: str
    target: Lookup

    def text(self) -> str:
        return f"dnat {self.family} to {self.target.text()}"


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Replace the source by this host's own address, with a port chosen at random."""

    def text(self) -> str:
        return "masquerade fully-random"


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse: TCP by a reset, everything else by ICMP port unreachable."""

    with_reset: bool = False

    def text(self) -> str:
        return "reject with tcp reset" if self.with_reset else "reject"


@dataclass(frozen=True, slots=True)
class Update:
    """Write an element into a dynamic map, or renew its timeout."""

    map: str
    key: Concat
    value: Concat
    timeout_s: int

    def text(self) -> str:
        return f"update @{self.map} {{ {self.key.text()} timeout {self.timeout_s}s : {self.value.text()} }}"


Statement: TypeAlias = (
    InSet
    | InNetworks
    | IsProtocol
    | HasPort
    | IsLocal
    | CtState
    | IsDnatted
    | OutInterface
    | VerdictMap
    | SetPriority
    | Dnat
    | Masquerade
    | Reject
    | Update
    | Verdict
)


@dataclass(frozen=True, slots=True)
class Rule:
    """Statements carried out left to right until one does not match."""

    statements: tuple[Statement, ...]

    def text(self) -> str:
        return " ".join(statement.text() for statement in self.statements)


def rule(*statements: Statement) -> Rule:
    return Rule(statements)
