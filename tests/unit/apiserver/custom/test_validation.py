"""What a schema keeps, fills in and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.api.schema_problems import Problems
from pilotage.apiserver.custom.definition import resources_of
from pilotage.apiserver.custom.shape import escape, fill, for_rules, prune, shape_of
from pilotage.apiserver.custom.validator import MISSING, validator

Schema = dict[str, Any]


def errors(schema: Schema, value: Any, old: Any = MISSING) -> list[tuple[str, str, str]]:
    problems = Problems()
    validator({"type": "object", "properties": {"v": schema}})(
        {"v": value}, "", problems, MISSING if old is MISSING else {"v": old}
    )
    return [(each.field, each.reason.removeprefix("FieldValue"), each.message) for each in problems.errors]


@pytest.mark.parametrize(
    ("schema", "good", "bad", "reason", "message"),
    [
        ({"type": "integer"}, 1, "x", "TypeInvalid", 'v in body must be of type integer: "string"'),
        ({"type": "integer"}, 1.0, 1.5, "TypeInvalid", 'v in body must be of type integer: "number"'),
        ({"type": "number"}, 1, True, "TypeInvalid", 'must be of type number: "boolean"'),
        ({"type": "boolean"}, False, 0, "TypeInvalid", 'must be of type boolean: "integer"'),
        ({"type": "string"}, "", None, "TypeInvalid", 'must be of type string: "null"'),
        ({"type": "string", "nullable": True}, None, 1, "TypeInvalid", "must be of type string"),
        ({"x-kubernetes-int-or-string": True}, "80%", True, "TypeInvalid", "must be of type integer,string"),
        ({"type": "integer", "minimum": 1}, 1, 0, "Invalid", "v in body should be greater than or equal to 1"),
        (
            {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
            2,
            1,
            "Invalid",
            "v in body should be greater than 1",
        ),
        ({"type": "integer", "maximum": 3}, 3, 4, "Invalid", "v in body should be less than or equal to 3"),
        ({"type": "number", "multipleOf": 0.5}, 1.5, 1.7, "Invalid", "v in body should be a multiple of 0.5"),
        ({"type": "integer", "format": "int32"}, 2**31 - 1, 2**31, "Invalid", "must be of type int32: 2147483648"),
        ({"type": "string", "minLength": 2}, "éé", "é", "Invalid", "v in body should be at least 2 chars long"),
        ({"type": "string", "maxLength": 2}, "éé", "ééé", "TooLong", "may not be more than 2 bytes"),
        ({"type": "string", "pattern": "^a+$"}, "aa", "b", "Invalid", "v in body should match '^a+$'"),
        ({"type": "string", "enum": ["a", "b"]}, "a", "c", "NotSupported", 'supported values: "a", "b"'),
        ({"type": "integer", "enum": [1]}, 1, 2, "NotSupported", "Unsupported value: 2"),
        ({"type": "array", "minItems": 1, "items": {}}, [1], [], "Invalid", "v in body should have at least 1 items"),
        ({"type": "array", "maxItems": 1, "items": {}}, [1], [1, 2], "TooMany", "Too many: 2: must have at most 1"),
        ({"type": "object", "minProperties": 1}, {"a": 1}, {}, "Invalid", "should have at least 1 properties"),
        ({"type": "object", "maxProperties": 0}, {}, {"a": 1}, "TooMany", "Too many: 1"),
        ({"type": "string", "format": "ipv4"}, "10.0.0.1", "10.0.0", "Invalid", 'must be of type ipv4: "10.0.0"'),
        ({"type": "string", "format": "cidr"}, "10.0.0.0/8", "10.0.0.0", "Invalid", "must be of type cidr"),
        ({"type": "string", "format": "date-time"}, "2026-01-01T00:00:00Z", "today", "Invalid", "date-time"),
        ({"type": "string", "format": "duration"}, "1h30m", "1 hour", "Invalid", "must be of type duration"),
        ({"type": "string", "format": "byte"}, "aGk=", "?", "Invalid", "must be of type byte"),
        ({"type": "string", "format": "uuid"}, "12345678-1234-1234-1234-123456789abc", "x", "Invalid", "uuid"),
        ({"type": "string", "format": "invented-here"}, "anything", 1, "TypeInvalid", "must be of type string"),
        ({"type": "object", "required": ["a"]}, {"a": 1}, {}, "Required", "Required value"),
        ({"anyOf": [{"minimum": 5}, {"maximum": 1}]}, 0, 3, "Invalid", '"v" must validate at least one schema (anyOf)'),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1}, {}, "Invalid", "(oneOf). Found none valid"),
        (
            {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"b": 1},
            {"a": 1, "b": 1},
            "Invalid",
            "(oneOf). Found 2 valid alternatives",
        ),
        ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, 2, 4, "Invalid", "must validate all the schemas (allOf)"),
        ({"not": {"required": ["a"]}}, {}, {"a": 1}, "Invalid", "must not validate the schema (not)"),
    ],
)
def test_keyword(schema: Schema, good: Any, bad: Any, reason: str, message: str) -> None:
    assert errors(schema, good) == []
    found = errors(schema, bad)
    assert reason in [each[1] for each in found]
    assert any(message in each[2] for each in found), found


def test_paths_name_fields_elements_and_keys() -> None:
    number = {"type": "integer"}
    schema = {"type": "array", "items": {"type": "object", "additionalProperties": number}}
    assert [each[0] for each in errors(schema, [{}, {"key": "x"}])] == ["v[1].key"]


def test_what_an_update_leaves_unchanged_is_not_judged() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 1}, "b": {"type": "integer"}}}
    assert errors(schema, {"a": "long", "b": 2}, old={"a": "long", "b": 1}) == []
    assert [each[0] for each in errors(schema, {"a": "longer", "b": 1}, old={"a": "long", "b": 1})] == ["v.a"]


def test_a_pattern_that_would_take_for_ever_does_not() -> None:
    assert errors({"type": "string", "pattern": "^(a+)+$"}, "a" * 50_000 + "b") != []


OBJECT: Schema = {
    "type": "object",
    "properties": {
        "kept": {"type": "string", "default": "x"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True,
                 "properties": {"inner": {"type": "object", "properties": {"a": {"type": "integer"}}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {
            "n": {"type": "integer", "default": 3}}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 4}}}},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {
            "spec": {"type": "object"}}},
        "nullable": {"type": "string", "nullable": True, "default": "y"},
        "opaque": {"x-kubernetes-preserve-unknown-fields": True},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "kept", "unknown"),
    [
        ({"bogus": 1}, {}, ["bogus"]),
        ({"free": {"x": 1, "inner": {"a": 1, "b": 2}}}, {"free": {"x": 1, "inner": {"a": 1}}}, ["free.inner.b"]),
        ({"map": {"k": {"n": 1, "z": 1}}}, {"map": {"k": {"n": 1}}}, ["map.k.z"]),
        ({"list": [{"z": 1}]}, {"list": [{}]}, ["list[0].z"]),
        (
            {"embedded": {"apiVersion": "v1", "kind": "X", "metadata": {"a": 1}, "spec": {}, "z": 1}},
            {"embedded": {"apiVersion": "v1", "kind": "X", "metadata": {"a": 1}, "spec": {}}},
            ["embedded.z"],
        ),
        ({"opaque": [{"x": 1}]}, {"opaque": [{"x": 1}]}, []),
        ({"apiVersion": "v1", "kind": "X", "metadata": {}}, {"apiVersion": "v1", "kind": "X", "metadata": {}}, []),
        ({"map": None, "nullable": None}, {"nullable": None}, []),
    ],
)
def test_pruning(given: Any, kept: Any, unknown: list[str]) -> None:
    found: list[str] = []
    assert prune(given, shape_of(OBJECT), found, root=True) == kept
    assert found == unknown


@pytest.mark.parametrize(
    ("given", "filled"),
    [
        ({}, {"kept": "x", "nullable": "y"}),
        ({"kept": None, "nullable": None}, {"kept": "x", "nullable": None}),
        ({"map": {"k": {}}, "list": [{}, {"n": 1}]},
         {"map": {"k": {"n": 3}}, "list": [{"n": 4}, {"n": 1}], "kept": "x", "nullable": "y"}),
    ],
)  # fmt: skip
def test_defaults(given: Any, filled: Any) -> None:
    fill(given, shape_of(OBJECT))
    assert given == filled


def test_defaults_are_never_shared() -> None:
    shape = shape_of({"type": "object", "properties": {"a": {"type": "object", "default": {"b": []}}}})
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    fill(first, shape)
    fill(second, shape)
    first["a"]["b"].append(1)
    assert second == {"a": {"b": []}}


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("plain", "plain"),
        ("namespace", "__namespace__"),
        ("a-b", "a__dash__b"),
        ("a.b/c", "a__dot__b__slash__c"),
        ("a__b", "a__underscores__b"),
        ("1st", "1st"),
    ],
)
def test_names_that_cel_cannot_write(name: str, escaped: str) -> None:
    assert escape(name) == escaped


def test_values_become_what_cel_expects() -> None:
    schema = {
        "type": "object",
        "properties": {
            "namespace": {"type": "string"},
            "ratio": {"type": "number"},
            "after": {"type": "string", "format": "duration"},
        },
    }
    seen = for_rules({"namespace": "x", "ratio": 1, "after": "90s"}, shape_of(schema))
    assert seen["__namespace__"] == "x" and type(seen["ratio"]) is float and seen["after"].total_seconds() == 90


def test_versions_are_served_in_order_of_preference() -> None:
    schema = {"openAPIV3Schema": {"type": "object"}}
    names = ("v1alpha1", "v2", "v1beta2", "v1", "other")
    versions = [{"name": each, "served": each != "v2", "storage": each == "v1", "schema": schema} for each in names]
    definition = {
        "metadata": {"name": "widgets.example.test"},
        "spec": {
            "group": "example.test",
            "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": versions,
        },
    }
    assert [each.version for each in resources_of(definition)] == ["v1", "v1beta2", "v1alpha1", "other"]
