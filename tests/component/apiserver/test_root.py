"""Discovery, OpenAPI, health, metrics, version."""

from typing import Any

import pytest

from pilotage.api.catalogue import BUILTIN
from pilotage.testing.wire import CONFIG_MAPS, Http, config_map

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def test_every_resource_is_discovered_both_ways(http: Http) -> None:
    aggregated = set()
    for path in ("/api", "/apis"):
        answer = await http("GET", path, Accept=AGGREGATED)
        assert answer.body["kind"] == "APIGroupDiscoveryList"
        assert answer.headers["Content-Type"] == AGGREGATED
        for group in answer.body["items"]:
            for version in group["versions"]:
                name = group["metadata"].get("name", "")
                aggregated |= {(name, version["version"], item["resource"]) for item in version["resources"]}
    assert aggregated == {(resource.group, resource.version, resource.plural) for resource in BUILTIN}
    listed = set()
    paths = [("", "v1", "/api/v1")]
    for group in (await http("GET", "/apis")).body["groups"]:
        paths += [(group["name"], v["version"], f"/apis/{v['groupVersion']}") for v in group["versions"]]
    for name, version, path in paths:
        for item in (await http("GET", path)).body["resources"]:
            if "/" not in item["name"]:
                listed.add((name, version, item["name"]))
    assert listed == aggregated


async def test_aggregated_discovery_is_not_sent_twice(http: Http) -> None:
    first = await http("GET", "/apis", Accept=AGGREGATED)
    second = await http("GET", "/apis", Accept=AGGREGATED, If_None_Match=first.headers["ETag"])
    assert (second.status, second.raw) == (304, b"")


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*(references(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


async def test_openapi_v3_documents_are_complete(http: Http) -> None:
    index = (await http("GET", "/openapi/v3")).body["paths"]
    assert {"api/v1", "apis/apps/v1"} <= index.keys()
    for path in ("api/v1", "apis/apps/v1", "apis/networking.k8s.io/v1"):
        answer = await http("GET", index[path]["serverRelativeURL"])
        schemas = answer.body["components"]["schemas"]
        for reference in references(answer.body):
            assert reference.removeprefix("#/components/schemas/") in schemas, reference
    pod = (await http("GET", index["api/v1"]["serverRelativeURL"])).body["components"]["schemas"][
        "io.k8s.api.core.v1.Pod"
    ]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]
    assert pod["type"] == "object"


async def test_openapi_v2_holds_everything(http: Http) -> None:
    body = (await http("GET", "/openapi/v2")).body
    for resource in BUILTIN:
        assert resource.schema in body["definitions"]
    for reference in references(body):
        assert reference.removeprefix("#/definitions/") in body["definitions"], reference


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/livez/ping", "/readyz/storage"])
async def test_health(http: Http, path: str) -> None:
    answer = await http("GET", path)
    assert (answer.status, answer.body) == (200, "ok")


async def test_health_names_its_checks(http: Http) -> None:
    assert "[+]storage ok" in (await http("GET", "/readyz?verbose")).body
    assert (await http("GET", "/readyz/none")).status == 404


async def test_the_version_is_kubernetes(http: Http) -> None:
    body = (await http("GET", "/version")).body
    assert (body["major"], body["minor"]) == ("1", "36")


async def test_metrics_count_requests_by_known_names_only(http: Http) -> None:
    await http("POST", CONFIG_MAPS, config_map("a"))
    await http("GET", "/api/v1/invented-by-a-client")
    text = (await http("GET", "/metrics")).body
    assert 'resource="configmaps"' in text
    assert "invented-by-a-client" not in text


@pytest.mark.parametrize(("method", "path"), [("POST", "/version"), ("DELETE", "/api"), ("PUT", "/openapi/v3")])
async def test_only_get(http: Http, method: str, path: str) -> None:
    answer = await http(method, path)
    assert (answer.status, answer.reason) == (405, "MethodNotAllowed")
