"""DNSRecord objects (dns.pilotage.dev/v1) → answers: who may own which name, weights, zones.

Fed by the shell's informer, asked by the `records` step. A name belongs to the object that was there first, so nobody
takes over another's name by creating an object; conflicts and mistakes are conditions, not exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pilotage.dns.api import DNSRecord, RecordValue
from pilotage.dns.core.name import Name, from_text, is_within
from pilotage.dns.core.record import Record
from pilotage.dns.core.text import parse_record

NAMES_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One record that may be answered."""

    record: Record
    weight: int
    zone: str
    """Topology zone it serves; empty: any."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What stands in the object's Accepted condition."""

    accepted: bool
    reason: str
    message: str


class CustomRecords:
    """All objects, by name."""

    def __init__(self) -> None:
        self.allowed: tuple[Name, ...] | None = None
        """Zones that objects may put names into; None: the step is not configured."""
        self._objects: dict[str, DNSRecord] = {}
        self._choices: dict[Name, dict[int, tuple[Choice, ...]]] = {}
        self._owners: dict[Name, list[str]] = {}

    def __contains__(self, name: Name) -> bool:
        return name in self._choices

    def set(self, key: str, new: DNSRecord | None) -> None:
        """One object changed; None: it is gone."""
        old = self._objects.pop(key, None)
        names = {name for known in (old, new) if known is not None and (name := _name_of(known)) is not None}
        if new is not None:
            self._objects[key] = new
        for name in names:
            self._rebuild(name, key)

    def rejudge(self) -> None:
        """Build everything anew, because `allowed` changed."""
        for name, keys in list(self._owners.items()):
            for key in list(keys):
                self._rebuild(name, key)
        for key, held in self._objects.items():
            own = _name_of(held)
            if own is not None:
                self._rebuild(own, key)

    def _rebuild(self, name: Name, key: str) -> None:
        owners = [k for k in self._owners.get(name, []) if k != key]
        held = self._objects.get(key)
        if held is not None and _name_of(held) == name and not problems(held, self.allowed or ()):
            owners.append(key)
        owners.sort(key=lambda k: (self._objects[k].metadata.creation_timestamp, k))
        if not owners:
            self._owners.pop(name, None)
            self._choices.pop(name, None)
            return
        self._owners[name] = owners
        first = self._objects[owners[0]]
        sets: dict[int, tuple[Choice, ...]] = {}
        for value in first.spec.records:
            choice = _choice(name, first.spec.ttl, value)
            sets[choice.record.rtype] = (*sets.get(choice.record.rtype, ()), choice)
        self._choices[name] = sets

    def judge(self, held: DNSRecord) -> Judgement:
        """What is to be said about one object."""
        found = problems(held, self.allowed or ())
        if found:
            return Judgement(False, "Invalid", "; ".join(found)[:1000])
        name = _name_of(held)
        owners = self._owners.get(name, []) if name is not None else []
        if owners and owners[0] != held.metadata.key:
            return Judgement(False, "Conflict", f"the name belongs to {owners[0]}, which was there first")
        return Judgement(True, "Accepted", "answered")

    def objects(self) -> Iterable[DNSRecord]:
        return self._objects.values()

    def choices(self, name: Name, zone: str) -> dict[int, tuple[Choice, ...]] | None:
        """By type, those of the asker's zone where there are any; None for an unknown name."""
        sets = self._choices.get(name)
        if sets is None:
            return None
        return {rtype: near(choices, zone) for rtype, choices in sets.items()}


def near(choices: tuple[Choice, ...], zone: str) -> tuple[Choice, ...]:
    """Those for `zone`; without any, those for every zone; without any, all: an answer far away beats none."""
    here = tuple(c for c in choices if zone and c.zone == zone)
    return here or tuple(c for c in choices if not c.zone) or choices


def is_weighted(choices: tuple[Choice, ...]) -> bool:
    return len({choice.weight for choice in choices}) > 1


def pick(choices: tuple[Choice, ...], roll: float) -> tuple[Choice, ...]:
    """All of equal weight; of different weights one, chosen by `roll` in [0, 1): weight 0 only when all have it."""
    if not is_weighted(choices):
        return choices
    total = sum(choice.weight for choice in choices)
    mark = roll * total
    for choice in choices:
        mark -= choice.weight
        if mark < 0:
            return (choice,)
    return choices[-1:]


def problems(held: DNSRecord, allowed: tuple[Name, ...]) -> tuple[str, ...]:
    """What is wrong with the object itself, for people."""
    name = _name_of(held)
    if name is None:
        return (f"spec.name: {held.spec.name[:80]!r} is not a domain name",)
    found = []
    if not any(is_within(name, zone) for zone in allowed):
        found.append("spec.name: outside the zones that this server lets objects name")
    types: set[int] = set()
    for index, value in enumerate(held.spec.records):
        try:
            types.add(_choice(name, held.spec.ttl, value).record.rtype)
        except ValueError as error:
            found.append(f"spec.records[{index}]: {error}")
    if 5 in types and len(types) > 1:
        found.append("spec.records: a CNAME stands alone (RFC 1034 §3.6.2)")
    if not held.spec.records:
        found.append("spec.records: at least one")
    return tuple(found)


def _name_of(held: DNSRecord) -> Name | None:
    try:
        return from_text(held.spec.name) or None
    except ValueError:
        return None


def _choice(name: Name, ttl: int, value: RecordValue) -> Choice:
    record = parse_record(name, ttl, value.type, value.value)
    return Choice(record=record, weight=value.weight, zone=value.zone)
