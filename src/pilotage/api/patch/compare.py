"""What changed between two states of an object, as sets of fields.

Apart from `apply` because ordinary updates need it on every write: it must be cheap when little changed, so every level
first asks Python whether the two parts are equal and only then looks inside. Called by `apply`.
"""

from __future__ import annotations

from typing import Any

from pilotage.api.patch.fieldset import MEMBER, FieldSet, child_of, element_key
from pilotage.api.schema import ANY, Schema

_MISSING: Any = object()

# Structs that every object of their kind has, even when empty: nobody adds them.
_NEVER_MEMBERS = ("Spec", "Status", "ObjectMeta")


class Comparison:
    """Fields set anew or to another value, and fields that are gone."""

    __slots__ = ("changed", "removed")

    def __init__(self, changed: FieldSet, removed: FieldSet) -> None:
        self.changed = changed
        self.removed = removed


def compare(old: dict[str, Any], new: dict[str, Any], schema: Schema) -> Comparison:
    """Differences between two states that have the same shape."""
    changed, removed = _compare_fields(old, new, schema)
    return Comparison(changed, removed)


def whole(value: Any, schema: Schema) -> FieldSet:
    """Every field of a value that was added or is gone, containers included."""
    fields: FieldSet = {}
    if schema.atomic:
        return fields
    if isinstance(value, dict) and schema.kind in ("object", "map"):
        for name, child in value.items():
            # Most fields are scalars: spare them the call.
            inside = whole(child, child_of(schema, name)) if isinstance(child, (dict, list)) else {}
            fields[f"f:{name}"] = inside
    elif isinstance(value, list) and schema.kind == "list":
        shape = schema.items or ANY
        for item in value:
            fields[element_key(item, schema)] = whole(item, shape) if schema.list_keys else {}
    if fields and not schema.definition.endswith(_NEVER_MEMBERS):
        fields[MEMBER] = {}
    return fields


def _compare_fields(old: dict[str, Any], new: dict[str, Any], schema: Schema) -> tuple[FieldSet, FieldSet]:
    changed: FieldSet = {}
    removed: FieldSet = {}
    for name, value in new.items():
        before = old.get(name, _MISSING)
        if before is not value and before != value:
            _note(f"f:{name}", before, value, child_of(schema, name), changed, removed)
    for name, value in old.items():
        if name not in new:
            removed[f"f:{name}"] = whole(value, child_of(schema, name))
    return changed, removed


def _compare_elements(old: list[Any], new: list[Any], schema: Schema) -> tuple[FieldSet, FieldSet]:
    changed: FieldSet = {}
    removed: FieldSet = {}
    shape = schema.items or ANY
    before = {element_key(item, schema): item for item in old}
    after = {element_key(item, schema): item for item in new}
    for key, value in after.items():
        was = before.get(key, _MISSING)
        if was != value:
            _note(key, was, value, shape, changed, removed)
    for key, value in before.items():
        if key not in after:
            removed[key] = whole(value, shape) if schema.list_keys else {}
    return changed, removed


def _note(element: str, old: Any, new: Any, schema: Schema, changed: FieldSet, removed: FieldSet) -> None:
    """Record how one field or element went from old to new, which differ."""
    if old is _MISSING:
        changed[element] = whole(new, schema)
        return
    inside: tuple[FieldSet, FieldSet] | None = None
    if not schema.atomic and old and new:
        if isinstance(old, dict) and isinstance(new, dict) and schema.kind in ("object", "map"):
            inside = _compare_fields(old, new, schema)
        elif isinstance(old, list) and isinstance(new, list) and schema.kind == "list":
            inside = _compare_elements(old, new, schema)
    if inside is not None:
        if inside[0]:
            changed[element] = inside[0]
        if inside[1]:
            removed[element] = inside[1]
        return
    changed[element] = whole(new, schema)
    gone = {key: node for key, node in whole(old, schema).items() if key != MEMBER}
    if gone:
        removed[element] = gone
