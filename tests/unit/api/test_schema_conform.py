"""From what a client sent to a document of its kind: types, unknown and duplicate fields, nulls, quantities."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.api.catalogue import BUILTIN, Resource, by_kind
from pilotage.api.schema import compile_inline, raw_definitions, schema_of
from pilotage.api.schema_conform import conform, duplicate_fields
from pilotage.api.status import ApiError


def resource(kind: str, group: str = "") -> Resource:
    found = by_kind(group, "v1", kind)
    assert found is not None
    return found


POD = resource("Pod")


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}


def test_every_built_in_kind_has_a_shape() -> None:
    missing = [r.kind for r in BUILTIN if r.schema not in raw_definitions()]
    assert missing == []
    assert all(schema_of(r.schema).kind == "object" for r in BUILTIN)


def test_unknown_fields_are_dropped_and_named() -> None:
    given = pod(containers=[{"name": "a", "imagee": "x"}], nonsense=1)
    result = conform(POD, given, "Warn")
    assert result.warnings == ('unknown field "spec.containers[0].imagee"', 'unknown field "spec.nonsense"')
    assert result.document["spec"] == {"containers": [{"name": "a"}]}
    assert conform(POD, given, "Ignore").warnings == ()
    assert "nonsense" in given["spec"], "the argument was modified"


def test_strict_refuses_unknown_and_duplicate_fields_together() -> None:
    with pytest.raises(ApiError) as refused:
        conform(POD, pod(nonsense=1), "Strict", duplicates=("spec.containers",))
    assert refused.value.code == 400
    assert str(refused.value) == (
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: '
        'unknown field "spec.nonsense", duplicate field "spec.containers"'
    )


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param(
            {"containers": "web"},
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
            id="a string for a list",
        ),
        pytest.param({"hostNetwork": "yes"}, "of type bool", id="a string for a boolean"),
        pytest.param({"priority": 1.5}, "of type int32", id="a fraction for an integer"),
        pytest.param({"priority": 2**40}, "of type int32", id="too large"),
        pytest.param({"priority": True}, "cannot unmarshal bool", id="a boolean is no integer"),
        pytest.param({"nodeSelector": {"a": 1}}, "of type string", id="a number as a map's value"),
        pytest.param(
            {"containers": [{"name": "a", "resources": {"limits": {"cpu": "much"}}}]},
            "quantities must match the regular expression",
            id="no quantity",
        ),
    ],
)
def test_what_cannot_be_decoded(spec: dict[str, Any], text: str) -> None:
    with pytest.raises(ApiError) as refused:
        conform(POD, pod(**spec))
    assert refused.value.code == 400 and text in str(refused.value)


def test_nulls_become_absence_and_quantities_canonical() -> None:
    limits = {"cpu": 1, "memory": "1024Mi", "ephemeral-storage": "0.5Gi"}
    given = pod(nodeName=None, containers=[{"name": "a", "args": None, "resources": {"limits": limits}}])
    given["metadata"]["creationTimestamp"] = None
    document = conform(POD, given).document
    assert document["metadata"] == {"name": "web"}
    assert document["spec"] == {
        "containers": [
            {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "512Mi"}}}
        ]
    }


@pytest.mark.parametrize(
    ("given", "canonical"),
    [("1000m", "1"), ("0.1", "100m"), ("1.5Gi", "1536Mi"), ("1e3", "1e3"), ("2E", "2E"), ("0", "0"), ("1k", "1k")],
)
def test_quantities(given: str, canonical: str) -> None:
    document = conform(POD, pod(overhead={"cpu": given})).document
    assert document["spec"]["overhead"]["cpu"] == canonical


@pytest.mark.parametrize("text", ["YWJj", "YWJj\nYWJj\n", ""])
def test_base64_is_kept_but_unwrapped(text: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": text}}
    assert conform(resource("Secret"), secret).document["data"] == {"a": text.replace("\n", "")}


def test_bad_base64_is_refused_without_showing_it() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "hunter2!"}}
    with pytest.raises(ApiError, match="illegal base64 data") as refused:
        conform(resource("Secret"), secret)
    assert "hunter2" not in str(refused.value)


def test_a_very_deep_document_is_refused() -> None:
    crd = by_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    assert crd is not None
    schema: dict[str, Any] = {}
    for _ in range(300):
        schema = {"properties": {"a": schema}, "type": "object"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]
    with pytest.raises(ApiError, match="exceeded max depth"):
        conform(crd, {"apiVersion": "apiextensions.k8s.io/v1", "kind": crd.kind, "spec": {"versions": versions}})


def test_duplicate_fields_are_found_with_their_paths() -> None:
    assert duplicate_fields(b'{"a": 1, "b": [{"c": 1}]}') == ()
    assert duplicate_fields(b'{"a": 1, "b": [{}, {"c": 1, "c": 2}], "a": 3}') == ("b[1].c", "a")


def test_a_custom_resources_own_schema_is_honoured() -> None:
    schema = compile_inline(
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "size": {"type": "integer"},
                        "port": {"x-kubernetes-int-or-string": True},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    },
                }
            },
        }
    )
    given = {"metadata": {"name": "x"}, "spec": {"size": 1, "port": "http", "free": {"a": 1}, "other": 2}}
    result = conform(POD, given, schema=schema)
    assert result.document["spec"] == {"size": 1, "port": "http", "free": {"a": 1}}
    assert result.warnings == ('unknown field "spec.other"',)
