"""Which definitions are accepted, and which rules hold."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pilotage.api.schema_problems import Problems
from pilotage.apiserver.custom.definition import check_definition, name_conflicts
from pilotage.apiserver.custom.printer import PathError, columns, first, parse_path
from pilotage.apiserver.custom.rules import Rules
from pilotage.apiserver.custom.shape import shape_of
from pilotage.apiserver.custom.structural import check_schema

Schema = dict[str, Any]
ROOT = "spec.validation.openAPIV3Schema"


def problems_of(properties: Schema, **root: Any) -> dict[str, str]:
    problems = Problems()
    check_schema({"type": "object", "properties": properties, **root}, ROOT, problems)
    return {each.field.removeprefix(f"{ROOT}."): each.message for each in problems.errors}


@pytest.mark.parametrize(
    ("node", "field", "message"),
    [
        ({}, "properties[v].type", "Required value: must not be empty for specified object fields"),
        ({"type": "array", "items": {}}, "properties[v].items.type", "must not be empty for array items"),
        ({"type": "array"}, "properties[v].items", "Required value"),
        ({"type": "text"}, "properties[v].type", 'Unsupported value: "text"'),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
         "properties[v].additionalProperties", "mutual exclusive"),
        ({"type": "string", "pattern": "("}, "properties[v].pattern", "must be a valid regular expression"),
        ({"type": "integer", "default": "x"}, "properties[v].default", "must be of type integer"),
        ({"type": "object", "properties": {}, "default": {"z": 1}}, "properties[v].default", "unknown fields"),
        ({"type": "array", "uniqueItems": True, "items": {"type": "string"}}, "properties[v].uniqueItems", "quadratic"),
        ({"type": "string", "anyOf": [{"type": "string"}]}, "properties[v].anyOf[0].type", "must be empty to be"),
        ({"type": "string", "not": {"default": "x"}}, "properties[v].not.default", "must be empty to be structural"),
        ({"type": "string", "x-kubernetes-int-or-string": True}, "properties[v].type", "must be empty if"),
        ({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}},
         "properties[v].x-kubernetes-list-map-keys", "must not be empty"),
        ({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
          "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
         "properties[v].items.properties[k].default", "must have a default or be required"),
        ({"type": "string", "x-kubernetes-list-type": "set"}, "properties[v].type", "must be array"),
        ({"type": "string", "x-kubernetes-embedded-resource": True}, "properties[v].type", "must be object"),
        ({"type": "string", "$ref": "#/x"}, "properties[v].$ref", "not supported"),
        ({"type": "string", "x-kubernetes-validations": [{"rule": "slef == 'x'"}]},
         "properties[v].x-kubernetes-validations[0].rule", "undeclared reference to 'slef'"),
        ({"type": "integer", "x-kubernetes-validations": [{"rule": "self + 1"}]},
         "properties[v].x-kubernetes-validations[0].rule", "must evaluate to a bool"),
        ({"type": "integer", "x-kubernetes-validations": [{"rule": "self == 'a'"}]},
         "properties[v].x-kubernetes-validations[0].rule", "no matching overload"),
        ({"type": "integer", "x-kubernetes-validations": [{"rule": "true", "messageExpression": "1"}]},
         "properties[v].x-kubernetes-validations[0].messageExpression", "must evaluate to a string"),
    ],
)  # fmt: skip
def test_schemas_that_are_refused(node: Schema, field: str, message: str) -> None:
    found = problems_of({"v": node})
    assert field in found, found
    assert message in found[field]


def test_metadata_may_only_be_narrowed_by_name() -> None:
    metadata = {"type": "object", "properties": {"labels": {"type": "object"}}}
    assert list(problems_of({"metadata": metadata})) == ["properties[metadata]"]
    named = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}}
    assert problems_of({"metadata": named}) == {}


def test_a_schema_too_deep_to_be_meant() -> None:
    node: Schema = {"type": "string"}
    for _ in range(100):
        node = {"type": "object", "properties": {"a": node}}
    assert any("too large" in message for message in problems_of({"v": node}).values())


def definition(**spec: Any) -> dict[str, Any]:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    whole = {
        "group": "example.test",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [version],
        **spec,
    }
    return {"metadata": {"name": f"{whole['names']['plural']}.{whole['group']}"}, "spec": whole}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"group": "plain"}, "spec.group"),
        ({"group": "x.k8s.io"}, "metadata.annotations[api-approved.kubernetes.io]"),
        ({"scope": "World"}, "spec.scope"),
        ({"preserveUnknownFields": True}, "spec.preserveUnknownFields"),
        ({"names": {"plural": "Widgets", "kind": "Widget"}}, "spec.names.plural"),
        ({"names": {"plural": "widgets", "kind": "W", "listKind": "W"}}, "spec.names.listKind"),
        ({"conversion": {"strategy": "Magic"}}, "spec.conversion.strategy"),
    ],
)
def test_definitions_that_are_refused(spec: Any, field: str) -> None:
    assert field in [each.field for each in check_definition(definition(**spec), None)]


def test_a_sound_definition_is_accepted() -> None:
    assert list(check_definition(definition(), None)) == []


def test_what_may_not_change() -> None:
    old = definition()
    old["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    new = definition(scope="Cluster")
    assert [each.field for each in check_definition(new, old)] == ["spec.scope"]
    kept = definition()
    kept["status"] = {"storedVersions": ["v0", "v1"]}
    assert [each.field for each in check_definition(kept, old)] == ["status.storedVersions[0]"]


def test_names_in_use() -> None:
    other = {
        "plural": "gadgets",
        "singular": "gadget",
        "shortNames": ["wd"],
        "kind": "Gadget",
        "listKind": "GadgetList",
    }
    assert name_conflicts(definition(), [other]) == ""
    names = {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]}
    assert name_conflicts(definition(names=names), [other]) == '"wd" is already in use'
    assert name_conflicts(definition(names={"plural": "w", "kind": "GadgetList"}), [other]) != ""


def judged(rules: list[dict[str, Any]], new: Any, old: Any = None, **node: Any) -> list[tuple[str, str]]:
    problems = Problems()
    inner = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, **node, "x-kubernetes-validations": rules}
    shape = shape_of({"type": "object", "properties": {"v": inner}})
    made = Rules(shape, problems, "")
    assert problems.errors == []
    head = {"metadata": {"name": "x"}}
    made.check({**head, "v": new}, None if old is None else {**head, "v": old}, problems)
    return [(each.field, each.message) for each in problems.errors]


@pytest.mark.parametrize(
    ("rule", "new", "old", "message"),
    [
        ({"rule": "self.a > 0"}, {"a": 1}, None, ""),
        ({"rule": "self.a > 0"}, {"a": 0}, None, "failed rule: self.a > 0"),
        ({"rule": "self.a > 0", "message": "too small"}, {"a": 0}, None, "too small"),
        ({"rule": "self.a > 0", "messageExpression": "'is ' + string(self.a)"}, {"a": 0}, None, "is 0"),
        ({"rule": "self.b > 0"}, {"a": 0}, None, "no such key: b evaluating rule: self.b > 0"),
        ({"rule": "self.a > 0"}, {"a": 0}, {"a": 0}, ""),
        ({"rule": "self.a >= oldSelf.a"}, {"a": 0}, None, ""),
        ({"rule": "self.a >= oldSelf.a"}, {"a": 0}, {"a": 1}, "failed rule: self.a >= oldSelf.a"),
        ({"rule": "oldSelf.hasValue() || self.a == 1", "optionalOldSelf": True}, {"a": 2}, None, "failed rule"),
        ({"rule": "oldSelf.value().a == self.a", "optionalOldSelf": True}, {"a": 2}, {"a": 2}, ""),
        ({"rule": "has(self.x) == has(self.y)"}, {"x": 1}, None, "failed rule"),
        ({"rule": "self.l.all(x, self.l.exists_one(y, x == y))"}, {"l": [1, 2, 3]}, None, ""),
        ({"rule": "self.s.matches('^[a-z]+$') && quantity(self.q).isLessThan(quantity('1Gi'))"},
         {"s": "abc", "q": "500Mi"}, None, ""),
        ({"rule": "isURL(self.u) && url(self.u).getHostname() == 'a.test'"}, {"u": "https://a.test:1/x"}, None, ""),
        ({"rule": "cidr('10.0.0.0/8').containsIP(self.i)"}, {"i": "11.0.0.1"}, None, "failed rule"),
        ({"rule": "self.l.isSorted() && self.l.sum() == 6 && self.l.max() == 3"}, {"l": [1, 2, 3]}, None, ""),
        ({"rule": "self.?a.orValue(7) == 7"}, {"b": 1}, None, ""),
    ],
)  # fmt: skip
def test_rules(rule: dict[str, Any], new: Any, old: Any, message: str) -> None:
    found = judged([rule], new, old)
    if not message:
        assert found == []
    else:
        assert len(found) == 1 and message in found[0][1]


def test_reasons_and_paths_are_the_rules_own() -> None:
    rule = {"rule": "false", "message": "no", "reason": "FieldValueForbidden", "fieldPath": ".a.b"}
    assert judged([rule], {"a": 1}) == [("v.a.b", "Forbidden: no")]


def test_elements_of_keyed_lists_know_what_they_were() -> None:
    problems = Problems()
    item = {
        "type": "object",
        "properties": {"k": {"type": "string"}, "n": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n"}],
    }
    listed = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": item}
    rules = Rules(shape_of({"type": "object", "properties": {"l": listed}}), problems, "")
    old = {"metadata": {}, "l": [{"k": "a", "n": 1}, {"k": "b", "n": 5}]}
    rules.check({"metadata": {}, "l": [{"k": "b", "n": 4}, {"k": "c", "n": 0}, {"k": "a", "n": 1}]}, old, problems)
    assert [each.field for each in problems.errors] == ["l[0]"]


def test_rules_that_would_take_for_ever_are_cut_off() -> None:
    rule = {"rule": "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))"}
    found = judged([rule], {"l": list(range(500))})
    assert len(found) == 1 and "cost" in found[0][1]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".spec.size", 3),
        (".status.conditions[?(@.type==\"Ready\")].status", "True"),
        (".status.conditions[0].type", "Ready"),
        (".status.conditions[*].type", "Ready"),
        (".metadata.labels.a\\.b/c", "x"),
        (".metadata.labels['a.b/c']", "x"),
        (".spec.missing", None),
        (".status.conditions[9].type", None),
    ],
)  # fmt: skip
def test_paths(path: str, value: Any) -> None:
    document = {
        "metadata": {"labels": {"a.b/c": "x"}},
        "spec": {"size": 3},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other"}]},
    }
    assert first(document, parse_path(path)) == value


@pytest.mark.parametrize("path", ["spec", ".a[", ".a[?(@.b)]", "..a", ".a" * 2000])
def test_texts_that_are_no_path(path: str) -> None:
    with pytest.raises(PathError):
        parse_path(path)


def test_cells_have_their_columns_type() -> None:
    made = columns(
        [
            {"name": "Age", "type": "date", "jsonPath": ".when"},
            {"name": "On", "type": "boolean", "jsonPath": ".on", "priority": 1},
            {"name": "Text", "type": "string", "jsonPath": ".on"},
        ]
    )
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    document = {"metadata": {"name": "x"}, "when": "2026-01-01T00:00:00Z", "on": True}
    assert [column.cell(document, now) for column in made] == ["x", "60s", True, "true"]
    assert [column.priority for column in made] == [0, 0, 1, 0]
