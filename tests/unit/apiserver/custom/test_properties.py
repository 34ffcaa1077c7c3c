"""Whatever a schema says and whatever is sent: an answer, never an exception; pruning and defaulting settle at once."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.api.schema_problems import Problems
from pilotage.api.status import ApiError
from pilotage.apiserver.core.custom_resource import kind_of
from pilotage.apiserver.custom.definition import check_definition, resources_of
from pilotage.apiserver.custom.shape import fill, prune, shape_of

NAMES = st.sampled_from(["a", "b", "namespace", "x-y", "metadata", "kind"])
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text("ab1-", max_size=3)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
RULES = st.sampled_from(["self == self", "self == oldSelf", "has(self.a)", "self.a > 1", "size(self) > 0", "self.("])


def _node(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", "integer", "number", "boolean"]),
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "additionalProperties": inner | st.booleans(),
            "items": inner,
            "nullable": st.booleans(),
            "default": JSON,
            "enum": st.lists(JSON, max_size=2),
            "required": st.lists(NAMES, max_size=2),
            "minimum": st.integers(-2, 2),
            "multipleOf": st.integers(-2, 2),
            "maxLength": st.integers(-1, 2),
            "pattern": st.sampled_from(["^a+$", "(", "[a-z]"]),
            "format": st.sampled_from(["date-time", "duration", "byte", "int32", "ipv4", "email", "uri", "strange"]),
            "oneOf": st.lists(inner, max_size=2),
            "not": inner,
            "x-kubernetes-preserve-unknown-fields": st.booleans(),
            "x-kubernetes-int-or-string": st.booleans(),
            "x-kubernetes-embedded-resource": st.booleans(),
            "x-kubernetes-list-type": st.sampled_from(["atomic", "set", "map", "other"]),
            "x-kubernetes-list-map-keys": st.lists(NAMES, max_size=2),
            "x-kubernetes-validations": st.lists(st.fixed_dictionaries({"rule": RULES}), max_size=1),
        },
    )


SCHEMAS = st.recursive(_node(st.just({"type": "string"})), _node, max_leaves=4)


def definition(schema: dict[str, Any]) -> dict[str, Any]:
    root = {"type": "object", "properties": {"spec": schema}}
    return {
        "metadata": {"name": "widgets.example.test", "resourceVersion": "1"},
        "spec": {
            "group": "example.test",
            "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": root}}],
        },
    }


@settings(max_examples=40, deadline=None)
@given(schema=SCHEMAS, sent=JSON, old=JSON)
def test_an_accepted_definition_answers_every_document(schema: dict[str, Any], sent: Any, old: Any) -> None:
    whole = definition(schema)
    if check_definition(whole, None):
        return
    (resource,) = resources_of(whole)
    kind = kind_of(resource)
    assert kind is not None
    head = {"apiVersion": "example.test/v1", "kind": "Widget", "metadata": {"name": "x"}}
    document = kind.decode(resource, {**head, "spec": sent}, "Ignore", ()).document
    kind.default(document)
    kind.validate(resource, document, None)
    kind.validate(resource, document, {**head, "spec": old})
    kind.read({**head, "spec": old})
    with contextlib.suppress(ApiError):
        kind.decode(resource, {**head, "spec": sent}, "Strict", ())


@settings(max_examples=40, deadline=None)
@given(schema=SCHEMAS, value=JSON)
def test_pruning_and_defaulting_twice_is_once(schema: dict[str, Any], value: Any) -> None:
    shape = shape_of(schema)
    once = prune(copy.deepcopy(value), shape, [])
    unknown: list[str] = []
    assert prune(once, shape, unknown) == once
    assert unknown == []
    fill(once, shape)
    twice = copy.deepcopy(once)
    fill(twice, shape)
    assert twice == once


@settings(max_examples=40, deadline=None)
@given(schema=SCHEMAS)
def test_every_schema_gets_a_verdict(schema: dict[str, Any]) -> None:
    problems = Problems()
    problems.errors.extend(check_definition(definition(schema), None))
    assert all(error.field and error.message for error in problems.errors)
