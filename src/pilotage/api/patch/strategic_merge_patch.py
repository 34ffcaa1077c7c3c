"""Strategic merge patch: a merge patch that knows which lists are keyed, with directives for what JSON cannot say.

Apart from merge_patch because it needs the kind's shape: merge keys and strategies come from `api.schema`. Called by
the API server's PATCH handler for `application/strategic-merge-patch+json`; kubectl apply and client-go use it. Neither
argument is modified.

Directives: `$patch: replace|delete|merge` in a map or list element, `$retainKeys`, `$setElementOrder/<list>` and
`$deleteFromPrimitiveList/<list>`.

Specification: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.api.patch.errors import PatchError
from pilotage.api.schema import ANY, Schema, schema_of

_PATCH = "$patch"
_RETAIN_KEYS = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"

_Object = dict[str, Any]


def strategic_merge_patch(document: _Object, patch: Any, resource: Resource) -> _Object:
    """The document with the patch merged in by the kind's own merge rules."""
    if not isinstance(patch, dict):
        raise PatchError.malformed("a strategic merge patch must be an object")
    return _merge_map(document, patch, schema_of(resource.schema))


def _merge_map(document: _Object, patch: _Object, schema: Schema) -> _Object:
    directive = patch.get(_PATCH)
    if directive == "replace":
        return _merge_map({}, {key: value for key, value in patch.items() if key != _PATCH}, schema)
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise PatchError.malformed(f"unknown patch type: {directive}")
    merged = dict(document)
    if _RETAIN_KEYS in patch:
        kept = set(_scalars_of(patch[_RETAIN_KEYS], _RETAIN_KEYS))
        merged = {key: value for key, value in merged.items() if key in kept}
    for name in sorted(_list_names(patch)):
        value = _merge_list(merged.get(name), patch, name, _child(schema, name))
        if value is not None:
            merged[name] = value
    for key, value in patch.items():
        if key.startswith("$") and (key in (_PATCH, _RETAIN_KEYS) or key.startswith((_ORDER, _DELETE_PRIMITIVES))):
            continue
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            child = _child(schema, key)
            before = merged.get(key)
            replaced = child.replace or not isinstance(before, dict)
            merged[key] = _merge_map({} if replaced or before is None else before, value, child)
        elif not isinstance(value, list):
            merged[key] = value
    return merged


def _child(schema: Schema, name: str) -> Schema:
    if schema.kind == "map":
        return schema.items or ANY
    return schema.properties.get(name, ANY)


def _list_names(patch: _Object) -> set[str]:
    names = {key for key, value in patch.items() if isinstance(value, list) and key != _RETAIN_KEYS and key[0:1] != "$"}
    for key in patch:
        for prefix in (_ORDER, _DELETE_PRIMITIVES):
            if key.startswith(prefix):
                names.add(key.removeprefix(prefix))
    return names


def _list_of(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise PatchError.malformed(f"{what} must be a list")
    return value


def _scalars_of(value: Any, what: str) -> list[Any]:
    if any(isinstance(item, (dict, list)) for item in _list_of(value, what)):
        raise PatchError.malformed(f"{what} must be a list of strings or numbers")
    scalars: list[Any] = value
    return scalars


def _merge_list(before: Any, patch: _Object, name: str, schema: Schema) -> list[Any] | None:
    """The list after the patch's elements, order and deletions; None when there is nothing to say about it."""
    elements = patch.get(name, [])
    if elements is None:  # Deleted by null, whatever the order directive says.
        return None
    elements = _list_of(elements, name)
    if not schema.merge:
        return elements if name in patch else None
    original = before if isinstance(before, list) else []
    order = patch.get(_ORDER + name)
    if order is not None:
        _list_of(order, _ORDER + name)
    deletions = _list_of(patch.get(_DELETE_PRIMITIVES + name, []), _DELETE_PRIMITIVES + name)
    if not isinstance(before, list) and name not in patch:
        return None
    if not schema.merge_key:
        _scalars_of(elements, name)
        if order is not None:
            _scalars_of(order, _ORDER + name)
        return _merge_scalars(original, elements, order, deletions)
    return _merge_elements(original, elements, order, schema)


def _merge_scalars(original: list[Any], elements: list[Any], order: list[Any] | None, gone: list[Any]) -> list[Any]:
    merged = list(dict.fromkeys(item for item in [*original, *elements] if item not in gone))
    return _in_order(merged, original, elements if order is None else order, lambda item: item)


def _merge_elements(
    original: list[Any], elements: list[Any], order: list[Any] | None, schema: Schema
) -> list[Any]:  # fmt: skip
    key_of = _key_function(schema.merge_key)
    shape = schema.items or ANY
    merged: list[Any] = list(original)
    replaced = any(_directive(element) == "replace" for element in elements)
    if replaced:
        merged = original = []
    kept: list[Any] = []
    for element in elements:
        directive = _directive(element)
        if directive == "replace":
            continue
        # What replaces the list stands as it is, elements of one key side by side (a node's addresses of two families).
        at = None if replaced and directive is None else _find(merged, element, key_of, schema)
        if directive == "delete":
            while at is not None:
                del merged[at]
                at = _find(merged, element, key_of, schema)
            continue
        if directive not in (None, "merge"):
            raise PatchError.malformed(f"unknown patch type: {directive}")
        kept.append(element)
        if at is None:
            merged.append(_merge_map({}, element, shape))
        else:
            merged[at] = _merge_map(merged[at], element, shape)
    return _in_order(merged, original, kept if order is None else order, key_of)


def _directive(element: Any) -> Any:
    return element.get(_PATCH) if isinstance(element, dict) else None


def _key_function(merge_key: str) -> Callable[[Any], Hashable]:
    def key_of(element: Any) -> Hashable:
        if not isinstance(element, dict) or merge_key not in element:
            raise PatchError.malformed(f"map: {element!r} does not contain declared merge key: {merge_key}")
        if isinstance(element[merge_key], (dict, list)):
            raise PatchError.malformed(f"map: {element!r} has no plain value for merge key: {merge_key}")
        key: Hashable = element[merge_key]
        return key

    return key_of


def _find(merged: list[Any], element: Any, key_of: Callable[[Any], Hashable], schema: Schema) -> int | None:
    """Index of the element's partner. Two ports may share a number: then the other list keys decide, as in apply."""
    key = key_of(element)
    partners = [index for index, item in enumerate(merged) if key_of(item) == key]
    others = [name for name in schema.list_keys if name != schema.merge_key and name in element]
    if others:
        exact = [at for at in partners if all(merged[at].get(name, element[name]) == element[name] for name in others)]
        if exact:
            return exact[0]
        if _directive(element) is None and all(name in merged[at] for at in partners for name in others):
            return None
    return partners[0] if partners else None


def _in_order(
    merged: list[Any], original: Sequence[Any], order: Sequence[Any], key_of: Callable[[Any], Hashable]
) -> list[Any]:
    """Elements the patch names stand in its order; the others keep theirs and stand before those they preceded."""
    wanted = {key: position for position, key in reversed(list(enumerate(map(key_of, order))))}
    position = {key: index for index, key in reversed(list(enumerate(map(key_of, original))))}
    named = sorted((item for item in merged if key_of(item) in wanted), key=lambda item: wanted[key_of(item)])
    others = [item for item in merged if key_of(item) not in wanted]
    result: list[Any] = []
    for item in named:
        at = position.get(key_of(item))
        while others and at is not None and position.get(key_of(others[0]), at) < at:
            result.append(others.pop(0))
        result.append(item)
    return result + others
