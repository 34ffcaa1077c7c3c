"""nf_tables in memory: the same seam, the same refusals, no kernel.

It ships with the package so that whoever drives `Nft` can be tested anywhere. The shared suite in
`tests/netns/nft` holds it equal to the kernel.
"""

from collections.abc import Mapping, Sequence

from pilotage.nft.core.generations import Foreign
from pilotage.nft.core.objects import ElementValue, Set, Table, Transaction, chain_declaration
from pilotage.nft.core.ruleset import RefusedError, Ruleset
from pilotage.nft.errors import NftError


class FakeNft:
    """A `Ruleset` behind the `Nft` seam. `refuse_next` makes the next transaction fail, to test retries."""

    def __init__(self) -> None:
        self.ruleset = Ruleset()
        self.refuse_next: NftError | None = None
        self._generation = 1

    def apply(self, transaction: Transaction) -> int:
        if not transaction:
            return 0
        if self.refuse_next is not None:
            refusal, self.refuse_next = self.refuse_next, None
            raise refusal
        try:
            self.ruleset.apply(transaction)
        except RefusedError as refusal:
            raise NftError(str(refusal), refusal.errno) from refusal
        self._generation += 1
        return 1

    def elements(self, table: Table, target: Set, *, steady: bool = True) -> dict[bytes, ElementValue]:
        content = self.ruleset.tables.get(table)
        if content is None or target.name not in content.sets:
            raise NftError(f"no set {target.name}", 2)
        return dict(content.elements[target.name])

    def lookup(self, table: Table, target: Set, keys: Sequence[bytes]) -> dict[bytes, ElementValue]:
        present = self.elements(table, target)
        return {key: present[key] for key in keys if key in present}

    def has_table(self, table: Table) -> bool:
        return table in self.ruleset.tables

    def chains(self, table: Table) -> frozenset[str]:
        content = self.ruleset.tables.get(table)
        return frozenset(content.chains) if content else frozenset()

    def structure(self, table: Table) -> Mapping[str, bytes]:
        content = self.ruleset.tables.get(table)
        if content is None:
            return {}
        found = {"table": b""}
        found |= {f"set {name}": declared.declaration().encode() for name, declared in content.sets.items()}
        for name, chain in content.chains.items():
            lines = [chain_declaration(table, chain), *(one.text() for one in chain.rules)]
            found[f"chain {name}"] = "\n".join(lines).encode()
        return found

    def generation(self) -> int:
        return self._generation

    def foreign(self) -> Foreign:
        return Foreign()  # nobody says who it was: whoever counts its own commits notices the others

    def rehearse(self, transaction: Transaction, table: Table) -> Mapping[str, bytes]:
        empty = FakeNft()
        empty.apply(transaction)
        return empty.structure(table)

    def close(self) -> None:
        """Nothing is held."""
