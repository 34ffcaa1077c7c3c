"""Whom a write concerns, what configurations may say, where a Service's webhook is called, what answers mean."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pilotage.api.catalogue import Resource, by_kind
from pilotage.apiserver.admission.dynamic.checks import RULES
from pilotage.apiserver.admission.dynamic.matching import ConditionError, conditions_hold, matched, selected
from pilotage.apiserver.admission.dynamic.review import AnswerError, patched, request_of, verdict
from pilotage.apiserver.admission.dynamic.webhooks import service_address
from pilotage.apiserver.admission.operation import Operation
from pilotage.apiserver.authentication import LOOPBACK
from pilotage.apiserver.cel import Spending
from pilotage.apiserver.documents import DictDocuments

GROUP = "admissionregistration.k8s.io"


def resource(group: str, version: str, kind: str) -> Resource:
    found = by_kind(group, version, kind)
    assert found is not None
    return found


DEPLOYMENTS = resource("apps", "v1", "Deployment")
NODES = resource("", "v1", "Node")
EVENTS, CORE_EVENTS = resource("events.k8s.io", "v1", "Event"), resource("", "v1", "Event")


def operation(of: Resource = DEPLOYMENTS, *, subresource: str = "", **metadata: Any) -> Operation:
    document = {"apiVersion": of.api_version, "kind": of.kind, "metadata": {"name": "x", **metadata}}
    return Operation(
        verb="create",
        resource=of,
        namespace="default" if of.namespaced else "",
        name="x",
        subresource=subresource,
        user=LOOPBACK,
        document=document,
        old=None,
    )


def rule(**fields: Any) -> dict[str, Any]:
    whole = {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}
    return {**whole, **fields}


@pytest.mark.parametrize(
    ("asked", "fields", "concerned"),
    [
        (operation(), {}, True),
        (operation(), {"operations": ["UPDATE", "DELETE"]}, False),
        (operation(), {"operations": ["*"]}, True),
        (operation(), {"apiGroups": [""]}, False),
        (operation(), {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}, True),
        (operation(), {"apiVersions": ["v2"]}, False),
        (operation(), {"resources": ["deployments/status"]}, False),
        (operation(subresource="status"), {"resources": ["deployments/status"]}, True),
        (operation(subresource="status"), {"resources": ["deployments/*"]}, True),
        (operation(subresource="status"), {"resources": ["*/status"]}, True),
        (operation(subresource="status"), {"resources": ["*"]}, False),
        (operation(subresource="status"), {"resources": ["*/*"]}, True),
        (operation(), {"resources": ["*/*"]}, True),
        (operation(), {"scope": "Cluster"}, False),
        (operation(), {"scope": "Namespaced"}, True),
        (operation(NODES), {"apiGroups": [""], "resources": ["nodes"], "scope": "Cluster"}, True),
        (operation(), {"resourceNames": ["y"]}, False),
    ],
)
def test_rules(asked: Operation, fields: dict[str, Any], concerned: bool) -> None:
    assert (matched(asked, (), [rule(**fields)], exact=False) is not None) is concerned


def test_another_version_of_the_same_objects_is_shown_as_the_rule_wants() -> None:
    asked = operation(EVENTS, namespace="default")
    asked.document["regarding"] = {"kind": "Pod"}  # type: ignore[index]
    core = rule(apiGroups=[""], resources=["events"])
    assert matched(asked, (CORE_EVENTS,), [core], exact=True) is None
    assert matched(asked, (CORE_EVENTS,), [core], exact=False) is CORE_EVENTS
    request = request_of(asked, CORE_EVENTS, "u")
    assert request["object"]["apiVersion"] == "v1" and request["object"]["involvedObject"] == {"kind": "Pod"}
    assert request["kind"]["group"] == "" and request["requestKind"]["group"] == "events.k8s.io"


def test_selectors_look_at_the_namespace_and_at_either_state() -> None:
    documents = DictDocuments()
    documents.put("", "namespaces", {"metadata": {"name": "default", "labels": {"team": "a"}}})
    asked = operation(labels={"judged": "yes"})
    assert selected(asked, documents, {"namespaceSelector": {"matchLabels": {"team": "a"}}})
    assert not selected(asked, documents, {"namespaceSelector": {"matchLabels": {"team": "b"}}})
    assert selected(asked, documents, {"objectSelector": {"matchLabels": {"judged": "yes"}}, "namespaceSelector": {}})
    assert not selected(asked, documents, {"objectSelector": {"matchLabels": {"judged": "no"}}})
    assert selected(operation(NODES), documents, {"namespaceSelector": {"matchLabels": {"team": "b"}}})


def test_a_false_condition_outweighs_a_broken_one() -> None:
    values = {"object": {"a": 1}, "oldObject": None, "request": {}, "authorizer": {}}
    broken, false = {"name": "broken", "expression": "object.b"}, {"name": "no", "expression": "object.a == 2"}
    assert not conditions_hold([broken, false], values, Spending())
    with pytest.raises(ConditionError):
        conditions_hold([broken], values, Spending())


SERVICE = {"metadata": {"name": "hook"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "https", "port": 443}]}}
SLICE = {
    "ports": [{"name": "https", "port": 8443}],
    "endpoints": [
        {"addresses": ["10.244.1.1"], "conditions": {"ready": False}},
        {"addresses": ["10.244.1.2"], "conditions": {"ready": True}},
    ],
}


def test_a_service_is_called_at_a_ready_endpoint() -> None:
    assert service_address(SERVICE, [SLICE], 443) == ("10.244.1.2", 8443)
    assert service_address(SERVICE, [], 443) == ("10.96.0.9", 443)
    with pytest.raises(LookupError, match="no service port 80"):
        service_address(SERVICE, [SLICE], 80)
    with pytest.raises(LookupError, match="no endpoints available"):
        service_address(SERVICE, [{**SLICE, "endpoints": []}], 443)


def answer(**response: Any) -> bytes:
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "u", **response}}
    return json.dumps(review).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not an AdmissionReview"),
        (b"[]", "not an AdmissionReview"),
        (b'{"response": null}', "expected webhook response"),
        (answer().replace(b"/v1", b"/v1beta1"), "expected webhook response"),
        (answer(uid="other"), "expected response.uid"),
        (answer(allowed=True, patch="?", patchType="JSONPatch"), "base64"),
        (answer(allowed=True, patch="e30="), "patchType"),
    ],
)
def test_answers_that_make_no_sense(data: bytes, why: str) -> None:
    with pytest.raises(AnswerError, match=why):
        verdict(data, "u", mutating=True)


def test_only_mutating_webhooks_may_patch() -> None:
    patch = base64.b64encode(b"[]").decode()
    data = answer(allowed=True, patch=patch, patchType="JSONPatch")
    assert verdict(data, "u", mutating=True).patch == []
    with pytest.raises(AnswerError):
        verdict(data, "u", mutating=False)


@pytest.mark.parametrize(
    "patch",
    [
        [{"op": "remove", "path": "/metadata"}],
        [{"op": "replace", "path": "/nothing/here", "value": 1}],
        [{"op": "dance"}],
        {"op": "add"},
        [{"op": "replace", "path": "", "value": 3}],
    ],
)
def test_patches_that_do_not_apply(patch: Any) -> None:
    with pytest.raises(AnswerError):
        patched({"metadata": {"name": "x"}}, patch)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "short"}, "webhooks[0].name"),
        ({"sideEffects": "Some"}, "webhooks[0].sideEffects"),
        ({"timeoutSeconds": 31}, "webhooks[0].timeoutSeconds"),
        ({"admissionReviewVersions": ["v1beta1"]}, "webhooks[0].admissionReviewVersions"),
        ({"clientConfig": {"url": "http://127.0.0.1/x"}}, "webhooks[0].clientConfig.url"),
        ({"clientConfig": {"url": "https://u@h/x"}}, "webhooks[0].clientConfig.url"),
        ({"clientConfig": {}}, "webhooks[0].clientConfig"),
        ({"clientConfig": {"service": {"name": "x"}}}, "webhooks[0].clientConfig.service.namespace"),
        ({"matchConditions": [{"name": "x", "expression": "object.("}]}, "webhooks[0].matchConditions[0].expression"),
        ({"failurePolicy": "Maybe"}, "webhooks[0].failurePolicy"),
        ({"rules": [{"operations": ["DO"]}]}, "webhooks[0].rules[0].operations[0]"),
    ],
)
def test_webhooks_that_are_refused(change: Any, field: str) -> None:
    webhook = {
        "name": "a.example.test",
        "clientConfig": {"url": "https://127.0.0.1/x"},
        "rules": [rule()],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    }
    check = RULES[(GROUP, "ValidatingWebhookConfiguration")]
    assert list(check({"webhooks": [webhook]}, None)) == []
    assert field in [each.field for each in check({"webhooks": [{**webhook, **change}]}, None)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"matchConstraints": None}, "spec.matchConstraints"),
        ({"validations": []}, "spec.validations"),
        ({"validations": [{"expression": "variables.x == undeclared"}]}, "spec.validations[0].expression"),
        ({"validations": [{"expression": "true", "reason": "Because"}]}, "spec.validations[0].reason"),
        ({"variables": [{"name": "a-b", "expression": "1"}]}, "spec.variables[0].name"),
        ({"paramKind": {"kind": "X"}}, "spec.paramKind.apiVersion"),
    ],
)
def test_policies_that_are_refused(change: Any, field: str) -> None:
    spec = {"matchConstraints": {"resourceRules": [rule()]}, "validations": [{"expression": "true"}]}
    check = RULES[(GROUP, "ValidatingAdmissionPolicy")]
    assert list(check({"spec": spec}, None)) == []
    assert field in [each.field for each in check({"spec": {**spec, **change}}, None)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"policyName": ""}, "spec.policyName"),
        ({"validationActions": []}, "spec.validationActions"),
        ({"validationActions": ["Deny", "Warn"]}, "spec.validationActions"),
        ({"paramRef": {}}, "spec.paramRef"),
    ],
)
def test_bindings_that_are_refused(change: Any, field: str) -> None:
    spec = {"policyName": "x", "validationActions": ["Deny"]}
    check = RULES[(GROUP, "ValidatingAdmissionPolicyBinding")]
    assert list(check({"spec": spec}, None)) == []
    assert field in [each.field for each in check({"spec": {**spec, **change}}, None)]
