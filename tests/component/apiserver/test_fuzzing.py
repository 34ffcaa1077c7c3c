"""Nothing a client sends makes the server fail: documents near each kind's schema, patches of every type, junk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotage.api.catalogue import BUILTIN, Resource
from pilotage.testing.cluster import api_server
from pilotage.testing.fuzz import document
from pilotage.testing.wire import CONFIG_MAPS, PODS, Answer, Http, config_map, connected, pod

MODEST = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SEEDS_PER_KIND = 4
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with api_server() as server, connected(server) as client:
        yield client


def sound(answer: Answer, *what: object) -> Answer:
    """Every answer is a success or a Status that blames the client."""
    assert answer.status < 500, (what, answer.body)
    if answer.status >= 400:
        assert answer.body["kind"] == "Status" and answer.body["message"], (what, answer.body)
    return answer


@pytest.mark.parametrize("resource", BUILTIN, ids=lambda item: f"{item.plural}.{item.group}.{item.version}")
async def test_documents_near_a_kinds_schema(http: Http, resource: Resource) -> None:
    path = resource.path("default") if resource.namespaced else resource.path()
    for seed in range(SEEDS_PER_KIND):
        made = sound(await http("POST", path, document(resource, seed)), "create", seed)
        if made.status != 201 or not resource.stored:
            continue
        name = made.body["metadata"]["name"]
        sound(await http("PUT", f"{path}/{name}", document(resource, seed + 1_000)), "update", seed)
        patch = document(resource, seed + 2_000)
        applied = {**patch, "apiVersion": resource.api_version, "kind": resource.kind}
        for kind, body in (("merge", patch), ("strategic-merge", patch), ("apply", applied)):
            header = f"application/{kind}-patch+{'yaml' if kind == 'apply' else 'json'}"
            query = "?fieldManager=x&force=true" if kind == "apply" else ""
            sound(await http("PATCH", f"{path}/{name}{query}", body, Content_Type=header), kind, seed)
        for subresource in resource.subresources:
            if "update" in subresource.verbs and subresource.name != "proxy":  # that answers for somebody else
                target = f"{path}/{name}/{subresource.name}"
                sound(await http("PUT", target, document(resource, seed + 3_000)), subresource.name, seed)
        sound(await http("GET", path, Accept=TABLE), "table", seed)
        sound(await http("DELETE", f"{path}/{name}", {"gracePeriodSeconds": 0}), "delete", seed)


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.sampled_from(("", "a", "name", "metadata", "spec", "data", "$patch", "replace", "delete", "null"))
JSON = st.recursive(
    SCALARS | TEXTS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
KEYS = ("metadata", "spec", "status", "data", "kind", "apiVersion", "labels", "containers", "name", "finalizers",
        "managedFields", "annotations", "ownerReferences", "$patch", "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers", "$retainKeys", "resourceVersion", "env", "volumes")  # fmt: skip
PATCHES = st.recursive(
    JSON, lambda inner: st.dictionaries(st.sampled_from(KEYS), inner | st.lists(inner, max_size=2), max_size=4)
)  # fmt: skip
POINTERS = st.sampled_from(
    ("", "/", "/data", "/data/a", "/data/-", "/metadata/labels", "/metadata/labels/a~1b", "/metadata/name", "/spec",
     "/metadata/finalizers/0", "/metadata/finalizers/-", "/data/~2", "a", "/metadata", "/kind", "/spec/containers/99")
)  # fmt: skip
OPERATIONS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(("add", "remove", "replace", "move", "copy", "test", "x", 1, None)), "path": POINTERS},
        optional={"from": POINTERS, "value": JSON},
    )
    | JSON,
    max_size=4,
)


@MODEST
@given(patch=PATCHES, kind=st.sampled_from(("merge", "strategic-merge", "apply")), force=st.booleans())
async def test_patches(http: Http, patch: Any, kind: str, *, force: bool) -> None:
    await http("POST", CONFIG_MAPS, config_map("m"))
    await http("POST", PODS, pod("m"))
    header = f"application/{kind}-patch+{'yaml' if kind == 'apply' else 'json'}"
    query = f"?fieldManager=f&force={str(force).lower()}" if kind == "apply" else ""
    for path in (f"{CONFIG_MAPS}/m", f"{PODS}/m", f"{PODS}/m/status", f"{CONFIG_MAPS}/absent"):
        body = patch
        if kind == "apply" and isinstance(patch, dict):
            body = {"apiVersion": "v1", "kind": "ConfigMap" if "config" in path else "Pod", **patch}
        sound(await http("PATCH", path + query, body, Content_Type=header))


@MODEST
@given(operations=OPERATIONS)
async def test_json_patches(http: Http, operations: Any) -> None:
    await http("POST", CONFIG_MAPS, config_map("m"))
    sound(await http("PATCH", f"{CONFIG_MAPS}/m", operations, Content_Type="application/json-patch+json"))


DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


@MODEST
@given(body=PATCHES)
async def test_bodies_of_everything_that_is_no_plain_object(http: Http, body: Any) -> None:
    await http("POST", PODS, pod("m"))
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await http("POST", DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec})
    for method, path in (
        ("POST", f"{PODS}/m/binding"),
        ("POST", f"{PODS}/m/eviction"),
        ("PUT", f"{DEPLOYMENTS}/d/scale"),
        ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token"),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews"),
        ("PUT", "/api/v1/namespaces/default/finalize"),
        ("DELETE", f"{CONFIG_MAPS}/absent"),
        ("DELETE", CONFIG_MAPS),
    ):
        sound(await http(method, path, body), method, path)
    for kind in ("merge-patch+json", "strategic-merge-patch+json", "json-patch+json"):
        sound(await http("PATCH", f"{DEPLOYMENTS}/d/scale", body, Content_Type=f"application/{kind}"))


PARAMETERS = (
    "labelSelector", "fieldSelector", "resourceVersion", "resourceVersionMatch", "limit", "continue", "timeoutSeconds",
    "sendInitialEvents", "allowWatchBookmarks", "dryRun", "fieldManager", "fieldValidation", "gracePeriodSeconds",
    "propagationPolicy", "orphanDependents", "pretty", "includeObject",
)  # fmt: skip
VALUES = st.sampled_from(
    ("", "0", "1", "-1", "true", "x", "a=b", "a in (b,c)", "!a", "a,,", "metadata.name=a", "spec.nodeName!=x", "Exact",
     "NotOlderThan", "All", "Strict", "Orphan", "9" * 30, "e30", "%00", "a==b==c", "((")
)  # fmt: skip


@MODEST
@given(query=st.dictionaries(st.sampled_from(PARAMETERS), VALUES, max_size=5))
async def test_parameters(http: Http, query: dict[str, str]) -> None:
    text = "&".join(f"{name}={value}" for name, value in query.items())
    sound(await http("GET", f"{CONFIG_MAPS}?{text}", Accept=TABLE))
    sound(await http("GET", f"{PODS}?{text}"))
    sound(await http("POST", f"{CONFIG_MAPS}?{text}", {"metadata": {"generateName": "g-"}}))
    sound(await http("DELETE", f"{CONFIG_MAPS}?{text}"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"{",
        b'{"metadata":' * 5_000,
        b"[" * 100_000,
        b'{"metadata":{"name":"\\ud800"}}',
        b'{"metadata":{"name":"a"},"data":{"k":"\\u0000"}}',
        b"\xff\xfe",
        b'{"metadata":{"name":"a"},"metadata":{"name":"b"}}',
        b'{"data":{' + b",".join(b'"k%d":"v"' % i for i in range(100_000)) + b'},"metadata":{"name":"big"}}',
        b'{"metadata":{"name":"n"},"data":{"k":1e999}}',
    ],
    ids=["empty", "null", "list", "number", "string", "cut off", "nested objects", "nested lists", "lone surrogate",
         "nul", "no UTF-8", "duplicate keys", "100,000 keys", "infinity"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"])
async def test_bodies_that_are_no_documents(http: Http, body: bytes, kind: str) -> None:
    sound(await http("POST", CONFIG_MAPS, body, Content_Type=kind))
    assert (await http("POST", CONFIG_MAPS, config_map("after"))).status == 201
