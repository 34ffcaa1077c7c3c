"""What an apply configuration and a JSON patch make of an object, and what policies that say so may look like."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pilotage.api.catalogue import Resource, by_kind
from pilotage.apiserver.admission.dynamic.checks import RULES
from pilotage.apiserver.admission.dynamic.mutations import MutationError, completed, configured, patched

GROUP = "admissionregistration.k8s.io"


def resource(group: str, version: str, kind: str) -> Resource:
    found = by_kind(group, version, kind)
    assert found is not None
    return found


DEPLOYMENTS = resource("apps", "v1", "Deployment")


def deployment(**pod: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"own": "x"}},
        "spec": {"replicas": 1, "template": {"metadata": {}, "spec": pod}},
    }


def pod_spec(**spec: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": spec}}}


@pytest.mark.parametrize(
    ("live", "configuration", "expected"),
    [
        pytest.param({}, {}, {}, id="nothing"),
        pytest.param(
            {"volumes": [{"name": "x"}]}, {"volumes": [{"name": "y"}]}, {"volumes": [{"name": "x"}, {"name": "y"}]},
            id="an element is added by its key",
        ),
        pytest.param(
            {"volumes": [{"name": "x"}, {"name": "y"}]},
            {"volumes": [{"name": "y", "hostPath": {"path": "a"}}]},
            {"volumes": [{"name": "x"}, {"name": "y", "hostPath": {"path": "a"}}]},
            id="an element is changed by its key",
        ),
        pytest.param(
            {"containers": [{"name": "a", "image": "1", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
            {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]}]},
            {"containers": [{"name": "a", "image": "1", "ports": [
                {"containerPort": 80, "protocol": "TCP", "name": "web"}, {"containerPort": 81}]}]},
            id="a key that has a default",
        ),
        pytest.param(
            {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]},
            {"containers": [{"name": "a", "resources": {"limits": {"memory": "1024Mi"}}}]},
            {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]},
            id="maps are merged, quantities are canonical",
        ),
    ],
)  # fmt: skip
def test_configurations_are_merged(live: dict[str, Any], configuration: dict[str, Any], expected: Any) -> None:
    document = deployment(**live)
    before = copy.deepcopy(document)
    assert configured(document, DEPLOYMENTS, pod_spec(**configuration)) == deployment(**expected)
    assert document == before


def test_labels_are_merged_and_the_kind_stays() -> None:
    configuration = {"kind": "Pod", "apiVersion": "v1", "metadata": {"labels": {"seen": "yes"}}}
    changed = configured(deployment(), DEPLOYMENTS, configuration)
    assert changed["metadata"]["labels"] == {"own": "x", "seen": "yes"}
    assert changed["kind"] == "Deployment"


@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        ({"spec": {"replicasx": 1}}, "typed object: .spec.replicasx: field not declared in schema"),
        ({"spec": {"replicas": "many"}}, "typed object: .*cannot unmarshal string into .* field DeploymentSpec"),
        ({"spec": {"replicas": None}}, "typed object: .spec.replicas: a field cannot be set to null"),
        (pod_spec(containers=[{"image": "x"}]), "typed object: .*omits key field \"name\""),
        (pod_spec(containers=[{"name": "x"}, {"name": "x"}]), "typed object: .*duplicate entries for key"),
        ({"spec": {"selector": {"matchLabels": {"l": "v"}}}}, "maps or structs: .spec.selector$"),
        (pod_spec(containers=[{"name": "x", "args": ["a"]}, {"name": "y", "command": []}]),
         r"structs: .spec.template.spec.containers\[0\].args, .spec.template.spec.containers\[1\].command$"),
    ],
)  # fmt: skip
def test_configurations_that_are_refused(configuration: dict[str, Any], why: str) -> None:
    with pytest.raises(MutationError, match=f"^error applying patch: .*{why}"):
        configured(deployment(), DEPLOYMENTS, configuration)


@pytest.mark.parametrize(
    ("patch", "replicas"),
    [
        ([{"op": "replace", "path": "/spec/replicas", "value": 3}], 3),
        ([{"op": "remove", "path": "/spec/replicas"}], None),
        ([{"op": "test", "path": "/spec/replicas", "value": 1}, {"op": "remove", "path": "/spec/replicas"}], None),
        ([{"op": "remove", "path": "/spec/replicas"}, {"op": "test", "path": "/spec/replicas", "value": 1}], 1),
        ([{"op": "test", "path": "/spec/paused", "value": True}, {"op": "remove", "path": "/spec/replicas"}], 1),
        ([{"op": "test", "path": "/spec/paused", "value": None}, {"op": "remove", "path": "/spec/replicas"}], None),
    ],
)
def test_patches_are_carried_out_or_not_at_all(patch: list[dict[str, Any]], replicas: int | None) -> None:
    assert patched(deployment(), patch)["spec"].get("replicas") == replicas


def test_a_field_that_is_not_set_can_be_replaced() -> None:
    changed = patched(deployment(), [{"op": "replace", "path": "/spec/paused", "value": True}])
    assert changed["spec"]["paused"] is True


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ([{"op": "remove", "path": "/spec/paused"}], r"operation 0 \(remove '/spec/paused'\): there is no 'paused'"),
        ([{"op": "replace", "path": "/status/x/y", "value": 1}], "there is no 'status'"),
        ([{"op": "test", "path": "/status/x/y", "value": 1}], "there is no 'status'"),
        ([{"op": "", "path": "/spec"}], "unknown op ''"),
        ([{"op": "replace", "path": "", "value": 1}], "the patch leaves no object"),
        ([{"op": "remove", "path": "/metadata"}], "the patch leaves no object"),
    ],
)
def test_patches_that_are_refused(patch: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(MutationError, match=f"^JSONPatch: .*{why}"):
        patched(deployment(), patch)


def test_what_was_changed_has_defaults_and_no_unknown_field() -> None:
    whole = completed(deployment(containers=[{"name": "a", "image": "x"}]), DEPLOYMENTS)
    assert whole["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    with pytest.raises(MutationError, match=r"strict decoding error: unknown field .*\.wrong"):
        completed(deployment(wrong=1), DEPLOYMENTS)


APPLY = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}
PATCH = {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/data'}]"}}
RULE = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}


def problems(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    return {each.field: each.message for each in RULES[(GROUP, kind)]({"spec": spec}, None)}


@pytest.mark.parametrize(
    ("change", "field", "why"),
    [
        ({"matchConstraints": None}, "spec.matchConstraints", "Required value"),
        ({"matchConstraints": {"resourceRules": [{**RULE, "operations": ["DELETE"]}]}},
         "spec.matchConstraints.resourceRules.operations",
         'Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE"'),
        ({"mutations": []}, "spec.mutations", "Required value: mutations must contain at least one item"),
        ({"mutations": [{}]}, "spec.mutations[0].patchType", "Required value"),
        ({"mutations": [{"patchType": "Other"}]}, "spec.mutations[0].patchType", "supported values"),
        ({"mutations": [{"patchType": "JSONPatch"}]}, "spec.mutations[0].jsonPatch", "must be specified"),
        ({"mutations": [{**PATCH, **APPLY}]}, "spec.mutations[0].jsonPatch", "must not be specified when patchType is"),
        ({"mutations": [APPLY, {**PATCH, "jsonPatch": {"expression": " "}}]},
         "spec.mutations[1].jsonPatch.expression", "Required value"),
        ({"mutations": [{**PATCH, "jsonPatch": {"expression": "[JSONPatch{"}}]},
         "spec.mutations[0].jsonPatch.expression", "Syntax error"),
        ({"reinvocationPolicy": None}, "spec.reinvocationPolicy", "Required value"),
        ({"reinvocationPolicy": "Always"}, "spec.reinvocationPolicy", "Unsupported value"),
        ({"variables": [{"name": "a", "expression": "Object{}"}]}, "spec.variables[0].expression", "undeclared"),
        ({"matchConditions": [{"name": "a", "expression": "1"}]}, "spec.matchConditions[0].expression", "to a bool"),
    ],
)  # fmt: skip
def test_policies_that_are_refused(change: dict[str, Any], field: str, why: str) -> None:
    spec = {
        "matchConstraints": {"resourceRules": [RULE]},
        "mutations": [APPLY, PATCH],
        "reinvocationPolicy": "Never",
    }
    assert problems("MutatingAdmissionPolicy", spec) == {}
    found = problems("MutatingAdmissionPolicy", {**spec, **change})
    assert [*found] == [field] and why in found[field]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"policyName": ""}, "spec.policyName"),
        ({"paramRef": {}}, "spec.paramRef"),
        ({"matchResources": {"resourceRules": [{**RULE, "operations": ["DELETE"]}]}},
         "spec.matchResources.resourceRules.operations"),
    ],
)  # fmt: skip
def test_bindings_that_are_refused(change: dict[str, Any], field: str) -> None:
    assert problems("MutatingAdmissionPolicyBinding", {"policyName": "x"}) == {}
    assert [*problems("MutatingAdmissionPolicyBinding", {"policyName": "x", **change})] == [field]
