"""The plan against what the kernel says: what is missing, what is too much, what leads elsewhere.

Stands apart because repair and report need the same answer in different words: the proxier applies the difference as a
`Delta`, people read the `Drift`. Elements are compared here;
chains and declarations by the backend, which knows how its technology spells them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pilotage.nft.core.objects import ElementValue
from pilotage.proxy.core.fragment import SetId
from pilotage.proxy.core.layout import sets
from pilotage.proxy.core.plan import Delta, Plan, difference

# Differences that are spelt out: after a lost table there are as many as elements, and nobody reads them all.
NAMED_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One difference between intent and kernel."""

    family: str
    set: str  # empty: a chain or a declaration, named in `element`
    kind: str  # missing, unexpected or changed
    by: str = ""  # the processes that changed rules since the last look; empty: not known
    element: str  # as nft prints it; empty for what exceeds `NAMED_MAX`

    def text(self) -> str:
        """One line for people."""
        return f"{self.family} {self.set or 'structure'} {self.kind}: {self.element or '…'}"


def compare(plan: Plan, actual: Mapping[SetId, Mapping[bytes, ElementValue]]) -> tuple[Delta, tuple[Drift, ...]]:
    """What repairs `actual`, and the same for people, sorted."""
    repair = difference(Plan(elements=actual, chains=plan.chains), plan)
    found: list[Drift] = []
    for set_id in sorted(repair.deleted.keys() | repair.added.keys()):
        family, name = set_id
        declared = sets(family).by_name(name)
        gone, come = repair.deleted.get(set_id, {}), repair.added.get(set_id, {})
        for key in sorted(gone.keys() | come.keys()):
            kind = "changed" if key in gone and key in come else "missing" if key in come else "unexpected"
            value = come[key] if key in come else gone[key]
            text = declared.element_text(key, value) if len(found) < NAMED_MAX else ""
            found.append(Drift(family=family, set=name, kind=kind, element=text))
    return repair, tuple(found)
