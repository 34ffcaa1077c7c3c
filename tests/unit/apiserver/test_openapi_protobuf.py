"""The v2 document in protobuf, read back by a reader that knows only the wire format."""

from collections.abc import Iterator

import msgspec

from pilotage.api.catalogue import BUILTIN
from pilotage.apiserver.core.openapi import v2_document
from pilotage.apiserver.core.openapi_protobuf import encode


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        key = varint()
        match key & 7:
            case 0:
                yield key >> 3, varint()
            case 1:
                position += 8
                yield key >> 3, data[position - 8 : position]
            case 2:
                length = varint()
                position += length
                yield key >> 3, data[position - length : position]


def inner(data: bytes, *path: int) -> list[bytes]:
    """Every message or string found by following the numbers."""
    found = [data]
    for number in path:
        found = [value for item in found for n, value in fields(item) if n == number and isinstance(value, bytes)]
    return found


def test_every_definition_and_path_is_there() -> None:
    document = msgspec.json.decode(v2_document(BUILTIN, "v1"))
    encoded = encode(document)
    assert inner(encoded, 1) == [b"2.0"]
    assert inner(encoded, 9, 1, 1) == [name.encode() for name in document["definitions"]]
    assert inner(encoded, 8, 2, 1) == [path.encode() for path in document["paths"]]


def test_a_schema_keeps_its_properties_types_and_extensions() -> None:
    schema = {
        "type": "object",
        "description": "Ä",
        "required": ["a"],
        "properties": {
            "a": {"type": "array", "items": {"$ref": "#/definitions/B"}, "maxItems": 300},
            "b": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
            "c": {"type": "number", "minimum": 0.5, "minLength": -1},
        },
        "x-kubernetes-group-version-kind": [{"group": "", "kind": "A", "version": "v1"}],
    }
    (encoded,) = inner(encode({"definitions": {"A": schema}}), 9, 1, 2)
    assert inner(encoded, 22, 1) == [b"object"]
    assert inner(encoded, 4) == ["Ä".encode()]
    assert inner(encoded, 19) == [b"a"]
    assert inner(encoded, 25, 1, 1) == [b"a", b"b", b"c"]
    assert inner(encoded, 25, 1, 2, 23, 1, 1) == [b"#/definitions/B"]
    assert (14, 300) in list(fields(inner(encoded, 25, 1, 2)[0]))
    assert inner(encoded, 25, 1, 2, 21, 1, 22, 1) == [b"string"]
    assert inner(encoded, 25, 1, 2, 5, 2) == [b"{}"]
    assert (12, 2**64 - 1) in list(fields(inner(encoded, 25, 1, 2)[2]))
    assert inner(encoded, 31, 1) == [b"x-kubernetes-group-version-kind"]
    assert msgspec.json.decode(inner(encoded, 31, 2, 2)[0]) == schema["x-kubernetes-group-version-kind"]


def test_parameters_say_where_they_stand() -> None:
    parameters = [
        {"name": "force", "in": "query", "type": "boolean", "uniqueItems": True},
        {"name": "name", "in": "path", "type": "string"},
        {"name": "body", "in": "body", "schema": {"type": "object"}},
    ]
    (operation,) = inner(encode({"paths": {"/a": {"patch": {"parameters": parameters}}}}), 8, 2, 2, 8)
    assert inner(operation, 8, 1, 2, 3, 4) == [b"force"]
    assert inner(operation, 8, 1, 2, 4, 4) == [b"name"]
    assert inner(operation, 8, 1, 1, 2) == [b"body"]
