"""Is a value what its schema says? JSON Schema as far as Kubernetes takes it, compiled to closures.

Stands apart from `shape`: here every keyword that judges counts, inside `allOf`, `anyOf`, `oneOf` and `not` too. Errors
are worded as users of Kubernetes know them. What an update leaves unchanged is not judged again, so that a stricter
schema does not lock the objects that are already there (KEP-4008, ratcheting).
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pilotage.api import schema_names as names
from pilotage.api import timestamp
from pilotage.api.schema_problems import Problems, printed
from pilotage.api.status import FieldError
from pilotage.apiserver.cel import PatternError, pattern
from pilotage.apiserver.custom.shape import duration

MISSING: Any = object()
# value, path, where errors go, the value it replaces (MISSING when there is none)
Check = Callable[[Any, str, Problems, Any], None]
Json = Mapping[str, Any]
_Keyword = Callable[[Any, str, Problems], None]


def validator(schema: Json) -> Check:
    """The check of one node and all below it."""
    types = _types(schema)
    nullable = bool(schema.get("nullable"))
    keywords = _keywords(schema)
    required = tuple(schema.get("required") or ())
    properties = {name: validator(child) for name, child in (schema.get("properties") or {}).items()}
    additional, items = schema.get("additionalProperties"), schema.get("items")
    check_value = validator(additional) if isinstance(additional, dict) else None
    check_item = validator(items) if isinstance(items, dict) else None
    junctors = _junctors(schema)
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))

    def check(value: Any, path: str, problems: Problems, old: Any) -> None:
        if old is not MISSING and old == value:
            return
        if value is None and (nullable or not types):
            return
        if types and not any(_is(value, each) for each in types):
            wrong = _type_name(value)
            text = f'{path or "<nil>"} in body must be of type {",".join(types)}: "{wrong}"'
            problems.errors.append(_type_invalid(path, wrong, text))
            return
        for keyword in keywords:
            keyword(value, path, problems)
        for junctor in junctors:
            junctor(value, path, problems)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            prefix = f"{path}." if path else ""
            if embedded:
                _check_embedded(value, prefix, problems)
            for name in required:
                if name not in value:
                    problems.required(prefix + name)
            for name, item in value.items():
                below = properties.get(name) or check_value
                if below is not None:
                    below(item, prefix + name, problems, before.get(name, MISSING))
        elif isinstance(value, list) and check_item is not None:
            before_items = old if isinstance(old, list) else []
            for index, item in enumerate(value):
                was = before_items[index] if index < len(before_items) else MISSING
                check_item(item, f"{path}[{index}]", problems, was)

    return check


def matches(schema: Json, value: Any) -> bool:
    """Whether the value is free of errors."""
    problems = Problems()
    validator(schema)(value, "", problems, MISSING)
    return not problems.errors


def _type_invalid(path: str, wrong: str, text: str) -> FieldError:
    return FieldError(field=path, reason="FieldValueTypeInvalid", message=f'Invalid value: "{wrong}": {text}')


def _types(schema: Json) -> tuple[str, ...]:
    if schema.get("x-kubernetes-int-or-string"):
        return ("integer", "string")
    return (schema["type"],) if schema.get("type") else ()


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            whole = isinstance(value, float) and value.is_integer()
            return whole or (isinstance(value, int) and not isinstance(value, bool))
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return True


def _type_name(value: Any) -> str:
    for name in ("object", "array", "string", "boolean", "integer", "number"):
        if _is(value, name):
            return name
    return "null"


# Keywords about one value


def _keywords(schema: Json) -> tuple[_Keyword, ...]:
    return tuple(make(schema[name], schema) for name, make in _MAKERS.items() if schema.get(name) is not None)


def _number(
    symbol: str, wrong: Callable[[Any, Any], bool], wrong_when_exclusive: Callable[[Any, Any], bool], flag: str
) -> Any:
    def make(limit: Any, schema: Json) -> _Keyword:
        exclusive = bool(schema.get(flag))
        failing = wrong_when_exclusive if exclusive else wrong
        text = f"should be {symbol} than {'' if exclusive else 'or equal to '}{printed(limit)}"

        def check(value: Any, path: str, problems: Problems) -> None:
            if isinstance(value, int | float) and not isinstance(value, bool) and failing(value, limit):
                problems.invalid(path, value, f"{path} in body {text}")

        return check

    return make


def _multiple(factor: Any, schema: Json) -> _Keyword:
    def check(value: Any, path: str, problems: Problems) -> None:
        if isinstance(value, int | float) and not isinstance(value, bool) and factor and (value / factor) % 1:
            problems.invalid(path, value, f"{path} in body should be a multiple of {printed(factor)}")

    return check


def _min_length(limit: int, schema: Json) -> _Keyword:
    def check(value: Any, path: str, problems: Problems) -> None:
        if isinstance(value, str) and len(value) < limit:
            problems.invalid(path, value, f"{path} in body should be at least {limit} chars long")

    return check


def _max_length(limit: int, schema: Json) -> _Keyword:
    def check(value: Any, path: str, problems: Problems) -> None:
        if isinstance(value, str) and len(value) > limit:
            problems.too_long(path, limit)

    return check


def _pattern(text: str, schema: Json) -> _Keyword:
    def check(value: Any, path: str, problems: Problems) -> None:
        if not isinstance(value, str):
            return
        try:
            found = pattern(text).search(value)
        except PatternError:
            found = None
        if found is None:
            problems.invalid(path, value, f"{path} in body should match '{text}'")

    return check


def _count(kind: type[list[Any]] | type[dict[str, Any]], what: str, *, least: bool) -> Any:
    def make(limit: int, schema: Json) -> _Keyword:
        def check(value: Any, path: str, problems: Problems) -> None:
            if not isinstance(value, kind):
                return
            if least and len(value) < limit:
                problems.invalid(path, value, f"{path} in body should have at least {limit} {what}")
            elif not least and len(value) > limit:
                problems.too_many(path, len(value), limit)

        return check

    return make


def _enum(values: list[Any], schema: Json) -> _Keyword:
    def check(value: Any, path: str, problems: Problems) -> None:
        if not any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in values):
            problems.unsupported(path, value, [item if isinstance(item, str) else printed(item) for item in values])

    return check


def _format(name: str, schema: Json) -> _Keyword:
    holds, limit = FORMATS.get(name), _RANGES.get(name)

    def check(value: Any, path: str, problems: Problems) -> None:
        malformed = holds is not None and isinstance(value, str) and not holds(value)
        if malformed or (limit and isinstance(value, int) and not -limit <= value < limit):
            problems.invalid(path, value, f"{path} in body must be of type {name}: {printed(value)}")

    return check


_MAKERS: Mapping[str, Callable[[Any, Json], _Keyword]] = {
    "maximum": _number("less", lambda a, b: a > b, lambda a, b: a >= b, "exclusiveMaximum"),
    "minimum": _number("greater", lambda a, b: a < b, lambda a, b: a <= b, "exclusiveMinimum"),
    "multipleOf": _multiple,
    "minLength": _min_length,
    "maxLength": _max_length,
    "pattern": _pattern,
    "minItems": _count(list, "items", least=True),
    "maxItems": _count(list, "items", least=False),
    "minProperties": _count(dict, "properties", least=True),
    "maxProperties": _count(dict, "properties", least=False),
    "enum": _enum,
    "format": _format,
}


# Junctors


def _junctors(schema: Json) -> tuple[_Keyword, ...]:
    found: list[_Keyword] = []
    for name, wanted, text in (
        ("allOf", lambda count, total: count == total, "must validate all the schemas (allOf)"),
        ("anyOf", lambda count, total: count > 0, "must validate at least one schema (anyOf)"),
        ("oneOf", lambda count, total: count == 1, "must validate one and only one schema (oneOf)"),
    ):
        if schema.get(name):
            found.append(_junctor([validator(each) for each in schema[name]], wanted, text, name))
    if schema.get("not") is not None:
        unwanted = validator(schema["not"])

        def check(value: Any, path: str, problems: Problems) -> None:
            if _holds(unwanted, value):
                problems.invalid(path, value, f'"{path or "<nil>"}" must not validate the schema (not)')

        found.append(check)
    return tuple(found)


def _junctor(checks: list[Check], wanted: Callable[[int, int], bool], text: str, name: str) -> _Keyword:
    def check(value: Any, path: str, problems: Problems) -> None:
        count = sum(_holds(each, value) for each in checks)
        if wanted(count, len(checks)):
            return
        if name == "oneOf":
            how_many = "Found none valid" if not count else f"Found {count} valid alternatives"
            problems.invalid(path, value, f'"{path or "<nil>"}" {text}. {how_many}')
        else:
            problems.invalid(path, value, f'"{path or "<nil>"}" {text}')
        if name == "allOf" or (name == "anyOf" and len(checks) == 1):
            for each in checks:
                each(value, path, problems, MISSING)

    return check


def _holds(check: Check, value: Any) -> bool:
    problems = Problems()
    check(value, "", problems, MISSING)
    return not problems.errors


def _check_embedded(value: dict[str, Any], prefix: str, problems: Problems) -> None:
    for name in ("apiVersion", "kind"):
        if not value.get(name):
            problems.required(prefix + name, "must not be empty")


# Formats


def _succeeds(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def holds(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return holds


_MAC = re.compile(r"([0-9A-Fa-f]{2}([:-]))(?:[0-9A-Fa-f]{2}\2){4}[0-9A-Fa-f]{2}|(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}")
_EMAIL = re.compile(r"[^@\s<>]{1,64}@[^@\s<>]{1,255}")

FORMATS: Mapping[str, Callable[[str], bool]] = {
    "ipv4": _succeeds(ipaddress.IPv4Address),
    "ipv6": _succeeds(ipaddress.IPv6Address),
    "cidr": lambda text: "/" in text and _succeeds(ipaddress.ip_interface)(text),
    "mac": lambda text: _MAC.fullmatch(text) is not None,
    "uuid": _succeeds(uuid.UUID),
    "date": _succeeds(datetime.date.fromisoformat),
    "date-time": _succeeds(timestamp.parse),
    "datetime": _succeeds(timestamp.parse),
    "duration": _succeeds(duration),
    "byte": _succeeds(lambda text: base64.b64decode(text, validate=True)),
    "hostname": lambda text: names.dns_subdomain(text.lower()) is None,
    "email": lambda text: _EMAIL.fullmatch(text) is not None,
    "uri": lambda text: bool(_succeeds(urlsplit)(text) and urlsplit(text).scheme),
}
_RANGES = {"int32": 2**31, "int64": 2**63}
