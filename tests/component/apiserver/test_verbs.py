"""The verbs on one object, over the wire."""

import asyncio
import json
from typing import Any

import pytest

from pilotage.testing.wire import CONFIG_MAPS, PODS, Http, config_map, pod


async def test_create_answers_the_object_as_stored(http: Http) -> None:
    created = await http("POST", CONFIG_MAPS, config_map("a", x="1"))
    assert created.status == 201
    metadata = created.body["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["uid"] and metadata["creationTimestamp"] and metadata["resourceVersion"]
    got = await http("GET", f"{CONFIG_MAPS}/a")
    assert (got.status, got.body) == (200, created.body)


async def test_generated_names_are_unique(http: Http) -> None:
    body = config_map("")
    body["metadata"] = {"generateName": "web-"}
    answers = await asyncio.gather(*(http("POST", CONFIG_MAPS, body) for _ in range(20)))
    names = {answer.body["metadata"]["name"] for answer in answers}
    assert len(names) == 20
    assert all(name.startswith("web-") and len(name) == 9 for name in names)


REFUSED_CREATES: list[Any] = [
    pytest.param(config_map("a"), {}, 409, "AlreadyExists", id="a name that is taken"),
    pytest.param({**config_map("b"), "kind": "Secret"}, {}, 400, "BadRequest", id="another kind"),
    pytest.param({**config_map("b"), "apiVersion": "v2"}, {}, 400, "BadRequest", id="another version"),
    pytest.param({"metadata": {}}, {}, 422, "Invalid", id="no name"),
    pytest.param(
        {"metadata": {"name": "b", "namespace": "kube-system"}}, {}, 400, "BadRequest", id="another namespace"
    ),
    pytest.param({"metadata": {"name": "b", "resourceVersion": "1"}}, {}, 400, "BadRequest", id="a resourceVersion"),
    pytest.param({"metadata": {"name": "B_b"}}, {}, 422, "Invalid", id="a name that is no DNS name"),
    pytest.param([1], {}, 400, "BadRequest", id="an array"),
    pytest.param(b"{", {}, 400, "BadRequest", id="half a document"),
    pytest.param(b"x", {"Content_Type": "text/csv"}, 415, "UnsupportedMediaType", id="a table"),
    pytest.param(b"a" * (3 * 1024 * 1024 + 1), {}, 413, "RequestEntityTooLarge", id="more than three mebibytes"),
    pytest.param(b"a: &x [1]\nb: *x", {"Content_Type": "application/yaml"}, 400, "BadRequest", id="YAML aliases"),
]


@pytest.mark.parametrize(("body", "headers", "status", "reason"), REFUSED_CREATES)
async def test_refused_creates(http: Http, body: Any, headers: dict[str, str], status: int, reason: str) -> None:
    await http("POST", CONFIG_MAPS, config_map("a"))
    answer = await http("POST", CONFIG_MAPS, body, **headers)
    assert (answer.status, answer.body.get("reason"), answer.body["kind"]) == (status, reason, "Status"), answer.body
    assert answer.body["code"] == status


async def test_an_object_needs_its_namespace(http: Http) -> None:
    answer = await http("POST", "/api/v1/namespaces/nowhere/configmaps", config_map("a"))
    assert (answer.status, answer.reason) == (404, "NotFound")


async def test_yaml_bodies(http: Http) -> None:
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  day: 2024-01-01\n"
    answer = await http("POST", CONFIG_MAPS, text, Content_Type="application/yaml")
    assert (answer.status, answer.body["data"]) == (201, {"day": "2024-01-01"})


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        (f"{CONFIG_MAPS}/none", 404, "NotFound"),
        ("/api/v1/namespaces/default/things", 404, "NotFound"),
        ("/apis/none.example/v1/things", 404, "NotFound"),
        ("/api/v1/configmaps/a", 404, "NotFound"),
        ("/nothing", 404, "NotFound"),
        (f"{CONFIG_MAPS}/none/status", 404, "NotFound"),
    ],
)
async def test_what_is_not_there(http: Http, path: str, status: int, reason: str) -> None:
    answer = await http("GET", path)
    assert (answer.status, answer.reason) == (status, reason)


async def test_not_found_names_the_object(http: Http) -> None:
    answer = await http("GET", "/apis/apps/v1/namespaces/default/deployments/web")
    assert answer.body["message"] == 'deployments.apps "web" not found'
    assert answer.body["details"] == {"name": "web", "group": "apps", "kind": "deployments"}


async def test_verbs_a_resource_does_not_have(http: Http) -> None:
    assert (await http("DELETE", "/api/v1/namespaces")).status == 405
    assert (await http("PUT", CONFIG_MAPS, config_map("a"))).status == 405
    assert (await http("POST", f"{PODS}/a/status", pod("a"))).status == 405


async def test_update_with_the_version_seen(http: Http) -> None:
    created = (await http("POST", CONFIG_MAPS, config_map("a", x="1"))).body
    created["data"] = {"x": "2"}
    updated = await http("PUT", f"{CONFIG_MAPS}/a", created)
    assert (updated.status, updated.body["data"]) == (200, {"x": "2"})
    assert int(updated.version) > int(created["metadata"]["resourceVersion"])
    stale = await http("PUT", f"{CONFIG_MAPS}/a", created)
    assert (stale.status, stale.reason) == (409, "Conflict")
    assert updated.body["metadata"]["uid"] == created["metadata"]["uid"]


async def test_update_without_a_version_overwrites(http: Http) -> None:
    await http("POST", CONFIG_MAPS, config_map("a", x="1"))
    answer = await http("PUT", f"{CONFIG_MAPS}/a", config_map("a", y="2"))
    assert (answer.status, answer.body["data"]) == (200, {"y": "2"})


async def test_an_update_that_changes_nothing_takes_no_revision(http: Http) -> None:
    created = await http("POST", CONFIG_MAPS, config_map("a", x="1"))
    answer = await http("PUT", f"{CONFIG_MAPS}/a", created.body)
    assert answer.version == created.version


async def test_update_refuses_another_object_of_the_name(http: Http) -> None:
    created = (await http("POST", CONFIG_MAPS, config_map("a"))).body
    created["metadata"] |= {"uid": "someone-else", "resourceVersion": ""}
    assert (await http("PUT", f"{CONFIG_MAPS}/a", created)).status == 409
    assert (await http("PUT", f"{CONFIG_MAPS}/b", config_map("a"))).status == 400
    assert (await http("PUT", f"{CONFIG_MAPS}/b", config_map("b"))).status == 404


PATCHES: list[Any] = [
    pytest.param("application/merge-patch+json", {"data": {"x": None, "y": "2"}}, id="merge"),
    pytest.param("application/strategic-merge-patch+json", {"data": {"x": None, "y": "2"}}, id="strategic merge"),
    pytest.param(
        "application/json-patch+json",
        [{"op": "remove", "path": "/data/x"}, {"op": "add", "path": "/data/y", "value": "2"}],
        id="JSON patch",
    ),
]


@pytest.mark.parametrize(("content_type", "patch"), PATCHES)
async def test_patches(http: Http, content_type: str, patch: Any) -> None:
    await http("POST", CONFIG_MAPS, config_map("a", x="1"))
    answer = await http("PATCH", f"{CONFIG_MAPS}/a", patch, Content_Type=content_type)
    assert (answer.status, answer.body["data"]) == (200, {"y": "2"})


async def test_a_patch_of_an_unknown_type(http: Http) -> None:
    await http("POST", CONFIG_MAPS, config_map("a"))
    answer = await http("PATCH", f"{CONFIG_MAPS}/a", {}, Content_Type="application/json")
    assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")


async def test_concurrent_patches_all_take_effect(http: Http) -> None:
    await http("POST", CONFIG_MAPS, config_map("a"))
    kind = "application/merge-patch+json"
    answers = await asyncio.gather(
        *(http("PATCH", f"{CONFIG_MAPS}/a", {"data": {str(n): "x"}}, Content_Type=kind) for n in range(12))
    )
    assert [answer.status for answer in answers] == [200] * 12
    assert len((await http("GET", f"{CONFIG_MAPS}/a")).body["data"]) == 12


async def test_apply_creates_then_owns(http: Http) -> None:
    kind = "application/apply-patch+yaml"
    applied = await http(
        "PATCH", f"{CONFIG_MAPS}/a?fieldManager=one", json.dumps(config_map("a", x="1")).encode(), Content_Type=kind
    )
    assert applied.status == 201
    again = await http("PATCH", f"{CONFIG_MAPS}/a?fieldManager=one", config_map("a", x="1"), Content_Type=kind)
    assert (again.status, again.version) == (200, applied.version)
    taken = await http("PATCH", f"{CONFIG_MAPS}/a?fieldManager=two", config_map("a", x="2"), Content_Type=kind)
    assert (taken.status, taken.reason) == (409, "Conflict")
    assert taken.body["details"]["causes"][0]["field"] == ".data.x"
    forced = await http(
        "PATCH", f"{CONFIG_MAPS}/a?fieldManager=two&force=true", config_map("a", x="2"), Content_Type=kind
    )
    assert (forced.status, forced.body["data"]) == (200, {"x": "2"})
    assert (await http("PATCH", f"{CONFIG_MAPS}/a", config_map("a"), Content_Type=kind)).status == 400


async def test_dry_runs_leave_no_trace(http: Http) -> None:
    tried = await http("POST", f"{CONFIG_MAPS}?dryRun=All", config_map("a", x="1"))
    assert tried.status == 201 and "resourceVersion" not in tried.body["metadata"]
    assert (await http("GET", f"{CONFIG_MAPS}/a")).status == 404
    created = await http("POST", CONFIG_MAPS, config_map("a", x="1"))
    kind = "application/merge-patch+json"
    patched = await http("PATCH", f"{CONFIG_MAPS}/a?dryRun=All", {"data": {"x": "2"}}, Content_Type=kind)
    assert patched.body["data"] == {"x": "2"}
    assert (await http("DELETE", f"{CONFIG_MAPS}/a?dryRun=All")).status == 200
    assert (await http("GET", f"{CONFIG_MAPS}/a")).body == created.body
    assert (await http("POST", f"{CONFIG_MAPS}?dryRun=Some", config_map("b"))).status == 400


async def test_unknown_fields_by_validation_level(http: Http) -> None:
    body = {**config_map("a"), "dta": {}}
    strict = await http("POST", f"{CONFIG_MAPS}?fieldValidation=Strict", body)
    assert strict.status == 400 and 'unknown field "dta"' in strict.body["message"]
    warned = await http("POST", CONFIG_MAPS, body)
    assert warned.status == 201 and 'unknown field \\"dta\\"' in warned.headers["Warning"]
    body["metadata"] = {"name": "b"}
    ignored = await http("POST", f"{CONFIG_MAPS}?fieldValidation=Ignore", body)
    assert ignored.status == 201 and "Warning" not in ignored.headers


async def test_status_and_spec_are_written_apart(http: Http) -> None:
    created = (await http("POST", PODS, {**pod("a"), "status": {"phase": "Failed"}})).body
    assert created["status"].get("phase") != "Failed"
    body = {**created, "status": {"phase": "Running", "podIP": "10.0.0.1"}}
    body["metadata"] = {**created["metadata"], "labels": {"x": "y"}}
    status = await http("PUT", f"{PODS}/a/status", body)
    assert status.body["status"]["podIP"] == "10.0.0.1"
    kind = "application/strategic-merge-patch+json"
    patched = await http("PATCH", f"{PODS}/a", {"status": {"podIP": "10.0.0.9"}}, Content_Type=kind)
    assert patched.body["status"]["podIP"] == "10.0.0.1"
    stale = await http("PUT", f"{PODS}/a/status", body)
    assert (stale.status, stale.reason) == (409, "Conflict")
    assert (await http("GET", f"{PODS}/a/status")).body == patched.body
