import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.api import protobuf
from pilotage.api.protobuf import MAGIC, ProtobufError, UnknownKindError, decode


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    return MAGIC + field(1, field(1, api_version) + field(2, kind)) + field(2, raw)


NAMED = field(1, field(1, "a"))  # metadata.name


CASES = {
    "map": ("ConfigMap", field(2, field(1, "k") + field(2, "v")), {"data": {"k": "v"}}),
    "empty value of a map": ("ConfigMap", field(2, field(1, "k")), {"data": {"k": ""}}),
    "bytes": ("Secret", field(2, field(1, "k") + field(2, b"\xff")), {"data": {"k": "/w=="}}),
    "an optional false is kept": ("Secret", field(5, 0), {"immutable": False}),
    "an optional zero is kept": ("Pod", field(2, field(4, 0)), {"spec": {"terminationGracePeriodSeconds": 0}}),
    "named port": (
        "Service",
        field(2, field(1, field(3, 80) + field(4, field(1, 1) + field(3, "http")))),
        {"spec": {"ports": [{"port": 80, "targetPort": "http"}]}},
    ),
    "numbered port": (
        "Service",
        field(2, field(1, field(3, 80) + field(4, field(2, 8080)))),
        {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}},
    ),
    "inlined struct": (
        "Pod",
        field(2, field(1, field(1, "v") + field(2, field(2, b"")))),
        {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
    ),
    "empty structs and unknown fields go": ("Pod", field(2, b"") + field(3, b"") + field(99, "later"), {}),
}


@pytest.mark.parametrize(("kind", "raw", "expected"), CASES.values(), ids=CASES)
def test_what_json_would_have_said(kind: str, raw: bytes, expected: dict[str, Any]) -> None:
    assert (
        decode(body("v1", kind, NAMED + raw))
        == {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}} | expected
    )


def test_times_and_zero_times() -> None:
    meta = field(1, "a") + field(8, b"") + field(9, field(1, 1_767_225_600))
    assert decode(body("v1", "ConfigMap", field(1, meta)))["metadata"] == {
        "name": "a",
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    }


def test_negative_numbers() -> None:
    document = decode(body("scheduling.k8s.io/v1", "PriorityClass", NAMED + field(2, -5)))
    assert document["value"] == -5


def test_options_come_under_any_group() -> None:
    assert decode(body("apps/v1", "DeleteOptions", field(1, 0) + field(4, "Orphan")))["propagationPolicy"] == "Orphan"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ProtobufError),
        (b"{}", ProtobufError),
        (MAGIC + b"\x0a\xff", ProtobufError),
        (body("v1", "Nonsense", b""), UnknownKindError),
        (body("v1", "Pod", b"\x0f"), ProtobufError),
        (body("v1", "Pod", field(1, field(1, b"\xff"))), ProtobufError),
        (body("v1", "Pod", field(1, 7)), ProtobufError),
    ],
)
def test_nonsense_is_refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        decode(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for wrapped in (data, body("v1", "Pod", data), body("apps/v1", "Deployment", data)):
        with contextlib.suppress(ProtobufError):
            decode(wrapped)


def test_every_number_table_names_only_what_exists() -> None:
    tables = protobuf._tables()
    special = {"Quantity", "IntOrString", "Time", "MicroTime", "RawExtension", "FieldsV1", "Duration"}
    held = {field[2] for table in tables.values() for field in table.values() if len(field) > 2}
    assert {name for name in held if name not in tables and name.rpartition(".")[2] not in special} == set()
