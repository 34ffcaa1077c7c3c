"""From a decoded document to one that has the shape of its kind, or a refusal: what Go's decoder does for Kubernetes.

Apart from validation because it must come first: defaulting and every later rule may then rely on types. Unknown
fields are dropped and reported, nulls become absence, quantities get their canonical text. Called by the API server on
every body it is sent, and by server-side apply.

Left out: what values mean (`schema_validation`). Specification: `fieldValidation` in
https://kubernetes.io/docs/reference/using-api/api-concepts/#validation-for-unrecognized-or-duplicate-fields
"""

from __future__ import annotations

import binascii
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from pilotage.api import quantity, timestamp
from pilotage.api.catalogue import Resource
from pilotage.api.schema import ANY, Schema, schema_of
from pilotage.api.status import ApiError

FieldValidation = Literal["Ignore", "Warn", "Strict"]

DEPTH_MAX = 200  # Far beyond any real object, well within Python's recursion limit.
REPORTED_MAX = 100  # Unknown or duplicate fields named in one answer.

_SCALARS: dict[str, tuple[type, ...]] = {"string": (str,), "bytes": (str,), "boolean": (bool,), "time": (str,)}
_JSON_NAMES = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conformed:
    """The document in the shape of its kind, and what to warn the client of."""

    document: dict[str, Any]
    warnings: tuple[str, ...] = ()


def conform(
    resource: Resource,
    document: Any,
    field_validation: FieldValidation = "Warn",
    *,
    duplicates: tuple[str, ...] = (),
    schema: Schema | None = None,  # None: the built-in kind's own
) -> Conformed:
    """A conforming copy of the document; raises ApiError (400) where Kubernetes could not decode it.

    `duplicates` are the field paths found by `duplicate_fields`, reported together with unknown fields.
    """
    unknown: list[str] = []
    try:
        conformed = _visit(document, schema or schema_of(resource.schema), unknown, 0)
    except _Mismatch as mismatch:
        raise ApiError("BadRequest", f"{_cannot_be_handled(resource)}: {mismatch.text()}") from None
    problems = tuple(
        [f'unknown field "{path}"' for path in unknown] + [f'duplicate field "{path}"' for path in duplicates]
    )[:REPORTED_MAX]
    if problems and field_validation == "Strict":
        raise ApiError("BadRequest", f"{_cannot_be_handled(resource)}: strict decoding error: {', '.join(problems)}")
    return Conformed(document=conformed, warnings=problems if field_validation == "Warn" else ())


def _cannot_be_handled(resource: Resource) -> str:
    return f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'


class _Mismatch(Exception):
    """A value that its field cannot hold. The path grows while the exception passes the structs on its way up."""

    def __init__(self, problem: str, wanted: Schema | None = None) -> None:
        super().__init__(problem)
        self.problem, self.wanted = problem, wanted
        self.path = self.owner = ""

    def inside(self, name: str, struct: Schema | None = None) -> None:
        """The value was found in this field or element."""
        self.path = _joined(name, self.path)
        if struct is not None and not self.owner:
            self.owner = struct.definition.rpartition(".")[2]

    def text(self) -> str:
        """As Go's decoder says it."""
        if self.wanted is None:
            return self.problem
        where = f"{self.owner}.{self.path}"
        return f"json: cannot unmarshal {self.problem} into Go struct field {where} of type {_go_type(self.wanted)}"


def _joined(name: str, path: str) -> str:
    return f"{name}.{path}" if path and path[0] != "[" else f"{name}{path}"


def _visit(value: Any, schema: Schema, unknown: list[str], depth: int) -> Any:
    """The conforming value of one node; the paths of dropped fields, relative to it, are added to `unknown`."""
    kind = schema.kind
    if kind == "object":
        if type(value) is dict:
            return _visit_struct(value, schema, unknown, depth + 1)
    elif kind == "list":
        if type(value) is list:
            return _visit_list(value, schema.items or ANY, unknown, depth)
    elif kind == "map":
        if type(value) is dict:
            return _visit_map(value, schema.items or ANY, unknown, depth)
    elif kind == "integer":
        if type(value) is int and (not schema.integer_max or -schema.integer_max - 1 <= value <= schema.integer_max):
            return value
    elif kind == "any":
        if schema.items is not None and type(value) is dict:
            return _visit(value, schema.items, unknown, depth)
        return value
    else:
        converted = _scalar(value, kind)
        if converted is not None:
            return converted
    raise _Mismatch(_JSON_NAMES.get(type(value), "null"), schema)


def _visit_struct(value: dict[str, Any], schema: Schema, unknown: list[str], depth: int) -> dict[str, Any]:
    if depth > DEPTH_MAX:
        raise _Mismatch("json: exceeded max depth")
    properties = schema.properties
    result: dict[str, Any] = {}
    for name, item in value.items():
        child = properties.get(name)
        if child is None:
            if schema.preserve_unknown:
                result[name] = item
            else:
                unknown.append(name)
        elif item is None:
            continue
        elif child.kind == "string" and type(item) is str:  # Most fields: spare them the call.
            result[name] = item
        else:
            before = len(unknown)
            try:
                result[name] = _visit(item, child, unknown, depth)
            except _Mismatch as mismatch:
                mismatch.inside(name, schema)
                raise
            if len(unknown) != before:
                unknown[before:] = [_joined(name, path) for path in unknown[before:]]
    return result


def _visit_list(value: list[Any], shape: Schema, unknown: list[str], depth: int) -> list[Any]:
    result: list[Any] = []
    for index, item in enumerate(value):
        if item is None:
            result.append(_zero(shape))
            continue
        before = len(unknown)
        try:
            result.append(_visit(item, shape, unknown, depth))
        except _Mismatch as mismatch:
            if shape.kind in ("object", "list", "map"):
                mismatch.inside(f"[{index}]")
            raise
        if len(unknown) != before:
            unknown[before:] = [_joined(f"[{index}]", path) for path in unknown[before:]]
    return result


def _visit_map(value: dict[str, Any], shape: Schema, unknown: list[str], depth: int) -> dict[str, Any]:
    if shape.kind == "string" and all(type(item) is str for item in value.values()):
        return dict(value)  # Labels, annotations, data: there may be a hundred thousand.
    result: dict[str, Any] = {}
    for key, item in value.items():
        if item is None:
            result[key] = _zero(shape)
            continue
        before = len(unknown)
        try:
            result[key] = _visit(item, shape, unknown, depth)
        except _Mismatch as mismatch:
            if shape.kind in ("object", "list", "map"):
                mismatch.inside(f"[{key}]")
            raise
        if len(unknown) != before:
            unknown[before:] = [_joined(f"[{key}]", path) for path in unknown[before:]]
    return result


def _scalar(value: Any, kind: str) -> Any:
    """The value as a field of this kind holds it; None when its JSON type is wrong."""
    if kind == "quantity":
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return _canonical_quantity(value if isinstance(value, str) else repr(value))
    elif kind == "int-or-string":
        return value if type(value) in (int, str) else None
    elif kind == "number":
        return value if type(value) in (int, float) else None
    elif type(value) in _SCALARS[kind]:
        if kind == "time":
            return _checked_time(value)
        if kind == "bytes":
            return _checked_base64(value)
        return value
    return None


@lru_cache(maxsize=4096)
def _canonical_quantity(text: str) -> str:
    try:
        exact = quantity.parse(text)
    except quantity.QuantityError as error:
        raise _Mismatch(str(error)) from None
    if text.lower().strip("+-.0123456789").startswith("e") and not text.endswith(("E", "Ei")):
        return text  # Decimal exponents keep their form.
    return quantity.render(exact, binary=text.endswith("i"))


def _checked_time(text: str) -> str:
    try:
        timestamp.parse(text)
    except ValueError:
        raise _Mismatch(f'parsing time "{text[:80]}" as "2006-01-02T15:04:05Z07:00": cannot parse') from None
    return text


def _checked_base64(text: str) -> str:
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        # Go ignores line breaks inside the text, and so do the many tools that wrap it.
        unwrapped = text.replace("\n", "").replace("\r", "")
        if unwrapped == text or not unwrapped:
            if text:
                raise _Mismatch("illegal base64 data") from None
            return text
        return _checked_base64(unwrapped)
    return text


def _zero(schema: Schema) -> Any:
    """What Go puts in place of a null inside a list or map."""
    match schema.kind:
        case "object" | "map":
            return {}
        case "list":
            return []
        case "integer" | "number" | "int-or-string":
            return 0
        case "boolean":
            return False
        case "quantity":
            return "0"
        case "any":
            return None
        case _:
            return ""


def _go_type(schema: Schema) -> str:
    match schema.kind:
        case "object":
            *_, version, name = f"..{schema.definition}".rsplit(".", 2)
            return f"{version}.{name}" if schema.definition else "object"
        case "list":
            return f"[]{_go_type(schema.items or ANY)}"
        case "map":
            return f"map[string]{_go_type(schema.items or ANY)}"
        case "integer":
            return "int32" if schema.integer_max == 2**31 - 1 else "int64"
        case "number":
            return "float64"
        case "boolean":
            return "bool"
        case "bytes":
            return "[]uint8"
        case _:
            return schema.definition.rpartition(".")[2] or "string"


def duplicate_fields(body: bytes) -> tuple[str, ...]:
    """Paths of fields that occur twice in one object of a JSON text; decoders silently keep the last."""
    found = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        result = dict(items)
        found = found or len(result) != len(items)
        return result

    json.loads(body, object_pairs_hook=pairs)
    if not found:
        return ()
    duplicates: list[str] = []
    _collect_duplicates(json.loads(body, object_pairs_hook=_Pairs), "", duplicates)
    return tuple(duplicates[:REPORTED_MAX])


class _Pairs(list[tuple[str, Any]]):
    """An object as its members in order, told apart from an array."""


def _collect_duplicates(value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for name, item in value:
            here = f"{path}.{name}" if path else name
            if name in seen:
                found.append(here)
            seen.add(name)
            _collect_duplicates(item, here, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _collect_duplicates(item, f"{path}[{index}]", found)
