"""Sets of fields, kept in the very form managedFields stores them: FieldsV1.

A set is a trie of nested dicts whose keys are path elements: `f:name` a field or map key, `k:{"name":"web"}` an element
of a keyed list, `v:"x"` an element of a set. A node without children is a member; a node with children is a member only
if it also holds `.`. Because the stored form is the working form there is nothing to encode or decode. The empty dict
is the empty set at the root and a member anywhere below it, hence the thin wrappers around the recursive functions.

Called by `apply` only. All functions return new sets and may share branches with their arguments, which stay unchanged.

Specification: KEP-555 and `fieldsV1` in
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from pilotage.api.patch.errors import PatchError
from pilotage.api.schema import ANY, KEY_DEFAULTS, Schema

FieldSet = dict[str, Any]

MEMBER = "."


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """Members of either."""
    merged = dict(left)
    for element, node in right.items():
        if element not in merged:
            merged[element] = node
        elif element != MEMBER and node is not merged[element]:
            both = union(merged[element], node)
            if both and (not merged[element] or not node):  # One of them was a leaf, hence a member.
                both[MEMBER] = {}
            merged[element] = both
    return merged


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """Members of the left that are not members of the right; `left` itself when nothing goes."""
    result: FieldSet | None = None
    for element, removed in right.items():
        node = left.get(element)
        if element == MEMBER or node is None:
            continue
        kept = _difference(node, removed)
        if kept is node:
            continue
        if result is None:
            result = dict(left)
        if kept is None:
            del result[element]
        else:
            result[element] = kept
    return left if result is None else result


def _difference(node: FieldSet, removed: FieldSet) -> FieldSet | None:
    """As `difference` below the root; None when no member is left."""
    stays = (not node or MEMBER in node) and not (not removed or MEMBER in removed)
    if not node:
        return node if stays else None
    kept = difference(node, removed)
    if stays or MEMBER not in kept:
        return kept or ({} if stays else None)
    kept = {element: child for element, child in kept.items() if element != MEMBER}
    return kept or None


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    """Members of both."""
    if len(right) < len(left):
        left, right = right, left
    common: FieldSet = {}
    for element, node in left.items():
        other = right.get(element)
        if element == MEMBER or other is None:
            continue
        both = intersection(node, other)
        if (not node or MEMBER in node) and (not other or MEMBER in other):
            common[element] = {MEMBER: {}, **both} if both else {}
        elif both:
            common[element] = both
    return common


def members(fields: FieldSet, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every member's path, in sorted order."""
    for element in sorted(fields):
        if element == MEMBER:
            continue
        node = fields[element]
        path = (*prefix, element)
        if not node or MEMBER in node:
            yield path
        yield from members(node, path)


def path_text(path: tuple[str, ...]) -> str:
    """A path as Kubernetes prints it: `.spec.containers[name="web"].image`."""
    text = ""
    for element in path:
        kind, _, name = element.partition(":")
        if kind == "f":
            text += f".{name}"
        elif kind == "k":
            keys = json.loads(name)
            text += "[" + ",".join(f"{key}={_compact(keys[key])}" for key in sorted(keys)) + "]"
        else:
            text += f"[={name}]" if kind == "v" else f"[{name}]"
    return text


def fields_of(value: Any, schema: Schema) -> FieldSet:
    """The set an applied configuration owns: its leaves, and every element of a list."""
    fields: FieldSet = {}
    if isinstance(value, dict) and not schema.atomic:
        for name, child in value.items():
            fields[f"f:{name}"] = _leaves(child, child_of(schema, name))
    elif isinstance(value, list) and not schema.atomic:
        shape = schema.items or ANY
        for item in value:
            if schema.list_keys:
                fields[element_key(item, schema)] = {MEMBER: {}, **fields_of(item, shape)}
            else:
                fields[f"v:{_compact(item)}"] = {}
    return fields


def _leaves(value: Any, schema: Schema) -> FieldSet:
    return {} if schema.kind not in ("object", "map", "list") and not schema.properties else fields_of(value, schema)


def child_of(schema: Schema, name: str) -> Schema:
    """The shape of a field of a struct or of a map's value."""
    if schema.kind == "map":
        return schema.items or ANY
    return schema.properties.get(name, ANY)


def element_key(item: Any, schema: Schema) -> str:
    """The path element of a list's element; keys that are missing take their default or are left out."""
    if not schema.list_keys:
        return f"v:{_compact(item)}"
    if not isinstance(item, dict):
        return f"v:{_compact(item)}"
    keys = {key: item[key] if key in item else KEY_DEFAULTS.get(key) for key in schema.list_keys}
    return "k:" + _compact({key: value for key, value in keys.items() if value is not None})


def check_elements(value: Any, schema: Schema, path: str = "") -> None:
    """Refuse keyed lists and sets whose elements cannot be told apart."""
    if isinstance(value, dict) and not schema.atomic:
        for name, child in value.items():
            check_elements(child, child_of(schema, name), f"{path}.{name}")
    elif isinstance(value, list) and not schema.atomic:
        seen: set[str] = set()
        for index, item in enumerate(value):
            key = element_key(item, schema)
            for name in schema.list_keys:
                if name not in item and name not in KEY_DEFAULTS:
                    raise PatchError.malformed(
                        f"{path}: element {index}: associative list with keys has an element that omits key field "
                        f'"{name}" (and doesn\'t have default value)'
                    )
            if key in seen:
                raise PatchError.malformed(f"{path}: duplicate entries for key {path_text((key,))}")
            seen.add(key)
            check_elements(item, schema.items or ANY, f"{path}{path_text((key,))}")


_encode = msgspec.json.Encoder(order="sorted").encode


def _compact(value: Any) -> str:
    return _encode(value).decode()
