"""The shape a structural schema gives its values: what is pruned, what defaulted, which rules hold where.

Stands apart from validation because pruning and defaulting come before it and need only the skeleton: `validator` reads
the same schema for everything that judges values. Made once for each version of a definition.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pilotage.api import timestamp

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

Json = Mapping[str, Any]
EMBEDDED_FIELDS = frozenset(("apiVersion", "kind", "metadata"))

# Words CEL keeps for itself; a field of that name is written `__namespace__`.
_RESERVED = frozenset(
    ("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
     "let", "loop", "package", "namespace", "return", "var", "void", "while")
)  # fmt: skip
_ESCAPES = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSource:
    """One entry of `x-kubernetes-validations`."""

    rule: str
    message: str = ""
    message_expression: str = ""
    reason: str = "FieldValueInvalid"
    field_path: str = ""
    optional_old: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Node:
    """One node of a shape."""

    type: str = ""  # "" for anything; int-or-string has its own name
    format: str = ""
    nullable: bool = False
    properties: dict[str, Node] = field(default_factory=dict)
    additional: Node | None = None  # value of a map
    items: Node | None = None
    preserve: bool = False
    embedded: bool = False
    default: bytes | None = None  # JSON
    list_type: str = "atomic"
    list_keys: tuple[str, ...] = ()
    rules: tuple[RuleSource, ...] = ()
    defaults_below: bool = False
    rules_below: bool = False
    sets_below: bool = False
    renamed: dict[str, str] = field(default_factory=dict)  # field → how CEL calls it
    converted: bool = False  # whether values differ from their JSON form when CEL reads them, here or below

    def children(self) -> tuple[Node, ...]:
        """The nodes one level below."""
        return (*self.properties.values(), *(node for node in (self.additional, self.items) if node is not None))


def shape_of(schema: Json) -> Node:
    """The shape of a structural schema."""
    integer_or_string = bool(schema.get("x-kubernetes-int-or-string"))
    node = Node(
        type="int-or-string" if integer_or_string else str(schema.get("type") or ""),
        format=str(schema.get("format") or ""),
        nullable=bool(schema.get("nullable")),
        properties={name: shape_of(child) for name, child in (schema.get("properties") or {}).items()},
        preserve=bool(schema.get("x-kubernetes-preserve-unknown-fields")),
        embedded=bool(schema.get("x-kubernetes-embedded-resource")),
        default=_encode(schema["default"]) if schema.get("default") is not None else None,
        list_type=schema.get("x-kubernetes-list-type") or "atomic",
        list_keys=tuple(schema.get("x-kubernetes-list-map-keys") or ()),
        rules=tuple(_rule(rule) for rule in schema.get("x-kubernetes-validations") or ()),
    )
    additional, items = schema.get("additionalProperties"), schema.get("items")
    if isinstance(additional, dict):
        node.additional = shape_of(additional)
    elif additional is True:
        node.preserve = True
    if isinstance(items, dict):
        node.items = shape_of(items)
    for name in node.properties:
        if (escaped := escape(name)) != name:
            node.renamed[name] = escaped
    children = node.children()
    node.defaults_below = any(child.defaults_below or child.default is not None for child in children)
    node.rules_below = bool(node.rules) or any(child.rules_below for child in children)
    node.sets_below = node.list_type in ("set", "map") or any(child.sets_below for child in children)
    node.converted = (
        bool(node.renamed)
        or node.type == "number"
        or (node.type == "string" and node.format in _CONVERSIONS)
        or any(child.converted for child in children)
    )
    return node


def _rule(source: Json) -> RuleSource:
    return RuleSource(
        rule=source.get("rule", ""),
        message=source.get("message") or "",
        message_expression=source.get("messageExpression") or "",
        reason=source.get("reason") or "FieldValueInvalid",
        field_path=source.get("fieldPath") or "",
        optional_old=bool(source.get("optionalOldSelf")),
    )


def escape(name: str) -> str:
    """A field's name as CEL writes it."""
    if name in _RESERVED:
        return f"__{name}__"
    escaped = name
    for text, replacement in _ESCAPES:
        escaped = escaped.replace(text, replacement)
    return escaped if _IDENTIFIER.fullmatch(escaped) else name


def prune(value: Any, node: Node, unknown: list[str], path: str = "", *, root: bool = False) -> Any:
    """The value without fields the shape does not know, whose paths are added to `unknown`."""
    if type(value) is dict:
        properties, additional = node.properties, node.additional
        kept: dict[str, Any] = {}
        for name, item in value.items():
            child = properties.get(name)
            here = f"{path}.{name}" if path else name
            if (root or node.embedded) and name in EMBEDDED_FIELDS:
                kept[name] = item
            elif child is not None:
                # A null where none may be means nothing was said.
                if item is not None or child.nullable or child.default is not None:
                    kept[name] = prune(item, child, unknown, here)
            elif additional is not None:
                kept[name] = prune(item, additional, unknown, here)
            elif node.preserve or node.type != "object":
                kept[name] = item
            else:
                unknown.append(here)
        return kept
    if type(value) is list and node.items is not None:
        items = node.items
        return [prune(item, items, unknown, f"{path}[{index}]") for index, item in enumerate(value)]
    return value


def fill(value: Any, node: Node) -> None:
    """Set the defaults of fields that are absent, in place."""
    if not node.defaults_below:
        return
    if type(value) is dict:
        for name, child in node.properties.items():
            if child.default is not None and (name not in value or (value[name] is None and not child.nullable)):
                value[name] = _decode(child.default)
            if name in value:
                fill(value[name], child)
        if node.additional is not None:
            for name, item in value.items():
                if name not in node.properties:
                    fill(item, node.additional)
    elif type(value) is list and node.items is not None:
        for item in value:
            fill(item, node.items)


def for_rules(value: Any, node: Node) -> Any:
    """A value as CEL sees it: times as times, numbers as doubles, fields under names that CEL can write."""
    if not node.converted:
        return value
    if type(value) is dict:
        renamed, properties, additional = node.renamed, node.properties, node.additional
        converted: dict[str, Any] = {}
        for name, item in value.items():
            child = properties.get(name) or additional
            called = str(renamed.get(name, name))
            converted[called] = item if child is None else for_rules(item, child)
        return converted
    if type(value) is list and node.items is not None:
        return [for_rules(item, node.items) for item in value]
    if node.type == "number" and type(value) is int:
        return float(value)
    if node.type == "string" and isinstance(value, str) and (convert := _CONVERSIONS.get(node.format)):
        try:
            return convert(value)
        except ValueError:
            return value  # validation has said so
    return value


def cel_type(node: Node) -> str:
    """The name of the CEL type of `self`; objects are looked into when they are evaluated."""
    if node.nullable:
        return "dyn"
    match node.type:
        case "string":
            return _TYPES.get(node.format, "string")
        case "integer":
            return "int"
        case "number":
            return "double"
        case "boolean":
            return "bool"
        case "array" if node.items is not None:
            return f"list<{cel_type(node.items)}>"
        case "object" if node.additional is not None:
            return f"map<{cel_type(node.additional)}>"
        case _:
            return "dyn"


_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> datetime.timedelta:
    """`1h30m`, as Go writes durations. Raises ValueError."""
    sign = -1 if text.startswith("-") else 1
    rest = text.lstrip("+-")
    if rest == "0":
        return datetime.timedelta()
    parts = _DURATION_PART.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise ValueError(f"{text[:80]!r} is no duration")
    return sign * datetime.timedelta(seconds=sum(float(number) * _UNITS_S[unit] for number, unit in parts))


def _midnight(text: str) -> datetime.datetime:
    return datetime.datetime.combine(datetime.date.fromisoformat(text), datetime.time(), datetime.UTC)


def _bytes(text: str) -> bytes:
    import base64

    return base64.b64decode(text, validate=True)


_CONVERSIONS: Mapping[str, Callable[[str], Any]] = {
    "date-time": timestamp.parse,
    "datetime": timestamp.parse,
    "date": _midnight,
    "duration": duration,
    "byte": _bytes,
}
_TYPES = {
    "date-time": "timestamp",
    "datetime": "timestamp",
    "date": "timestamp",
    "duration": "duration",
    "byte": "bytes",
}
