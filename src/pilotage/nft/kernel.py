"""The seam to nf_tables, and the real thing.

Stands apart so that everybody above can be run on `FakeNft`. Transactions come from the proxy and from network
policy; each takes effect as a whole. Structure goes through libnftables as text, pure element changes as netlink
batches (see `core.wire` for the measurements). Acts in the network namespace in which it was made, from any thread
but one at a time.
"""

import errno
from collections.abc import Mapping
from typing import Protocol

from pilotage.nft.core import wire
from pilotage.nft.core.objects import ElementValue, Set, Table, Transaction, render
from pilotage.nft.errors import NftError
from pilotage.nft.libnftables import Libnftables
from pilotage.nft.netlink import ElementSocket


class Nft(Protocol):
    """What a component may ask of nf_tables. Every call raises `NftError` and may block for its duration."""

    def apply(self, transaction: Transaction) -> None:
        """Carry out all commands or none. Cost: about 2.5 µs an added element; text only for structure."""
        ...

    def elements(self, table: Table, target: Set) -> dict[bytes, ElementValue]:
        """Every element of one set. Proportional to its size: never on the hot path.

        For a few milliseconds after many were added some may be left out: the kernel grows its hash table in the
        background and its listing then skips (seen on Linux 6.18). Whoever finds one missing looks again.
        """
        ...

    def has_table(self, table: Table) -> bool:
        """Whether the table is there."""
        ...

    def chains(self, table: Table) -> frozenset[str]:
        """Names of the chains of a table."""
        ...

    def structure(self, table: Table) -> Mapping[str, bytes]:
        """`chain NAME` and `set NAME` → what it means, comparable; without elements. Empty if there is no table."""
        ...

    def generation(self) -> int:
        """A number that changes with every transaction anybody commits."""
        ...

    def close(self) -> None:
        """Release what this process holds; the rules stay."""
        ...


class KernelNft:
    """nf_tables of the calling process's network namespace."""

    def __init__(self) -> None:
        self._library = Libnftables()
        self._socket = ElementSocket()

    def apply(self, transaction: Transaction) -> None:
        if not transaction:
            return
        if transaction.only_elements:
            self._socket.apply(transaction)
        else:
            self._library.run(render(transaction))

    def elements(self, table: Table, target: Set) -> dict[bytes, ElementValue]:
        return self._socket.elements(table, target)

    def has_table(self, table: Table) -> bool:
        return table.name in dict(self._socket.objects(wire.GETTABLE, table))

    def chains(self, table: Table) -> frozenset[str]:
        return frozenset(name for name, _ in self._objects(wire.GETCHAIN, table))

    def structure(self, table: Table) -> Mapping[str, bytes]:
        # Not by libnftables: its listing of a table reads every element first, even when told to leave them out
        # (nft 1.0.6: 4 s and 230 MB with 10,000 Services).
        found = {f"set {name}": meaning for name, meaning in self._objects(wire.GETSET, table)}
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

    def close(self) -> None:
        self._library.close()
        self._socket.close()
