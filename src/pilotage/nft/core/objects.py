"""Tables, chains and sets as values, and the commands that create, fill and remove them.

A `Transaction` is what the kernel carries out as a whole or not at all. Rendering to nft text lives here, since text
is the definition of what a value means; `wire` holds the binary form of the same element commands. Elements are
mappings from packed keys (see `types.Layout`) to packed values, verdicts, or None for a set.

Specification: nft(8) "ADD, DELETE AND FLUSH COMMANDS".
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from pilotage.nft.core.expressions import Rule, Verdict
from pilotage.nft.core.types import Layout

ElementValue: TypeAlias = bytes | Verdict | None
Elements: TypeAlias = Mapping[bytes, ElementValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    family: str  # ip, ip6 or inet
    name: str

    def text(self) -> str:
        return f"{self.family} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Where a base chain joins the packet's way."""

    type: str  # filter or nat
    hook: str  # prerouting, input, forward, output or postrouting
    priority: int  # lower is earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None  # None: a chain that others jump to


@dataclass(frozen=True, kw_only=True)
class Set:
    """A set (`value` None), a map (`value` a layout) or a verdict map (`value` the word "verdict")."""

    name: str
    key: Layout
    value: Layout | str | None = None
    interval: bool = False  # elements are ranges: packed first key, then packed last key, inclusive
    dynamic: bool = False  # rules add elements, which expire
    timeout_s: int = 0  # default lifetime of an element; 0: for ever
    size: int = 0  # most elements; 0: unbounded

    @property
    def keyword(self) -> str:
        return "set" if self.value is None else "map"

    @property
    def is_verdict_map(self) -> bool:
        return isinstance(self.value, str)

    @property
    def key_size(self) -> int:
        """Bytes of an element's key as kept in `Elements`."""
        return self.key.size * (2 if self.interval else 1)

    def declaration(self) -> str:
        parts = [f"type {self.key.declaration()}"]
        if isinstance(self.value, Layout):
            parts[0] += f" : {self.value.declaration()}"
        elif self.value is not None:
            parts[0] += f" : {self.value}"
        flags = [name for name in ("interval", "dynamic") if getattr(self, name)]
        if self.timeout_s:
            flags.append("timeout")
        if flags:
            parts.append(f"flags {','.join(flags)}")
        if self.size:
            parts.append(f"size {self.size}")
        if self.timeout_s:
            parts.append(f"timeout {self.timeout_s}s")
        return "; ".join(parts) + ";"

    def element_text(self, key: bytes, value: ElementValue) -> str:
        if self.interval:
            low, high = self.key.decode(key[: self.key.size]), self.key.decode(key[self.key.size :])
            text = " . ".join(a if a == b else f"{a}-{b}" for a, b in zip(low, high, strict=True))
        else:
            text = self.key.text(key)
        if isinstance(value, Verdict):
            return f"{text} : {value.text()}"
        if isinstance(value, bytes):
            assert isinstance(self.value, Layout)
            return f"{text} : {self.value.text(value)}"
        return text


# ── commands ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class AddTable:
    table: Table


@dataclass(frozen=True, slots=True)
class DeleteTable:
    """Remove a table and all in it, if it is there."""

    table: Table


@dataclass(frozen=True, slots=True)
class AddSet:
    """Declare a set; the same declaration again does nothing, a different one is refused."""

    table: Table
    set: Set


@dataclass(frozen=True, slots=True)
class DeleteSet:
    """Remove a set and what is in it; refused while a rule names it."""

    table: Table
    name: str


@dataclass(frozen=True, slots=True)
class PutChain:
    """Create the chain if needed, then replace its rules. Chains and sets that a rule names must be there before it.

    A chain that is there keeps its hook when none is given.
    """

    table: Table
    chain: Chain


@dataclass(frozen=True, slots=True)
class DeleteChain:
    """Remove a chain and its rules; refused while a rule or element leads to it."""

    table: Table
    name: str


@dataclass(frozen=True, slots=True)
class AddElements:
    """Refused if a key is there with another value; the same value again does nothing."""

    table: Table
    set: Set
    elements: Elements


@dataclass(frozen=True, slots=True)
class DeleteElements:
    """Refused if a key is not there."""

    table: Table
    set: Set
    keys: Iterable[bytes]


ElementCommand: TypeAlias = AddElements | DeleteElements
Command: TypeAlias = AddTable | DeleteTable | AddSet | DeleteSet | PutChain | DeleteChain | ElementCommand


@dataclass(frozen=True, slots=True)
class Transaction:
    """Commands that take effect together, in order, or not at all."""

    commands: tuple[Command, ...]

    @property
    def only_elements(self) -> bool:
        return all(isinstance(command, AddElements | DeleteElements) for command in self.commands)

    def __bool__(self) -> bool:
        return bool(self.commands)


def render(transaction: Transaction) -> str:
    """nft text of a transaction: the same values give the same text, elements sorted."""
    return "".join(f"{line}\n" for line in _lines(transaction.commands))


def _lines(commands: tuple[Command, ...]) -> Iterator[str]:
    for command in commands:
        match command:
            case AddTable(table):
                yield f"add table {table.text()}"
            case DeleteTable(table):
                # nft 1.0.6 has no `destroy`: adding first makes the deletion always succeed.
                yield f"add table {table.text()}"
                yield f"delete table {table.text()}"
            case AddSet(table, declared):
                yield f"add {declared.keyword} {table.text()} {declared.name} {{ {declared.declaration()} }}"
            case DeleteSet(table, name):
                yield f"delete set {table.text()} {name}"
            case PutChain(table, chain):
                yield chain_declaration(table, chain)
                yield f"flush chain {table.text()} {chain.name}"
                for one in chain.rules:
                    yield f"add rule {table.text()} {chain.name} {one.text()}"
            case DeleteChain(table, name):
                yield f"delete chain {table.text()} {name}"
            case AddElements(table, target, elements):
                if elements:
                    listed = ", ".join(target.element_text(key, elements[key]) for key in sorted(elements))
                    yield f"add element {table.text()} {target.name} {{ {listed} }}"
            case DeleteElements(table, target, keys):
                listed = ", ".join(target.element_text(key, None) for key in sorted(keys))
                if listed:
                    yield f"delete element {table.text()} {target.name} {{ {listed} }}"
            case _:
                assert_never(command)


def chain_declaration(table: Table, chain: Chain) -> str:
    """The command that creates a chain, without its rules."""
    hook = chain.hook
    if hook is None:
        return f"add chain {table.text()} {chain.name}"
    # The number rather than a name: in an output chain nft 1.0.6 refuses the word `dstnat`.
    body = f"type {hook.type} hook {hook.hook} priority {hook.priority}; policy accept;"
    return f"add chain {table.text()} {chain.name} {{ {body} }}"
