"""The plan against what the kernel says: what is missing, what is too much, what leads elsewhere.

Stands apart because repair and report need the same answer in different words: the backend applies the difference as a
`Delta`, people read the `Drift`. Comparing goes part by part, so that no step is as large as everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pilotage.nft.core.objects import ElementValue
from pilotage.proxy.core.fragment import SetId
from pilotage.proxy.core.layout import sets
from pilotage.proxy.core.plan import Delta, Plan, difference

# Differences of one set that are spelt out: after a lost table there are as many as elements, and nobody reads them.
NAMED_MAX = 1000

# What is looked at by itself: the elements of one set, or (the empty set name) everything of a family that is not one.
Part: TypeAlias = SetId


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One difference between intent and kernel, or those that exceed `NAMED_MAX` together."""

    family: str
    set: str  # empty: a chain or a declaration, named in `element`
    kind: str  # missing, unexpected or changed
    by: str = ""  # the processes that changed rules since the last look; empty: not known
    element: str  # as nft prints it; empty for what exceeds `NAMED_MAX`
    count: int = 1  # more than one only where `element` is empty

    def text(self) -> str:
        """One line for people."""
        return f"{self.family} {self.set or 'structure'} {self.kind}: {self.element or f'{self.count} more'}"


def compare(part: Part, wanted: Mapping[bytes, ElementValue], actual: Mapping[bytes, ElementValue]) -> Delta:
    """What makes the elements `actual` of one set as `wanted`."""
    here, there = (Plan(elements={part: elements}, chains=frozenset()) for elements in (actual, wanted))
    return difference(here, there)


def describe(repair: Delta) -> tuple[Drift, ...]:
    """A repair of elements for people, sorted."""
    found: list[Drift] = []
    for set_id in sorted(repair.deleted.keys() | repair.added.keys()):
        family, name = set_id
        declared = sets(family).by_name(name)
        gone, come = repair.deleted.get(set_id, {}), repair.added.get(set_id, {})
        kinds = {
            "missing": come.keys() - gone.keys(),
            "unexpected": gone.keys() - come.keys(),
            "changed": come.keys() & gone.keys(),
        }
        for kind, keys in kinds.items():
            named = sorted(keys)[:NAMED_MAX]
            for key in named:
                text = declared.element_text(key, come[key] if key in come else gone[key])
                found.append(Drift(family=family, set=name, kind=kind, element=text))
            if len(keys) > len(named):
                more = len(keys) - len(named)
                found.append(Drift(family=family, set=name, kind=kind, element="", count=more))
    return tuple(found)


def structure_drift(family: str, wanted: Mapping[str, bytes], actual: Mapping[str, bytes]) -> tuple[Drift, ...]:
    """How tables, chains and declarations differ, by the names that `Nft.structure` gives them."""
    found: list[Drift] = []
    for name in sorted(wanted.keys() | actual.keys()):
        if wanted.get(name) != actual.get(name):
            kind = "missing" if name not in actual else "unexpected" if name not in wanted else "changed"
            found.append(Drift(family=family, set="", kind=kind, element=name))
    return tuple(found)
