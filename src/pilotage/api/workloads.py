"""Rules that workload kinds share: template hashes, numbers or percentages, status differences, conditions.

Stands apart because several controllers need them and controllers do not know each other. Pure.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from pilotage.api.codec import Value, to_wire, wire_name
from pilotage.api.meta_v1 import Condition

C = TypeVar("C", bound=Condition)

_SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and nothing that looks like something else, so that no hash ever spells a word."""


def template_hash(template: Mapping[str, Any], collisions: int | None = None) -> str:
    """A short name for a template (`pod-template-hash`, `controller-revision-hash`); `collisions` makes another one.

    FNV-1a of 32 bits over canonical JSON, written in an alphabet of 27 letters. The value differs from
    kube-controller-manager's, which hashes Go's memory layout; nothing may rely on it, only its form is the same.
    """
    text = json.dumps(template, sort_keys=True, separators=(",", ":")) + (str(collisions) if collisions else "")
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    letters = []
    while value:
        value, rest = divmod(value, len(_SAFE))
        letters.append(_SAFE[rest])
    return "".join(reversed(letters)) or _SAFE[0]


def scaled(value: int | str, total: int, *, round_up: bool) -> int:
    """An IntOrString against `total`: 3 → 3, "25%" of 10 → 3 rounded up, 2 rounded down; nonsense counts as 0."""
    if isinstance(value, int):
        return value
    try:
        if not value.endswith("%"):
            return int(value)
        exact = int(value[:-1]) * total / 100
    except ValueError:
        return 0
    return math.ceil(exact) if round_up else math.floor(exact)


def status_patch(old: Value, new: Value) -> dict[str, Any]:
    """The merge patch (RFC 7396) of the fields in which `new` differs; empty if nothing does.

    Numbers are written even when they are 0, since a default left out would leave the old number standing.
    """
    patch: dict[str, Any] = {}
    for field in msgspec.structs.fields(new):
        before, value = getattr(old, field.name), getattr(new, field.name)
        if before == value:
            continue
        if isinstance(before, Value) and isinstance(value, Value):
            patch[wire_name(field.name)] = status_patch(before, value)
        else:
            patch[wire_name(field.name)] = None if value is None or value in ("", (), {}) else to_wire(value)
    return patch


def with_condition(conditions: Iterable[C], condition: C) -> tuple[C, ...]:
    """`condition` in the place of the one of its type; an unchanged status keeps its transition time."""
    result = []
    for old in conditions:
        if old.type == condition.type:
            if old.status == condition.status:
                condition = msgspec.structs.replace(condition, last_transition_time=old.last_transition_time)
            continue
        result.append(old)
    return (*result, condition)


def find_condition(conditions: Iterable[C], type: str) -> C | None:
    """The condition of that type, if it was ever set."""
    return next((condition for condition in conditions if condition.type == type), None)
