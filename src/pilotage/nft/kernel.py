"""The seam to nf_tables, and the real thing.

Stands apart so that everybody above can be run on `FakeNft`. Transactions come from the proxy and from network
policy; each takes effect as a whole. Structure goes through libnftables as text, pure element changes as netlink
batches (see `core.wire` for the measurements). Acts in the network namespace in which it was made, from any thread
but one at a time; one listing that is not steady may run beside.
"""

import errno
from collections.abc import Mapping, Sequence
from typing import Protocol

from pilotage.nft.core import rulewire, wire
from pilotage.nft.core.generations import Foreign
from pilotage.nft.core.objects import (
    Chain,
    Command,
    ElementValue,
    PutChain,
    Set,
    Table,
    Transaction,
    render,
)
from pilotage.nft.errors import NftError
from pilotage.nft.libnftables import Libnftables
from pilotage.nft.monitor import Monitor
from pilotage.nft.netlink import ElementSocket
from pilotage.nft.scratch import in_scratch_network


class Nft(Protocol):
    """What a component may ask of nf_tables. Every call raises `NftError` and may block for its duration."""

    def apply(self, transaction: Transaction) -> int:
        """Carry out all commands or none; returns by how much that raised the generation.

        Cost: about 2.5 µs an added element; text only for structure.
        """
        ...

    def elements(self, table: Table, target: Set, *, steady: bool = True) -> dict[bytes, ElementValue]:
        """Every element of one set. Never on the hot path: 100,000 take 0.2 s, and twice as many four times as long.

        Without `steady` it may run beside `apply`, and what changes meanwhile may be in it or not. For a few
        milliseconds after many were added some may be left out even so: the kernel grows its hash table in the
        background and its listing then skips (seen on Linux 6.18). Whoever finds one missing looks it up.
        """
        ...

    def lookup(self, table: Table, target: Set, keys: Sequence[bytes]) -> dict[bytes, ElementValue]:
        """Those of `keys` in a set without intervals, with their values. About 8 µs each, whatever its size."""
        ...

    def has_table(self, table: Table) -> bool:
        """Whether the table is there."""
        ...

    def chains(self, table: Table) -> frozenset[str]:
        """Names of the chains of a table."""
        ...

    def structure(self, table: Table) -> Mapping[str, bytes]:
        """`table`, `chain NAME`, `set NAME` → what it means, comparable; no elements. Empty if there is no table."""
        ...

    def generation(self) -> int:
        """A number that changes with every transaction anybody commits."""
        ...

    def foreign(self) -> Foreign:
        """What others committed since the last call. Costs microseconds; the first call only begins to listen."""
        ...

    def rehearse(self, transaction: Transaction, table: Table) -> Mapping[str, bytes]:
        """What `structure(table)` would say after `transaction` in an empty kernel; changes nothing."""
        ...

    def close(self) -> None:
        """Release what this process holds; the rules stay."""
        ...


class KernelNft:
    """nf_tables of the calling process's network namespace."""

    def __init__(self) -> None:
        self._library = Libnftables()
        self._socket = ElementSocket()
        self._lister = ElementSocket()  # its own, for listings beside transactions
        self._monitor = Monitor()

    def apply(self, transaction: Transaction) -> int:
        if not transaction:
            return 0
        with self._monitor.deaf():
            if not transaction.only_elements:
                return self._apply_text(transaction)
            self._socket.apply(transaction)
            return 1

    def _apply_text(self, transaction: Transaction) -> int:
        """Chains that text cannot say are made empty with the rest and filled in a transaction of their own each."""
        commands: list[Command] = []
        later: list[PutChain] = []
        for command in transaction.commands:
            if isinstance(command, PutChain) and rulewire.needs_wire(command.chain):
                later.append(command)
                commands.append(PutChain(command.table, Chain(name=command.chain.name, hook=command.chain.hook)))
            else:
                commands.append(command)
        self._library.run(render(Transaction(tuple(commands))))
        for command in later:
            self._socket.put_rules(command.table, command.chain)
        return 1 + len(later)

    def elements(self, table: Table, target: Set, *, steady: bool = True) -> dict[bytes, ElementValue]:
        return (self._socket if steady else self._lister).elements(table, target, steady=steady)

    def lookup(self, table: Table, target: Set, keys: Sequence[bytes]) -> dict[bytes, ElementValue]:
        return self._socket.lookup(table, target, keys)

    def has_table(self, table: Table) -> bool:
        return table.name in dict(self._socket.objects(wire.GETTABLE, table))

    def chains(self, table: Table) -> frozenset[str]:
        return frozenset(name for name, _ in self._objects(wire.GETCHAIN, table))

    def structure(self, table: Table) -> Mapping[str, bytes]:
        # Not by libnftables: its listing of a table reads every element first, even when told to leave them out
        # (nft 1.0.6: 4 s and 230 MB with 10,000 Services).
        tables = dict(self._objects(wire.GETTABLE, table))
        found = {"table": tables[table.name]} if table.name in tables else {}
        found |= {f"set {name}": meaning for name, meaning in self._objects(wire.GETSET, table)}
        found |= {f"chain {name}": meaning for name, meaning in self._objects(wire.GETCHAIN, table)}
        for chain, meaning in self._objects(wire.GETRULE, table):
            found[f"chain {chain}"] = found.get(f"chain {chain}", b"") + meaning
        return found

    def _objects(self, kind: int, table: Table) -> list[tuple[str, bytes]]:
        try:
            return self._socket.objects(kind, table)
        except NftError as refusal:
            if refusal.errno == errno.ENOENT:
                return []  # no such table
            raise

    def generation(self) -> int:
        return self._socket.generation()

    def foreign(self) -> Foreign:
        return self._monitor.heard()

    def rehearse(self, transaction: Transaction, table: Table) -> Mapping[str, bytes]:
        def tried() -> Mapping[str, bytes]:
            kernel = KernelNft()
            try:
                kernel.apply(transaction)
                return kernel.structure(table)
            finally:
                kernel.close()

        return in_scratch_network(tried)

    def close(self) -> None:
        self._library.close()
        self._socket.close()
        self._lister.close()
        self._monitor.close()
