"""Webhooks and policies over real HTTP: real TLS, real answers, real refusals."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pilotage.apiserver.certificates import Authority
from pilotage.testing.cluster import api_server
from pilotage.testing.wire import CONFIG_MAPS, PODS, Document, Http, config_map, connected, pod

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MERGE = {"Content_Type": "application/merge-patch+json"}

Answer = Callable[[Document], Document]


class Hook:
    """A webhook server that answers as the test says and remembers what it was asked."""

    def __init__(self, url: str, bundle: str) -> None:
        self.url, self.bundle = url, bundle
        self.asked: list[Document] = []
        self.answers: dict[str, Answer] = {}
        self.hanging = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        review = json.loads(await request.read())
        self.asked.append(review["request"])
        if request.path == "/hang":
            await self.hanging.wait()
        if request.path == "/broken":
            return web.Response(text="this is no review")
        response = {"uid": review["request"]["uid"], **self.answers[request.path](review["request"])}
        return web.json_response({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})

    def configuration(self, kind: str, called: str, /, *paths: str, **settings: Any) -> Document:
        webhooks = [
            {
                "name": f"{path.strip('/')}.example.test",
                "clientConfig": {"url": f"{self.url}{path}", "caBundle": self.bundle},
                "rules": [
                    {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]},
                ],
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 5,
                **settings,
            }
            for path in paths
        ]
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": f"{kind}WebhookConfiguration",
            "metadata": {"name": called},
            "webhooks": webhooks,
        }


@pytest.fixture
async def hook(tmp_path: Path) -> AsyncIterator[Hook]:
    authority = Authority.load_or_create(tmp_path)
    issued = authority.issue_server("hook", ["localhost"], ["127.0.0.1"])
    certificate, key = tmp_path / "hook.crt", tmp_path / "hook.key"
    certificate.write_bytes(issued.certificate_pem)
    key.write_bytes(issued.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    pem = authority.certificate_pem
    made = Hook("", base64.b64encode(pem if isinstance(pem, bytes) else pem.encode()).decode())
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    made.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    made.hanging.set()
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with api_server() as server, connected(server) as client:
        yield client


async def configure(http: Http, document: Document) -> None:
    plural = document["kind"].lower() + ("s" if not document["kind"].endswith("y") else "")
    plural = plural[:-1] + "ies" if plural.endswith("y") else plural
    created = await http("POST", f"{ADMISSION}/{plural}", document)
    assert created.status == 201, created.body


def patch(*operations: Document) -> Document:
    data = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": data}


async def test_a_mutating_webhook_changes_what_is_stored(http: Http, hook: Hook) -> None:
    hook.answers["/label"] = lambda request: (
        patch({"op": "add", "path": "/metadata/labels", "value": {"seen": request["operation"]}})
        | {"warnings": ["it was changed"]}
    )
    await configure(http, hook.configuration("Mutating", "label", "/label"))
    created = await http("POST", CONFIG_MAPS, config_map("a", x="1"))
    assert created.status == 201, created.body
    assert created.body["metadata"]["labels"] == {"seen": "CREATE"}
    assert "it was changed" in created.headers["Warning"]
    request = hook.asked[0]
    assert request["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert request["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (request["name"], request["namespace"], request["dryRun"]) == ("a", "default", False)
    assert request["userInfo"]["username"] == "kubernetes-admin"
    assert request["object"]["data"] == {"x": "1"} and request["oldObject"] is None
    updated = await http("PATCH", f"{CONFIG_MAPS}/a", {"data": {"x": "2"}}, **MERGE)
    assert updated.body["metadata"]["labels"] == {"seen": "UPDATE"}
    assert hook.asked[-1]["oldObject"]["data"] == {"x": "1"}
    managers = {each["manager"] for each in updated.body["metadata"]["managedFields"]}
    assert managers  # what a webhook sets belongs to whoever wrote


async def test_earlier_webhooks_are_asked_again_when_later_ones_change_something(http: Http, hook: Hook) -> None:
    counts = {"/first": 0}

    def first(request: Document) -> Document:
        counts["/first"] += 1
        return patch({"op": "add", "path": "/data/first", "value": str(counts["/first"])})

    hook.answers["/first"] = first
    hook.answers["/second"] = lambda request: patch({"op": "add", "path": "/data/second", "value": "x"})
    document = hook.configuration("Mutating", "both", "/first", "/second", reinvocationPolicy="IfNeeded")
    await configure(http, document)
    created = await http("POST", CONFIG_MAPS, config_map("a", x="1"))
    assert created.body["data"] == {"x": "1", "first": "2", "second": "x"}


async def test_policies_come_before_webhooks_and_once_more_after_them(http: Http, hook: Hook) -> None:
    hook.answers["/see"] = lambda request: (
        patch({"op": "add", "path": "/data/hook", "value": request["object"]["data"]["policy"]})
        if "hook" not in request["object"]["data"]
        else {"allowed": True}
    )
    await configure(http, hook.configuration("Mutating", "see", "/see", reinvocationPolicy="IfNeeded"))
    expression = "Object{data: {'policy': 'has(hook): ' + string(has(object.data.hook))}}"
    rules = [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]
    document = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "see"},
        "spec": {
            "matchConstraints": {"resourceRules": rules},
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
            "reinvocationPolicy": "IfNeeded",
        },
    }
    await configure(http, document)
    bound = {**document, "kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": "see"}}
    await configure(http, bound)
    created = await http("POST", CONFIG_MAPS, config_map("a", x="1"))
    assert created.body["data"] == {"x": "1", "policy": "has(hook): true", "hook": "has(hook): false"}
    assert [each["object"]["data"].get("policy") for each in hook.asked] == ["has(hook): false", "has(hook): true"]


async def test_what_a_webhook_changes_is_judged_like_what_a_client_sends(http: Http, hook: Hook) -> None:
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    assert (await http("PATCH", "/api/v1/namespaces/default", labels, **MERGE)).status == 200
    hook.answers["/host"] = lambda request: patch({"op": "add", "path": "/spec/hostNetwork", "value": True})
    rules = [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]
    await configure(http, hook.configuration("Mutating", "host", "/host", rules=rules))
    refused = await http("POST", PODS, pod("a"))
    assert refused.status == 403 and "violates PodSecurity" in refused.body["message"]


async def test_a_validating_webhook_refuses(http: Http, hook: Hook) -> None:
    hook.answers["/no"] = lambda request: {
        "allowed": request["name"] != "bad",
        "status": {"code": 418, "message": "not this one"},
    }
    await configure(http, hook.configuration("Validating", "no", "/no"))
    assert (await http("POST", CONFIG_MAPS, config_map("good"))).status == 201
    refused = await http("POST", CONFIG_MAPS, config_map("bad"))
    assert refused.status == 418
    assert refused.body["message"] == 'admission webhook "no.example.test" denied the request: not this one'
    assert (await http("GET", f"{CONFIG_MAPS}/bad")).status == 404


async def test_deletions_are_asked_about_too(http: Http, hook: Hook) -> None:
    hook.answers["/keep"] = lambda request: {"allowed": request["operation"] != "DELETE"}
    await configure(http, hook.configuration("Validating", "keep", "/keep"))
    await http("POST", CONFIG_MAPS, config_map("a"))
    refused = await http("DELETE", f"{CONFIG_MAPS}/a")
    assert refused.status == 403
    assert refused.body["message"].endswith("denied the request without explanation")
    assert hook.asked[-1]["object"] is None and hook.asked[-1]["oldObject"]["metadata"]["name"] == "a"


@pytest.mark.parametrize("path", ["/hang", "/broken"])
async def test_failure_policy_decides_when_a_webhook_fails(http: Http, hook: Hook, path: str) -> None:
    document = hook.configuration("Validating", "failing", path, timeoutSeconds=1)
    await configure(http, document)
    refused = await http("POST", CONFIG_MAPS, config_map("a"))
    assert refused.status == 500
    assert f'failed calling webhook "{path.strip("/")}.example.test"' in refused.body["message"]
    webhooks = [{**document["webhooks"][0], "failurePolicy": "Ignore"}]
    configuration = f"{ADMISSION}/validatingwebhookconfigurations/failing"
    assert (await http("PATCH", configuration, {"webhooks": webhooks}, **MERGE)).status == 200
    assert (await http("POST", CONFIG_MAPS, config_map("a"))).status == 201


async def test_untrusted_webhooks_are_not_asked(http: Http, hook: Hook, tmp_path: Path) -> None:
    other = Authority.load_or_create(tmp_path / "other").certificate_pem
    hook.bundle = base64.b64encode(other if isinstance(other, bytes) else other.encode()).decode()
    hook.answers["/yes"] = lambda request: {"allowed": True}
    await configure(http, hook.configuration("Validating", "yes", "/yes"))
    refused = await http("POST", CONFIG_MAPS, config_map("a"))
    assert refused.status == 500 and "certificate" in refused.body["message"].lower()
    assert hook.asked == []


async def test_selectors_and_conditions_narrow(http: Http, hook: Hook) -> None:
    hook.answers["/no"] = lambda request: {"allowed": False}
    document = hook.configuration(
        "Validating",
        "no",
        "/no",
        objectSelector={"matchLabels": {"judged": "yes"}},
        namespaceSelector={"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        matchConditions=[{"name": "big", "expression": "object.data.size() > 1"}],
    )
    await configure(http, document)
    labels = {"metadata": {"labels": {"kubernetes.io/metadata.name": "default"}}}
    assert (await http("PATCH", "/api/v1/namespaces/default", labels, **MERGE)).status == 200
    assert (await http("POST", CONFIG_MAPS, config_map("a", x="1", y="2"))).status == 201
    assert (await http("POST", CONFIG_MAPS, config_map("b", labels={"judged": "yes"}, x="1"))).status == 201
    elsewhere = CONFIG_MAPS.replace("default", "kube-system")
    judged = config_map("c", labels={"judged": "yes"}, x="1", y="2")
    assert (await http("POST", elsewhere, judged)).status == 201
    assert (await http("POST", CONFIG_MAPS, judged)).status == 403


async def test_dry_run_is_told(http: Http, hook: Hook) -> None:
    hook.answers["/yes"] = lambda request: {"allowed": True}
    await configure(http, hook.configuration("Validating", "yes", "/yes"))
    assert (await http("POST", f"{CONFIG_MAPS}?dryRun=All", config_map("a"))).status == 201
    assert hook.asked[0]["dryRun"] is True


async def test_configurations_are_never_asked_about(http: Http, hook: Hook) -> None:
    everything = [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]
    hook.answers["/no"] = lambda request: {"allowed": False}
    await configure(http, hook.configuration("Validating", "no", "/no", rules=everything))
    assert (await http("POST", CONFIG_MAPS, config_map("a"))).status == 403
    assert (await http("DELETE", f"{ADMISSION}/validatingwebhookconfigurations/no")).status == 200
    assert (await http("POST", CONFIG_MAPS, config_map("a"))).status == 201


async def test_wrong_configurations_are_refused(http: Http, hook: Hook) -> None:
    document = hook.configuration("Validating", "wrong", "/x", sideEffects="Some")
    refused = await http("POST", f"{ADMISSION}/validatingwebhookconfigurations", document)
    assert refused.status == 422
    assert [each["field"] for each in refused.body["details"]["causes"]] == ["webhooks[0].sideEffects"]


# Policies


def policy(name: str, *validations: Document, **spec: Any) -> Document:
    rules = [
        {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    ]
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": rules}, "validations": list(validations), **spec},
    }


def binding(name: str, **spec: Any) -> Document:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], **spec},
    }


async def test_a_policy_denies_where_it_is_bound(http: Http) -> None:
    await configure(http, policy("few", {"expression": "object.data.size() <= variables.most"},
                                 variables=[{"name": "most", "expression": "1"}]))  # fmt: skip
    assert (await http("POST", CONFIG_MAPS, config_map("a", x="1", y="2"))).status == 201
    await configure(http, binding("few"))
    assert (await http("POST", CONFIG_MAPS, config_map("b", x="1"))).status == 201
    refused = await http("POST", CONFIG_MAPS, config_map("c", x="1", y="2"))
    assert (refused.status, refused.reason) == (422, "Invalid")
    expected = (
        "configmaps \"c\" is forbidden: ValidatingAdmissionPolicy 'few' with binding 'few' denied request: "
        "failed expression: object.data.size() <= variables.most"
    )
    assert refused.body["message"] == expected


async def test_what_policies_can_ask(http: Http) -> None:
    subject = "authorizer.serviceAccount('default', 'default').group('').resource('pods')"
    await configure(http, policy("ask", {"expression": "true"}))
    await configure(http, binding("ask"))
    for number, (expression, allowed) in enumerate(
        (
            ("request.userInfo.username == 'kubernetes-admin'", True),
            ("request.operation == 'CREATE' && oldObject == null", True),
            ("namespaceObject.metadata.name == 'default'", True),
            ("authorizer.group('').resource('pods').namespace('default').check('delete').allowed()", True),
            (f"{subject}.check('get').allowed()", False),
            ("has(object.metadata.labels)", False),
            ("object.data.missing == 'x'", False),
        )
    ):
        change = {"spec": {"validations": [{"expression": expression}]}}
        path = f"{ADMISSION}/validatingadmissionpolicies/ask"
        assert (await http("PATCH", path, change, **MERGE)).status == 200
        answered = await http("POST", CONFIG_MAPS, config_map(f"a{number}", x="1"))
        assert answered.status == (201 if allowed else 422), expression


async def test_parameters_messages_reasons_and_warnings(http: Http) -> None:
    limits = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "limits"}, "data": {"most": "1"}}
    assert (await http("POST", CONFIG_MAPS, limits)).status == 201
    validation = {
        "expression": "object.data.size() <= int(params.data.most)",
        "messageExpression": "'at most ' + params.data.most",
        "reason": "Forbidden",
    }
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    await configure(http, policy("few", validation, paramKind=kind))
    reference = {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}
    await configure(http, binding("few", paramRef=reference))
    refused = await http("POST", CONFIG_MAPS, config_map("a", x="1", y="2"))
    assert (refused.status, refused.reason) == (403, "Forbidden")
    assert refused.body["message"].endswith("denied request: at most 1")
    path = f"{ADMISSION}/validatingadmissionpolicybindings/few"
    assert (await http("PATCH", path, {"spec": {"validationActions": ["Warn"]}}, **MERGE)).status == 200
    warned = await http("POST", CONFIG_MAPS, config_map("a", x="1", y="2"))
    assert warned.status == 201 and "at most 1" in warned.headers["Warning"]
    absent = {"validationActions": ["Deny"], "paramRef": {**reference, "name": "gone"}}
    assert (await http("PATCH", path, {"spec": absent}, **MERGE)).status == 200
    missing = await http("POST", CONFIG_MAPS, config_map("b"))
    assert missing.status == 422 and "no params found" in missing.body["message"]


async def test_conditions_see_the_parameters(http: Http) -> None:
    for name in ("strict", "lax"):
        limits = config_map(name, labels={"limits": "yes"}, most="1", on=str(name == "strict"))
        assert (await http("POST", CONFIG_MAPS, limits)).status == 201
    conditions = [{"name": "on", "expression": "params.data.on == 'True'"}]
    validation = {"expression": "false", "messageExpression": "'by ' + params.metadata.name"}
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    await configure(http, policy("few", validation, paramKind=kind, matchConditions=conditions))
    reference = {"selector": {"matchLabels": {"limits": "yes"}}, "parameterNotFoundAction": "Deny"}
    await configure(http, binding("few", paramRef=reference))
    refused = await http("POST", CONFIG_MAPS, config_map("a"))
    assert refused.body["message"].endswith("denied request: by strict")
    assert (await http("DELETE", f"{CONFIG_MAPS}/strict")).status == 200
    assert (await http("POST", CONFIG_MAPS, config_map("a"))).status == 201


async def test_policies_that_do_not_compile_are_refused(http: Http) -> None:
    wrong = await http("POST", f"{ADMISSION}/validatingadmissionpolicies", policy("x", {"expression": "objct.data"}))
    assert wrong.status == 422
    assert "undeclared reference to 'objct" in wrong.body["message"]
    text = await http("POST", f"{ADMISSION}/validatingadmissionpolicies", policy("x", {"expression": "'text'"}))
    assert text.status == 422 and "must evaluate to a bool" in text.body["message"]


async def test_an_endless_expression_is_cut_off(http: Http) -> None:
    expression = "object.data.all(a, object.data.all(b, object.data.all(c, object.data.all(d, a + b + c + d != ''))))"
    await configure(http, policy("slow", {"expression": expression}))
    await configure(http, binding("slow"))
    started = datetime.datetime.now(datetime.UTC)  # noqa: TID251 - measured, not compared with the cluster's
    refused = await http("POST", CONFIG_MAPS, config_map("a", **{f"k{i}": "v" for i in range(200)}))
    assert refused.status == 422 and "cost limit exceeded" in refused.body["message"]
    assert (datetime.datetime.now(datetime.UTC) - started).total_seconds() < 20  # noqa: TID251
