"""Wanted names against the zone → changes, each one update with its prerequisites.

Ownership is a TXT record beside the name, not at it, since a CNAME suffers no neighbour (RFC 1034 §3.6.2). It names the
owner and the object, so that a person who reads the zone knows whom to ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pilotage.dns.core.name import Name, to_text
from pilotage.dns.external.core.wanted import PREFIX, WILDCARD, Wanted

TYPES = ("A", "AAAA", "CNAME")

Zone = Mapping[Name, Mapping[str, tuple[int, frozenset[str]]]]
"""Name → type → (TTL, values), TXT without quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One update. The shell sends the prerequisites with it; a server that refuses them has newer news."""

    name: Name
    owner_name: Name
    add: tuple[tuple[int, str, str], ...] = ()
    """(TTL, type, value); every type of `TYPES` is deleted first."""
    owner_text: str = ""
    """The TXT to have afterwards; empty: none."""
    must_have: str = ""
    """The TXT that must stand there now; empty: neither it nor any address may exist."""


def owner_name(name: Name) -> Name:
    """Where the ownership of `name` is written."""
    first, *rest = name
    return (PREFIX, WILDCARD if first == b"*" else first, *rest)


def owner_text(owner: str, resource: str) -> str:
    return f"heritage=pilotage,owner={owner},resource={resource}"


def is_owned(text: str, owner: str) -> bool:
    return text.startswith(f"heritage=pilotage,owner={owner},")


def plan(wanted: Mapping[Name, Wanted], zone: Zone, owner: str) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """The changes in order of name, deletions first; and the names that belong to others."""
    deletions: list[Change] = []
    changes: list[Change] = []
    conflicts: list[str] = []
    for name in sorted(wanted):
        want = wanted[name]
        beside = owner_name(name)
        held = _ownership(zone, beside, owner)
        present = {kind: zone.get(name, {}).get(kind) for kind in TYPES}
        text = owner_text(owner, want.resource)
        add = tuple(sorted((want.ttl, kind, value) for kind, value in want.records))
        if held is None:
            if any(present.values()) or zone.get(beside, {}).get("TXT"):
                conflicts.append(to_text(name))
            else:
                changes.append(Change(name=name, owner_name=beside, add=add, owner_text=text))
            continue
        has = {(found[0], kind, value) for kind, found in present.items() if found for value in found[1]}
        if has != set(add) or held != text:
            changes.append(Change(name=name, owner_name=beside, add=add, owner_text=text, must_have=held))
    owned = {owner_name(name) for name in wanted}
    for beside in sorted(zone):
        if beside[:1] != (PREFIX,) or beside in owned:
            continue
        held = _ownership(zone, beside, owner)
        if held is not None:
            name = ((b"*" if beside[1] == WILDCARD else beside[1]), *beside[2:])
            deletions.append(Change(name=name, owner_name=beside, must_have=held))
    return (*deletions, *changes), tuple(conflicts)


def _ownership(zone: Zone, beside: Name, owner: str) -> str | None:
    """The text by which `owner` owns the name; None when it does not."""
    found = zone.get(beside, {}).get("TXT")
    return next((text for text in sorted(found[1]) if is_owned(text, owner)), None) if found else None
