"""Reading request bodies in Kubernetes' protobuf encoding.

Typed Go clients, kubectl's `create` commands among them, send built-in kinds as protobuf and give up when a server
cannot read it. Only reading is needed: every such client also accepts JSON. The numbers of the fields, which the
published schema does not state, are in `protobuf_fields.json` (see tools/protobuf-fields); names and structure are the
schema's. Called by the API server's body reader. Leaves out writing, and custom resources, which have no such encoding.

Source: Kubernetes "API concepts", "Protobuf encoding"; protobuf.dev "Encoding".
"""

from __future__ import annotations

import base64
import importlib.resources
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec

from pilotage.api.catalogue import by_api_version
from pilotage.kit.errors import PilotageError

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
DEPTH_MAX = 64  # deeper than any built-in kind; JSONSchemaProps nests and is not read here

# Bodies that are no resources; DeleteOptions come under any group-version.
_BODIES = {
    "DeleteOptions": "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "TokenRequest": "io.k8s.api.authentication.v1.TokenRequest",
    "Scale": "io.k8s.api.autoscaling.v1.Scale",
    "Eviction": "io.k8s.api.policy.v1.Eviction",
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class ProtobufError(PilotageError):
    """The bytes are no Kubernetes protobuf document."""


class UnknownKindError(ProtobufError):
    """Well-formed, but of a kind that has no protobuf encoding here."""


@cache
def _tables() -> dict[str, dict[int, tuple[str, ...]]]:
    """Definition → number → (JSON name, shape[, definition held]); read once, when the first such body arrives."""
    text = importlib.resources.files("pilotage.api").joinpath("protobuf_fields.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, dict[int, tuple[str, ...]]])


def envelope(body: bytes) -> tuple[str, str, bytes]:
    """apiVersion, kind and the encoded object (runtime.Unknown); raises `ProtobufError`."""
    if not body.startswith(MAGIC):
        raise ProtobufError("the body does not start with the protobuf marker of Kubernetes")
    meta = raw = b""
    for number, _, value in _fields(body[len(MAGIC) :]):
        if number == 1:
            meta = _as_bytes(value)
        elif number == 2:
            raw = _as_bytes(value)
    kinds = {number: _as_bytes(value).decode("utf-8", "replace") for number, _, value in _fields(meta)}
    return kinds.get(1, ""), kinds.get(2, ""), raw


def decode(body: bytes) -> dict[str, Any]:
    """The document that JSON would have carried; raises `ProtobufError`.

    Zero values of fields that are not optional are left out, as Go's `omitempty` does for JSON.
    """
    api_version, kind, raw = envelope(body)
    resource = by_api_version(api_version, kind)
    definition = resource.schema if resource is not None else _BODIES.get(kind, "")
    if definition not in _tables():
        raise UnknownKindError(f"{kind} of {api_version} has no protobuf encoding")
    return {"apiVersion": api_version, "kind": kind} | _message(raw, definition, 0)


def _message(data: bytes, definition: str, depth: int) -> dict[str, Any]:
    if depth > DEPTH_MAX:
        raise ProtobufError(f"nested deeper than {DEPTH_MAX}")
    table = _tables()[definition]
    document: dict[str, Any] = {}
    for number, wire, value in _fields(data):
        field = table.get(number)
        if field is None:
            continue  # a field of a later version: ignored, as protobuf asks
        name, shape = field[0], field[1]
        held = field[2] if len(field) > 2 else ""
        optional = shape.startswith("?")
        shape = shape.removeprefix("?")
        if not name:  # an inlined struct: its fields are ours in JSON
            document |= _message(_as_bytes(value), held, depth + 1)
        elif shape.startswith("*"):
            items = document.setdefault(name, [])
            if wire == _BYTES and shape == "*i":
                items.extend(_packed(_as_bytes(value)))
            else:
                items.append(_value(value, shape[1:].removeprefix("?"), held, depth))
        elif shape.startswith("%"):
            key, item = _map_entry(_as_bytes(value), shape[1:], held, depth)
            document.setdefault(name, {})[key] = item
        else:
            decoded = _value(value, shape, held, depth)
            if decoded is not None and (optional or decoded not in ("", 0, False, {})):
                document[name] = decoded
    return document


def _map_entry(data: bytes, shape: str, held: str, depth: int) -> tuple[str, Any]:
    key, item = "", None
    for number, _, value in _fields(data):
        if number == 1:
            key = _as_bytes(value).decode("utf-8", "replace")
        elif shape.startswith("*"):  # authentication's ExtraValue: a message that holds a list
            item = [_value(one, shape[1:], held, depth) for _, _, one in _fields(_as_bytes(value))]
        else:
            item = _value(value, shape.removeprefix("?"), held, depth)
    return key, "" if item is None and shape in ("s", "y") else item


def _value(value: int | bytes, shape: str, held: str, depth: int) -> Any:
    match shape:
        case "o":
            return bool(value)
        case "i":
            number = value if isinstance(value, int) else 0
            return number - (1 << 64) if number >= 1 << 63 else number
        case "s":
            try:
                return _as_bytes(value).decode()
            except UnicodeDecodeError as error:
                raise ProtobufError("a string is not UTF-8") from error
        case "y":
            return base64.b64encode(_as_bytes(value)).decode()
        case "m":
            return _special(_as_bytes(value), held, depth)
    raise ProtobufError(f"fields of shape {shape!r} are not understood")


def _special(data: bytes, definition: str, depth: int) -> Any:
    """A message; some are written in JSON as something simpler."""
    match definition.rpartition(".")[2]:
        case "Quantity":
            return next((_as_bytes(value).decode() for number, _, value in _fields(data) if number == 1), "0")
        case "IntOrString":
            union = {number: value for number, _, value in _fields(data)}
            return (
                _value(union.get(3, b""), "s", "", depth)
                if union.get(1) == 1
                else _value(union.get(2, 0), "i", "", depth)
            )
        case "Time" | "MicroTime" as kind:
            parts = {number: _value(value, "i", "", depth) for number, _, value in _fields(data)}
            if not parts:
                return None  # Go's zero time
            try:
                moment = datetime.fromtimestamp(parts.get(1, 0), UTC)
            except (OverflowError, ValueError, OSError) as error:
                raise ProtobufError("a time is out of range") from error
            micro = f".{int(parts.get(2, 0)) // 1000:06d}" if kind == "MicroTime" else ""
            return f"{moment:%Y-%m-%dT%H:%M:%S}{micro}Z"
        case "RawExtension" | "FieldsV1":
            raw = next((_as_bytes(value) for number, _, value in _fields(data) if number == 1), b"null")
            try:
                return msgspec.json.decode(raw)
            except msgspec.DecodeError as error:
                raise ProtobufError("an embedded document is not JSON") from error
    if definition not in _tables():
        raise UnknownKindError(f"{definition} has no protobuf encoding here")
    return _message(data, definition, depth + 1)


def _fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(number, wire type, value) of each field; the value is an integer or bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ProtobufError(f"wire type {wire} is not used by Kubernetes")
        if at + length > end:
            raise ProtobufError("the body ends in the middle of a field")
        yield number, wire, data[at : at + length]
        at += length


def _packed(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value - (1 << 64) if value >= 1 << 63 else value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ProtobufError("the body ends in the middle of a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ProtobufError("a number stands where text or a message belongs")
    return value
