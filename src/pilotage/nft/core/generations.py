"""Whether every commit to nf_tables is accounted for: ours, or somebody else's that did not concern our tables.

Stands apart from the sockets so that the arithmetic can be tried in a table. The kernel counts commits of everybody in
one number, the generation; it says the number with each notification but not which of them were ours. So what is
neither our own count nor a notified commit of another owner is unexplained, and unexplained means: look.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from pilotage.nft.core.objects import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What others committed, as far as it was heard."""

    generations: frozenset[int] = frozenset()
    tables: frozenset[Table] = frozenset()
    by: tuple[str, ...] = ()  # who, in order of appearance, each once; empty: not known
    complete: bool = True  # False: some notifications were lost


@dataclass(slots=True)
class Ledger:
    """The account of one owner; `own` is called once for each transaction that was accepted."""

    _settled: int = 0  # every commit up to this generation is accounted for
    _own: int = 0  # ours since
    _foreign: set[int] = field(default_factory=set)  # others' since, which did not concern us

    def own(self) -> None:
        self._own += 1

    def settle(self, generation: int) -> None:
        """Everything up to `generation` has been looked at."""
        self._settled, self._own = generation, 0
        self._foreign = {one for one in self._foreign if one > generation}

    def disturbed(self, generation: int, heard: Foreign, tables: Collection[Table]) -> bool:
        """Whether one of `tables` may have been changed by others. `heard` was read after `generation`."""
        if not heard.complete or heard.tables.intersection(tables):
            return True
        self._foreign |= {one for one in heard.generations if one > self._settled}
        others = sum(one <= generation for one in self._foreign)
        if generation - self._settled != self._own + others:
            return True
        self.settle(generation)
        return False
