"""The OpenAPI v2 document in the protobuf encoding that Go clients insist on.

client-go asks for `/openapi/v2` in no other form; kubectl falls back on it for what v3 does not describe (the kind
List), programs older than v3 know nothing else. Stands apart from `openapi` because it is an encoding, driven by one
table of messages, that knows nothing of resources. Pure, and takes a tenth of a second, so the caller keeps the bytes.
Leaves out reading, and the messages no document of ours contains (security, headers, examples, files).

Source: gnostic, openapiv2/OpenAPIv2.proto; protobuf.dev "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# What clients write in Accept; the first is older than the rule that a media type holds no `@`.
ASKED_FOR = ("com.github.proto-openapi.spec.v2@v1.0+protobuf", "com.github.proto-openapi.spec.v2.v1.0+protobuf")

_VARINT, _FIXED64, _BYTES = 0, 1, 2
_EXTENSION = "x-"

# Message → JSON field → (number, type). A type in brackets is repeated; one in braces is a map, kept as pairs of
# name (1) and value (2). `any` is a value as YAML, of which JSON is a part.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Document": {"swagger": (1, "string"), "info": (2, "Info"), "paths": (8, "Paths"), "definitions": (9, "Schemas")},
    "Info": {"title": (1, "string"), "version": (2, "string"), "description": (3, "string")},
    "Paths": {"*": (2, "{PathItem}")},
    "PathItem": {
        "get": (2, "Operation"),
        "put": (3, "Operation"),
        "post": (4, "Operation"),
        "delete": (5, "Operation"),
        "options": (6, "Operation"),
        "head": (7, "Operation"),
        "patch": (8, "Operation"),
        "parameters": (9, "[Parameter]"),
    },
    "Operation": {
        "tags": (1, "[string]"),
        "summary": (2, "string"),
        "description": (3, "string"),
        "operationId": (5, "string"),
        "produces": (6, "[string]"),
        "consumes": (7, "[string]"),
        "parameters": (8, "[Parameter]"),
        "responses": (9, "Responses"),
        "schemes": (10, "[string]"),
        "deprecated": (11, "bool"),
    },
    "BodyParameter": {
        "description": (1, "string"),
        "name": (2, "string"),
        "in": (3, "string"),
        "required": (4, "bool"),
        "schema": (5, "Schema"),
    },
    "QueryParameter": {
        "required": (1, "bool"),
        "in": (2, "string"),
        "description": (3, "string"),
        "name": (4, "string"),
        "type": (6, "string"),
        "format": (7, "string"),
        "uniqueItems": (20, "bool"),
    },
    "PathParameter": {
        "required": (1, "bool"),
        "in": (2, "string"),
        "description": (3, "string"),
        "name": (4, "string"),
        "type": (5, "string"),
        "format": (6, "string"),
        "uniqueItems": (19, "bool"),
    },
    "Responses": {"*": (1, "{ResponseValue}")},
    "ResponseValue": {"": (1, "Response")},
    "Response": {"description": (1, "string"), "schema": (2, "SchemaItem")},
    "SchemaItem": {"": (1, "Schema")},
    "Schemas": {"*": (1, "{Schema}")},
    "Schema": {
        "$ref": (1, "string"),
        "format": (2, "string"),
        "title": (3, "string"),
        "description": (4, "string"),
        "default": (5, "any"),
        "multipleOf": (6, "double"),
        "maximum": (7, "double"),
        "exclusiveMaximum": (8, "bool"),
        "minimum": (9, "double"),
        "exclusiveMinimum": (10, "bool"),
        "maxLength": (11, "int"),
        "minLength": (12, "int"),
        "pattern": (13, "string"),
        "maxItems": (14, "int"),
        "minItems": (15, "int"),
        "uniqueItems": (16, "bool"),
        "maxProperties": (17, "int"),
        "minProperties": (18, "int"),
        "required": (19, "[string]"),
        "enum": (20, "[any]"),
        "additionalProperties": (21, "AdditionalProperties"),
        "type": (22, "Strings"),
        "items": (23, "Items"),
        "allOf": (24, "[Schema]"),
        "properties": (25, "Schemas"),
        "discriminator": (26, "string"),
        "readOnly": (27, "bool"),
        "example": (30, "any"),
    },
}
# Message → the number of its `vendor_extension`.
_EXTENSIONS = {"Document": 16, "PathItem": 10, "Operation": 13, "QueryParameter": 23, "PathParameter": 22, "Schema": 31}


def encode(document: Mapping[str, Any]) -> bytes:
    """A v2 document as `openapi.v2.Document`. What the message cannot say is left out."""
    return _message("Document", document)


def _message(name: str, value: Any) -> bytes:
    match name:
        case "AdditionalProperties":
            return _field(2, "bool", value) if isinstance(value, bool) else _field(1, "Schema", value)
        case "Strings":
            return b"".join(_field(1, "string", item) for item in (value if isinstance(value, list) else [value]))
        case "Items":
            return _field(1, "Schema", value)
        case "Parameter":
            return _parameter(value)
        case "ResponseValue" | "SchemaItem":
            return _field(*_MESSAGES[name][""], value)
    return b"".join(_parts(name, value))


def _parts(name: str, value: Mapping[str, Any]) -> Iterator[bytes]:
    fields = _MESSAGES[name]
    if "*" in fields:
        number, shape = fields["*"]
        for key, item in value.items():
            yield _chunk(number, _field(1, "string", key) + _field(2, shape[1:-1], item))
        return
    for key, item in value.items():
        if key in fields:
            yield _field(*fields[key], item)
        elif key.startswith(_EXTENSION) and name in _EXTENSIONS:
            yield _chunk(_EXTENSIONS[name], _field(1, "string", key) + _field(2, "any", item))


def _parameter(value: Mapping[str, Any]) -> bytes:
    # ParametersItem { Parameter { BodyParameter | NonBodyParameter { … } } }
    place = value.get("in")
    if place == "body":
        return _chunk(1, _chunk(1, _message("BodyParameter", value)))
    query = place == "query"
    inner = _chunk(3 if query else 4, _message("QueryParameter" if query else "PathParameter", value))
    return _chunk(1, _chunk(2, inner))


def _field(number: int, shape: str, value: Any) -> bytes:
    if shape.startswith("["):
        return b"".join(_field(number, shape[1:-1], item) for item in value)
    match shape:
        case "string":
            return _chunk(number, str(value).encode())
        case "bool" | "int":
            return _varint(number << 3 | _VARINT) + _varint(int(value))
        case "double":
            return _varint(number << 3 | _FIXED64) + struct.pack("<d", float(value))
        case "any":
            return _chunk(number, _chunk(2, msgspec.json.encode(value)))
    return _chunk(number, _message(shape, value))


def _chunk(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value & 0x7F,)) if value >= 0 else _varint(value + (1 << 64))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
