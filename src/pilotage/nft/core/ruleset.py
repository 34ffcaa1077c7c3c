"""A rule set in memory that transactions change, with the kernel's own rules about what it refuses.

Stands apart because two readers need it: the fake kernel of tests, and the tracer (also of `observe`, which asks what a
plan would do to a packet without any kernel). A refused transaction leaves no trace. Leaves out expiry of dynamic
elements, hooks' conflicts and everything about other tables.
"""

import errno as codes
from dataclasses import dataclass, field, replace
from typing import assert_never

from pilotage.nft.core.expressions import Verdict, VerdictMap
from pilotage.nft.core.objects import (
    AddElements,
    AddSet,
    AddTable,
    Chain,
    Command,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    DeleteTable,
    ElementValue,
    PutChain,
    Set,
    Table,
    Transaction,
)


class RefusedError(Exception):
    """The kernel would answer with this `errno`."""

    def __init__(self, errno: int, what: str) -> None:
        super().__init__(what)
        self.errno = errno


@dataclass(slots=True)
class TableContent:
    """Everything in one table; mutable, owned by a `Ruleset`."""

    sets: dict[str, Set] = field(default_factory=dict)
    elements: dict[str, dict[bytes, ElementValue]] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)

    def copy(self) -> "TableContent":
        elements = {name: dict(content) for name, content in self.elements.items()}
        return TableContent(dict(self.sets), elements, dict(self.chains))

    def names(self, target: str) -> bool:
        """Whether a rule's verdict map is the set `target`."""
        return any(
            isinstance(statement, VerdictMap) and statement.map == target
            for chain in self.chains.values()
            for rule in chain.rules
            for statement in rule.statements
        )

    def leads_to(self, chain: str) -> bool:
        """Whether a rule or an element jumps to `chain`."""
        verdicts = [s for c in self.chains.values() for r in c.rules for s in r.statements if isinstance(s, Verdict)]
        verdicts += [v for content in self.elements.values() for v in content.values() if isinstance(v, Verdict)]
        return any(verdict.chain == chain for verdict in verdicts)


class Ruleset:
    """Tables by family and name."""

    def __init__(self) -> None:
        self.tables: dict[Table, TableContent] = {}

    def apply(self, transaction: Transaction) -> None:
        """All commands or, raising `RefusedError`, none. Copies what it touches: for tests and traces, not for size."""
        touched = {command.table for command in transaction.commands}
        before = {table: self.tables[table].copy() for table in touched if table in self.tables}
        try:
            for command in transaction.commands:
                self._carry_out(command)
        except RefusedError:
            for table in touched:
                self.tables.pop(table, None)
            self.tables.update(before)
            raise

    def _carry_out(self, command: Command) -> None:
        match command:
            case AddTable(table):
                self.tables.setdefault(table, TableContent())
            case DeleteTable(table):
                self.tables.pop(table, None)
            case AddSet(table, declared):
                content = self._table(table)
                known = content.sets.setdefault(declared.name, declared)
                if known != declared:
                    raise RefusedError(codes.EEXIST, f"set {declared.name} exists with another declaration")
                content.elements.setdefault(declared.name, {})
            case DeleteSet(table, name):
                content = self._table(table)
                if name not in content.sets:
                    raise RefusedError(codes.ENOENT, f"no set {name}")
                if content.names(name):
                    raise RefusedError(codes.EBUSY, f"set {name} is in use")
                del content.sets[name], content.elements[name]
            case PutChain(table, chain):
                content = self._table(table)
                known_chain = content.chains.get(chain.name)
                if known_chain is not None and known_chain.hook != chain.hook:
                    if chain.hook is not None:
                        raise RefusedError(codes.EEXIST, f"chain {chain.name} exists with another hook")
                    chain = replace(chain, hook=known_chain.hook)
                content.chains[chain.name] = chain
                _require_targets(content, chain)
            case DeleteChain(table, name):
                content = self._table(table)
                if name not in content.chains:
                    raise RefusedError(codes.ENOENT, f"no chain {name}")
                if content.leads_to(name):
                    raise RefusedError(codes.EBUSY, f"chain {name} is in use")
                del content.chains[name]
            case AddElements(table, target, elements):
                content = self._table(table)
                known_elements = _elements(content, target)
                for key, value in elements.items():
                    _add_element(content, target, known_elements, key, value)
            case DeleteElements(table, target, keys):
                known_elements = _elements(self._table(table), target)
                for key in keys:
                    if key not in known_elements:
                        raise RefusedError(codes.ENOENT, f"no such element in {target.name}")
                    del known_elements[key]
            case _:
                assert_never(command)

    def _table(self, table: Table) -> TableContent:
        if table not in self.tables:
            raise RefusedError(codes.ENOENT, f"no table {table.text()}")
        return self.tables[table]


def _elements(content: TableContent, target: Set) -> dict[bytes, ElementValue]:
    if target.name not in content.sets:
        raise RefusedError(codes.ENOENT, f"no set {target.name}")
    return content.elements[target.name]


def _add_element(
    content: TableContent, target: Set, known: dict[bytes, ElementValue], key: bytes, value: ElementValue
) -> None:
    if len(key) != target.key_size or (value is None) != (target.value is None):
        raise RefusedError(codes.EINVAL, f"element does not fit {target.name}")
    if isinstance(value, Verdict) and value.chain and value.chain not in content.chains:
        raise RefusedError(codes.ENOENT, f"no chain {value.chain}")
    if target.size and len(known) >= target.size and key not in known:
        raise RefusedError(codes.ENFILE, f"{target.name} is full")
    if known.setdefault(key, value) != value:
        raise RefusedError(codes.EEXIST, f"element of {target.name} exists with another value")


def _require_targets(content: TableContent, chain: Chain) -> None:
    for rule in chain.rules:
        for statement in rule.statements:
            if isinstance(statement, Verdict) and statement.chain and statement.chain not in content.chains:
                raise RefusedError(codes.ENOENT, f"no chain {statement.chain}")
            if isinstance(statement, VerdictMap) and statement.map not in content.sets:
                raise RefusedError(codes.ENOENT, f"no map {statement.map}")
