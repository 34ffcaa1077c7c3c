"""Whether every commit to nf_tables is accounted for: ours, or somebody else's that did not concern our tables.

Stands apart from the sockets so that the arithmetic can be tried in a table. The kernel counts commits of everybody in
one number, the generation; it says the number with each notification but not which of them were ours. So what is
neither our own count nor a notified commit of another owner is unexplained, and unexplained means: look everywhere.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from pilotage.nft.core.objects import Table

# A table and the set in it whose elements are meant; the empty name: everything else of the table.
Place: TypeAlias = tuple[Table, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What others committed, as far as it was heard."""

    generations: frozenset[int] = frozenset()
    places: frozenset[Place] = frozenset()
    by: tuple[str, ...] = ()  # who, in order of appearance, each once; empty: not known
    complete: bool = True  # False: some notifications were lost, so there may be more places


@dataclass(slots=True)
class Ledger:
    """The account of one owner; `own` is called once for each transaction that was accepted."""

    _settled: int = 0  # every commit up to this generation is accounted for
    _own: int = 0  # ours since
    _foreign: set[int] = field(default_factory=set)  # others' since, as they were notified

    def own(self) -> None:
        self._own += 1

    def settle(self, generation: int) -> None:
        """Everything up to `generation` has been looked at."""
        self._settled, self._own = generation, 0
        self._foreign = {one for one in self._foreign if one > generation}

    def explains(self, generation: int, heard: Foreign) -> bool:
        """Whether whatever was changed by others is among `heard.places`; either way `generation` is settled then.

        `heard` was read after `generation`. If False, anything may have changed.
        """
        self._foreign |= {one for one in heard.generations if one > self._settled}
        others = sum(one <= generation for one in self._foreign)
        explained = heard.complete and generation - self._settled == self._own + others
        self.settle(generation)
        return explained
