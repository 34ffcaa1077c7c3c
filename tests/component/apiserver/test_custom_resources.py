"""CustomResourceDefinitions over real HTTP: from the definition to the objects, and back to nothing."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pilotage.testing.cluster import api_server
from pilotage.testing.wire import Http, connected

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.test/v1/namespaces/default/widgets"
ALL_WIDGETS = "/apis/example.test/v1/widgets"

SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 10},
        "limit": {"type": "integer", "default": 5},
        "colour": {"type": "string", "enum": ["red", "green"], "default": "red"},
        "code": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "port": {"x-kubernetes-int-or-string": True},
        "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "weight": {"type": "integer", "default": 1}},
            },
        },
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "name": {
            "type": "string",
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "name is immutable"}],
        },
    },
    "x-kubernetes-validations": [
        {
            "rule": "self.size <= self.limit",
            "messageExpression": "'size %d is over %d'.format([self.size, self.limit])",
            "fieldPath": ".size",
        },
    ],
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A widget.",
    "required": ["spec"],
    "properties": {
        "spec": SPEC,
        "status": {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer"},
                "selector": {"type": "string"},
                "phase": {"type": "string"},
            },
        },
    },
}


def definition(**changes: Any) -> dict[str, Any]:
    version: dict[str, Any] = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": copy.deepcopy(SCHEMA)},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.size",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "selectableFields": [{"jsonPath": ".spec.colour"}],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.test"},
        "spec": {
            "group": "example.test",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [version],
            **changes,
        },
    }


def widget(name: str, /, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.test/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": 1, **spec}}


async def until_served(http: Http, path: str = ALL_WIDGETS) -> None:
    async with asyncio.timeout(1):  # what the project promises
        while (await http("GET", path)).status != 200:
            await asyncio.sleep(0.01)


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with api_server() as server, connected(server) as client:
        created = await client("POST", DEFINITIONS, definition())
        assert created.status == 201, created.body
        await until_served(client)
        yield client


async def test_definition_reports_that_it_is_served(http: Http) -> None:
    async with asyncio.timeout(10):  # it is served first, then it says so
        while "status" not in (found := (await http("GET", f"{DEFINITIONS}/widgets.example.test")).body):
            await asyncio.sleep(0.01)
    conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert found["status"]["storedVersions"] == ["v1"]
    assert found["status"]["acceptedNames"]["listKind"] == "WidgetList"
    assert found["spec"]["names"]["singular"] == "widget"


async def test_discovery_of_every_kind_knows_it(http: Http) -> None:
    listed = (await http("GET", "/apis/example.test/v1")).body["resources"]
    assert [each["name"] for each in listed] == ["widgets", "widgets/status", "widgets/scale"]
    assert listed[0]["shortNames"] == ["wd"] and listed[0]["categories"] == ["all"]
    groups = (await http("GET", "/apis")).body["groups"]
    assert "example.test" in [each["name"] for each in groups]
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    aggregated = (await http("GET", "/apis", Accept=accept)).body["items"]
    assert "example.test" in [each["metadata"]["name"] for each in aggregated]


async def test_openapi_publishes_its_schema(http: Http) -> None:
    index = (await http("GET", "/openapi/v3")).body["paths"]
    document = (await http("GET", index["apis/example.test/v1"]["serverRelativeURL"])).body
    schema = document["components"]["schemas"]["test.example.v1.Widget"]
    assert schema["description"] == "A widget."
    assert schema["properties"]["spec"]["properties"]["size"]["maximum"] == 10
    assert "/apis/example.test/v1/namespaces/{namespace}/widgets/{name}/scale" in document["paths"]
    older = (await http("GET", "/openapi/v2")).body
    assert older["definitions"]["test.example.v1.Widget"]["properties"]["spec"]["type"] == "object"


async def test_addresses_of_other_openapi_documents_outlive_a_definition(http: Http) -> None:
    before = (await http("GET", "/openapi/v3")).body["paths"]
    other = definition(names={"plural": "gadgets", "kind": "Gadget"}, group="other.test")
    other["metadata"]["name"] = "gadgets.other.test"
    assert (await http("POST", DEFINITIONS, other)).status == 201
    await until_served(http, "/apis/other.test/v1/gadgets")
    after = (await http("GET", "/openapi/v3")).body["paths"]
    assert {path: after[path] for path in before} == before
    assert after.keys() - before.keys() == {"apis/other.test/v1"}


async def test_objects_are_defaulted_pruned_and_counted(http: Http) -> None:
    created = await http("POST", WIDGETS, widget("a", bogus=1, extra={"any": [1]}, parts=[{"name": "p", "x": 1}]))
    assert created.status == 201
    assert created.body["spec"] == {
        "size": 1,
        "limit": 5,
        "colour": "red",
        "extra": {"any": [1]},
        "parts": [{"name": "p", "weight": 1}],
    }
    assert created.body["metadata"]["generation"] == 1
    warnings = created.headers.getall("Warning")
    assert any('unknown field \\"spec.bogus\\"' in each for each in warnings)
    strict = await http("POST", f"{WIDGETS}?fieldValidation=Strict", widget("b", bogus=1))
    assert (strict.status, strict.reason) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.bogus"' in strict.body["message"]


async def test_what_the_schema_refuses_is_told_field_by_field(http: Http) -> None:
    refused = await http("POST", WIDGETS, widget("bad", size=11, colour="blue"))
    assert (refused.status, refused.reason) == (422, "Invalid")
    causes = {(each["field"], each["reason"]) for each in refused.body["details"]["causes"]}
    assert causes == {("spec.size", "FieldValueInvalid"), ("spec.colour", "FieldValueNotSupported")}
    assert refused.body["message"].startswith('Widget.example.test "bad" is invalid: [')


async def test_transition_rules_see_the_value_before(http: Http) -> None:
    assert (await http("POST", WIDGETS, widget("a", name="first"))).status == 201
    merge = {"Content_Type": "application/merge-patch+json"}
    refused = await http("PATCH", f"{WIDGETS}/a", {"spec": {"name": "second"}}, **merge)
    assert refused.status == 422 and "name is immutable" in refused.body["message"]
    assert (await http("PATCH", f"{WIDGETS}/a", {"spec": {"name": "first", "size": 2}}, **merge)).status == 200


async def test_a_stricter_schema_does_not_lock_what_is_there(http: Http) -> None:
    assert (await http("POST", WIDGETS, widget("a", code="abc"))).status == 201
    stricter = definition()
    stricter["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["code"] = {
        "type": "string",
        "maxLength": 2,
    }
    merge = {"Content_Type": "application/merge-patch+json"}
    path = f"{DEFINITIONS}/widgets.example.test"
    assert (await http("PATCH", path, {"spec": stricter["spec"]}, **merge)).status == 200
    async with asyncio.timeout(1):
        while (await http("POST", f"{WIDGETS}?dryRun=All", widget("b", code="abc"))).status != 422:
            await asyncio.sleep(0.01)
    assert (await http("PATCH", f"{WIDGETS}/a", {"spec": {"size": 2}}, **merge)).status == 200
    assert (await http("PATCH", f"{WIDGETS}/a", {"spec": {"code": "abd"}}, **merge)).status == 422


async def test_defaults_of_a_newer_schema_show_on_older_objects(http: Http) -> None:
    assert (await http("POST", WIDGETS, widget("a"))).status == 201
    newer = definition()
    properties = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    properties["shape"] = {"type": "string", "default": "round"}
    merge = {"Content_Type": "application/merge-patch+json"}
    assert (await http("PATCH", f"{DEFINITIONS}/widgets.example.test", {"spec": newer["spec"]}, **merge)).status == 200
    async with asyncio.timeout(1):
        while (await http("GET", f"{WIDGETS}/a")).body["spec"].get("shape") != "round":
            await asyncio.sleep(0.01)
    listed = (await http("GET", WIDGETS)).body["items"]
    assert listed[0]["spec"]["shape"] == "round"


async def test_status_and_scale_are_apart(http: Http) -> None:
    assert (await http("POST", WIDGETS, widget("a", size=2) | {"status": {"phase": "x"}})).status == 201
    merge = {"Content_Type": "application/merge-patch+json"}
    status = {"replicas": 1, "selector": "app=a", "phase": "Ready"}
    reported = await http("PATCH", f"{WIDGETS}/a/status", {"status": status, "spec": {"size": 4}}, **merge)
    assert reported.status == 200
    assert reported.body["spec"]["size"] == 2 and reported.body["status"] == status
    assert reported.body["metadata"]["generation"] == 1
    scale = (await http("GET", f"{WIDGETS}/a/scale")).body
    assert scale["spec"] == {"replicas": 2} and scale["status"] == {"replicas": 1, "selector": "app=a"}
    scaled = await http("PATCH", f"{WIDGETS}/a/scale", {"spec": {"replicas": 3}}, **merge)
    assert scaled.status == 200 and scaled.body["spec"] == {"replicas": 3}
    now = (await http("GET", f"{WIDGETS}/a")).body
    assert now["spec"]["size"] == 3 and now["metadata"]["generation"] == 2
    assert (await http("PATCH", f"{WIDGETS}/a/scale", {"spec": {"replicas": 9}}, **merge)).status == 422
    wrong = await http("PATCH", f"{WIDGETS}/a/status", {"status": {"replicas": "many"}}, **merge)
    assert wrong.status == 422


async def test_a_status_that_is_no_subresource_counts_as_a_wish() -> None:
    async with api_server() as server, connected(server) as http:
        plain = definition()
        del plain["spec"]["versions"][0]["subresources"]
        assert (await http("POST", DEFINITIONS, plain)).status == 201
        await until_served(http)
        created = await http("POST", WIDGETS, widget("a") | {"status": {"phase": "x"}})
        assert created.body["status"] == {"phase": "x"}
        merge = {"Content_Type": "application/merge-patch+json"}
        changed = await http("PATCH", f"{WIDGETS}/a", {"status": {"phase": "y"}}, **merge)
        assert changed.body["status"] == {"phase": "y"} and changed.body["metadata"]["generation"] == 2
        assert (await http("GET", f"{WIDGETS}/a/status")).status == 404


async def test_tables_and_selectable_fields(http: Http) -> None:
    for name, colour in (("a", "red"), ("b", "green")):
        assert (await http("POST", WIDGETS, widget(name, colour=colour))).status == 201
    table = (await http("GET", WIDGETS, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")).body
    assert [each["name"] for each in table["columnDefinitions"]] == ["Name", "Size", "Phase", "Age"]
    assert [row["cells"][:3] for row in table["rows"]] == [["a", 1, None], ["b", 1, None]]
    green = (await http("GET", f"{WIDGETS}?fieldSelector=spec.colour%3Dgreen")).body["items"]
    assert [each["metadata"]["name"] for each in green] == ["b"]
    assert (await http("GET", f"{WIDGETS}?fieldSelector=spec.size%3D1")).status == 400


async def test_apply_owns_fields_by_the_schema(http: Http) -> None:
    apply = {"Content_Type": "application/apply-patch+yaml"}
    one = widget("a", parts=[{"name": "p", "weight": 2}])
    assert (await http("PATCH", f"{WIDGETS}/a?fieldManager=one", one, **apply)).status == 201
    two = {**widget("a"), "spec": {"parts": [{"name": "q", "weight": 3}]}}
    both = await http("PATCH", f"{WIDGETS}/a?fieldManager=two", two, **apply)
    assert both.status == 200
    assert {part["name"]: part["weight"] for part in both.body["spec"]["parts"]} == {"p": 2, "q": 3}
    clash = {**widget("a"), "spec": {"parts": [{"name": "p", "weight": 9}]}}
    refused = await http("PATCH", f"{WIDGETS}/a?fieldManager=two", clash, **apply)
    assert refused.status == 409
    assert '.spec.parts[name="p"].weight' in refused.body["message"]
    forced = await http("PATCH", f"{WIDGETS}/a?fieldManager=two&force=true", clash, **apply)
    assert forced.status == 200


async def test_strategic_patches_are_for_built_in_kinds(http: Http) -> None:
    assert (await http("POST", WIDGETS, widget("a"))).status == 201
    content = "application/strategic-merge-patch+json"
    assert (await http("PATCH", f"{WIDGETS}/a", {"spec": {"size": 2}}, Content_Type=content)).status == 415


async def test_watches_see_the_version_they_asked_for() -> None:
    async with api_server() as server, connected(server) as http:
        both = definition()
        older = {**copy.deepcopy(both["spec"]["versions"][0]), "name": "v1beta1", "storage": False}
        both["spec"]["versions"].append(older)
        assert (await http("POST", DEFINITIONS, both)).status == 201
        await until_served(http)
        beta = "/apis/example.test/v1beta1/namespaces/default/widgets"
        group = (await http("GET", "/apis/example.test")).body
        assert group["preferredVersion"]["version"] == "v1"
        version = (await http("GET", beta)).version
        async with http.watch(f"{beta}?watch=true&resourceVersion={version}") as stream:
            assert (await http("POST", WIDGETS, widget("a"))).status == 201
            event = await stream.next()
            assert event["object"]["apiVersion"] == "example.test/v1beta1"
        old = {**widget("b"), "apiVersion": "example.test/v1beta1"}
        written = await http("POST", beta, old)
        assert written.status == 201 and written.body["apiVersion"] == "example.test/v1beta1"
        assert (await http("GET", f"{WIDGETS}/b")).body["apiVersion"] == "example.test/v1"
        assert {each["apiVersion"] for each in (await http("GET", beta)).body["items"]} == {"example.test/v1beta1"}
        merge = {"Content_Type": "application/merge-patch+json"}
        assert (await http("PATCH", f"{beta}/a", {"spec": {"size": 3}}, **merge)).body["spec"]["size"] == 3


async def test_deleting_the_definition_deletes_everything(http: Http) -> None:
    for name in ("a", "b"):
        assert (await http("POST", WIDGETS, widget(name))).status == 201
    held = widget("held") | {"metadata": {"name": "held", "finalizers": ["example.test/hold"]}}
    assert (await http("POST", WIDGETS, held)).status == 201
    path = f"{DEFINITIONS}/widgets.example.test"
    leaving = await http("DELETE", path)
    assert leaving.body["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    async with asyncio.timeout(30):
        while [each["metadata"]["name"] for each in (await http("GET", WIDGETS)).body["items"]] != ["held"]:
            await asyncio.sleep(0.02)
    refused = await http("POST", WIDGETS, widget("new"))
    assert refused.status == 405
    conditions = (await http("GET", path)).body["status"]["conditions"]
    assert "Terminating" in [each["type"] for each in conditions if each["status"] == "True"]
    version = (await http("GET", WIDGETS)).version
    async with http.watch(f"{WIDGETS}?watch=true&resourceVersion={version}") as stream:
        merge = {"Content_Type": "application/merge-patch+json"}
        await http("PATCH", f"{WIDGETS}/held", {"metadata": {"finalizers": None}}, **merge)
        assert (await stream.next())["type"] in ("MODIFIED", "DELETED")
        async with asyncio.timeout(30):
            while (await http("GET", path)).status != 404:
                await asyncio.sleep(0.02)
        ended = False
        while not ended:  # nothing is served any more, so the watch ends
            try:
                await stream.next()
            except EOFError:
                ended = True
    assert (await http("GET", WIDGETS)).status == 404
    assert "example.test" not in [each["name"] for each in (await http("GET", "/apis")).body["groups"]]


async def test_names_that_are_taken_are_not_served_until_they_are_free(http: Http) -> None:
    rival = definition(names={"plural": "rivals", "kind": "Rival", "shortNames": ["wd"]})
    rival["metadata"]["name"] = "rivals.example.test"
    assert (await http("POST", DEFINITIONS, rival)).status == 201

    async def conditions() -> dict[str, str]:
        found = (await http("GET", f"{DEFINITIONS}/rivals.example.test")).body
        return {each["type"]: each["status"] for each in (found.get("status") or {}).get("conditions") or ()}

    async with asyncio.timeout(10):
        while await conditions() != {"NamesAccepted": "False", "Established": "False"}:
            await asyncio.sleep(0.01)
    assert (await http("GET", "/apis/example.test/v1/rivals")).status == 404
    assert (await http("DELETE", f"{DEFINITIONS}/widgets.example.test")).status == 200
    async with asyncio.timeout(30):
        while (await conditions()).get("Established") != "True":
            await asyncio.sleep(0.02)
    await until_served(http, "/apis/example.test/v1/rivals")


async def test_definitions_survive_a_restart(tmp_path: Any) -> None:
    storage = f"sqlite:{tmp_path}/objects.db"
    async with api_server(storage=storage, data_dir=tmp_path) as server, connected(server) as http:
        assert (await http("POST", DEFINITIONS, definition())).status == 201
        await until_served(http)
        assert (await http("POST", WIDGETS, widget("a"))).status == 201
    async with api_server(storage=storage, data_dir=tmp_path) as server, connected(server) as http:
        assert (await http("GET", f"{WIDGETS}/a")).body["spec"]["limit"] == 5  # from the first request on


async def test_every_group_version_has_an_api_service(http: Http) -> None:
    services = "/apis/apiregistration.k8s.io/v1/apiservices"

    async def available() -> dict[str, str]:
        items = (await http("GET", services)).body["items"]
        return {
            each["metadata"]["name"]: each["status"]["conditions"][0]["status"] for each in items if "status" in each
        }

    async with asyncio.timeout(30):
        while not {"v1.", "v1.apps", "v1.example.test"} <= (await available()).keys():
            await asyncio.sleep(0.02)
    assert set((await available()).values()) == {"True"}
    elsewhere = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1.elsewhere.test"},
        "spec": {
            "group": "elsewhere.test",
            "version": "v1",
            "groupPriorityMinimum": 100,
            "versionPriority": 10,
            "service": {"name": "elsewhere", "namespace": "default"},
        },
    }
    assert (await http("POST", services, elsewhere)).status == 201
    assert (await http("DELETE", f"{DEFINITIONS}/widgets.example.test")).status == 200
    async with asyncio.timeout(30):
        while (found := await available()).get("v1.elsewhere.test") != "False" or "v1.example.test" in found:
            await asyncio.sleep(0.02)
