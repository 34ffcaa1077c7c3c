"""JSON and YAML to values and back: the one place where Python's names and the wire's names meet.

Stands apart so that snake_case ↔ camelCase is decided once (`wire_name`) and so that `Any` stays at this edge. Feeds
every typed module of `api`; called by `client` and by tests. Leaves out defaulting and validation (`schema`).
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, TypeVar, cast, dataclass_transform, get_origin

import msgspec
import yaml

# Words the Kubernetes API writes in capitals when they are not the first word of a field (clusterIP, podCIDRs).
_CAPITALS = {
    "ip": "IP",
    "ips": "IPs",
    "cidr": "CIDR",
    "cidrs": "CIDRs",
    "id": "ID",
    "uuid": "UUID",
    "pid": "PID",
    "ipc": "IPC",
    "urls": "URLs",
    "url": "URL",
    "fqdn": "FQDN",
    "api": "API",
    "ca": "CA",
    "tls": "TLS",
}

T = TypeVar("T")


def wire_name(name: str) -> str:
    """`pod_ips` → `podIPs`; the first word stays lower-case, a trailing underscore (Python keyword) is dropped."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(_CAPITALS.get(word, word.capitalize()) for word in rest)


def _same(value: T) -> T:
    return value


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class _ValueMeta(msgspec.StructMeta):
    """Makes every subclass of `Value` frozen and keyword-only without each having to say so.

    Only empty values are left out when they equal their default. One such as `protocol: TCP` is always written: the API
    requires some of them, and an applied configuration must state what it means to own.
    """

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> "_ValueMeta":
        for field, annotation in namespace.get("__annotations__", {}).items():
            value = namespace.get(field)
            # A default that a function makes is never left out.
            if value and isinstance(value, str | int | float) and get_origin(annotation) is not ClassVar:
                namespace[field] = msgspec.field(default_factory=partial(_same, value))
        defaults: dict[str, Any] = {"frozen": True, "kw_only": True, "omit_defaults": True, "rename": wire_name}
        return super().__new__(mcls, name, bases, namespace, **(defaults | options))


class Value(msgspec.Struct, metaclass=_ValueMeta):
    """Any part of an API object: immutable, compared by value, unknown fields ignored when decoded."""


_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def decode(kind: type[T], data: bytes) -> T:
    """JSON bytes → `kind`; raises `msgspec.ValidationError` naming the JSON path.

    Go writes empty slices and maps without `omitempty` as null (EndpointSlice.endpoints); those are read as absent,
    at the price of a second pass that only such documents pay.
    """
    try:
        decoder = _decoders.get(kind)
        if decoder is None:
            decoder = _decoders[kind] = msgspec.json.Decoder(kind)
        return cast(T, decoder.decode(data))
    except msgspec.ValidationError:
        return convert(kind, msgspec.json.decode(data))


def convert(kind: type[T], value: object) -> T:
    """An already decoded document → `kind`."""
    return msgspec.convert(without_nulls(value), kind)


def without_nulls(value: Any) -> Any:
    """A copy without mapping entries whose value is null."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def to_wire(value: object) -> Any:
    """A typed value → dict of JSON types with the wire's names; defaults are left out, kind and apiVersion are not."""
    document = msgspec.to_builtins(value)
    kind = getattr(type(value), "kind", None)
    if isinstance(kind, str) and isinstance(document, dict):
        return {"apiVersion": type(value).api_version, "kind": kind, **document}  # type: ignore[attr-defined]
    return document


def encode(value: object) -> bytes:
    """A typed value or a plain document → JSON bytes."""
    return msgspec.json.encode(to_wire(value))


# The C loader is some ten times faster; PyYAML ships without it on a few platforms only.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _YamlLoader(_SafeLoader):  # type: ignore[misc]
    """YAML as Kubernetes reads it: timestamps stay text, as JSON has none."""


_YamlLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}


def load_yaml(text: str | bytes) -> list[Any]:
    """Every non-empty document of a YAML (or JSON) stream; raises `yaml.YAMLError` with line and column."""
    return [document for document in yaml.load_all(text, _YamlLoader) if document is not None]


def dump_yaml(documents: Iterable[object]) -> str:
    """Documents as one YAML stream, keys in the order given."""
    return yaml.safe_dump_all([msgspec.to_builtins(document) for document in documents], sort_keys=False)
