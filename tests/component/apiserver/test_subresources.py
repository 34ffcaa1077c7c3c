"""Subresources that are written as objects are, each with its own part: resize, ephemeralcontainers, scale."""

from typing import Any

import pytest

from pilotage.testing.wire import PODS, Http, pod

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
BEST_EFFORT = {"op": "remove", "path": "/spec/containers/0/resources"}
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def sized(cpu: str, **fields: Any) -> dict[str, Any]:
    """A container's name and what it asks for."""
    return {"name": "main", "resources": {"requests": {"cpu": cpu, "memory": "16Mi"}}, **fields}


async def test_a_resize_changes_what_containers_get_and_nothing_else(http: Http) -> None:
    body = pod("a")
    body["spec"]["containers"] = [{"image": "localhost/host", **sized("100m")}]
    created = await http("POST", PODS, body)
    plain = await http("PATCH", f"{PODS}/a", {"spec": {"containers": [sized("200m")]}}, Content_Type=STRATEGIC)
    assert plain.status == 422 and "pod updates may not change fields" in plain.body["message"]
    wanted = {"metadata": {"labels": {"new": "label"}}, "spec": {"containers": [sized("200m", image="another")]}}
    resized = await http("PATCH", f"{PODS}/a/resize", wanted, Content_Type=STRATEGIC)
    assert resized.status == 200, resized.body
    (container,) = resized.body["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "200m", "memory": "16Mi"}
    assert container["image"] == "localhost/host" and "labels" not in resized.body["metadata"]
    assert resized.body["metadata"]["generation"] == created.body["metadata"]["generation"] + 1
    refused = await http("PATCH", f"{PODS}/a/resize", [BEST_EFFORT], Content_Type=JSON_PATCH)
    assert refused.status == 422 and "QOS Class may not change" in refused.body["message"]


async def test_what_a_pod_asks_for_as_a_whole_is_resized_and_counted_by_its_quota(http: Http) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"cpu": "3"}}}
    assert (await http("POST", "/api/v1/namespaces/default/resourcequotas", quota)).status == 201
    body = pod("a")
    body["spec"]["resources"] = {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}
    assert (await http("POST", PODS, body)).status == 201

    def asking(cpu: str) -> dict[str, Any]:
        return {"spec": {"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": "4"}}}}

    plain = await http("PATCH", f"{PODS}/a", asking("2"), Content_Type=STRATEGIC)
    assert plain.status == 422 and "pod updates may not change fields" in plain.body["message"]
    resized = await http("PATCH", f"{PODS}/a/resize", asking("2500m"), Content_Type=STRATEGIC)
    assert resized.status == 200, resized.body
    assert resized.body["spec"]["resources"] == asking("2500m")["spec"]["resources"]
    refused = await http("PATCH", f"{PODS}/a/resize", asking("3500m"), Content_Type=STRATEGIC)
    assert refused.status == 403 and "exceeded quota: q, requested: cpu=1, used: cpu=2500m" in refused.body["message"]
    removal = [{"op": "remove", "path": "/spec/resources/limits"}]
    gone = await http("PATCH", f"{PODS}/a/resize", removal, Content_Type=JSON_PATCH)
    assert gone.status == 422 and "pod-level resource limits cannot be removed" in gone.body["message"]


async def test_ephemeral_containers_have_a_door_of_their_own(http: Http) -> None:
    await http("POST", PODS, pod("a"))
    debugger = {"name": "debugger", "image": "localhost/host", "targetContainerName": "main"}
    wanted = {"spec": {"ephemeralContainers": [debugger]}}
    plain = await http("PATCH", f"{PODS}/a", wanted, Content_Type=STRATEGIC)
    assert "ephemeralContainers" not in (await http("GET", f"{PODS}/a")).body["spec"], plain.body
    added = await http("PATCH", f"{PODS}/a/ephemeralcontainers", wanted, Content_Type=STRATEGIC)
    assert added.status == 200, added.body
    assert [item["name"] for item in added.body["spec"]["ephemeralContainers"]] == ["debugger"]
    removal = [{"op": "remove", "path": "/spec/ephemeralContainers"}]
    gone = await http("PATCH", f"{PODS}/a/ephemeralcontainers", removal, Content_Type=JSON_PATCH)
    assert gone.status == 422 and "may not be removed" in gone.body["message"]


def deployment(replicas: int) -> dict[str, Any]:
    labels = {"app": "a"}
    template = {"metadata": {"labels": labels}, "spec": pod("a")["spec"]}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec}


@pytest.mark.parametrize(
    ("method", "body", "media"),
    [
        ("PUT", {"metadata": {"name": "a"}, "spec": {"replicas": 5}}, "application/json"),
        ("PATCH", {"spec": {"replicas": 5}}, MERGE),
        ("PATCH", {"spec": {"replicas": 5}}, STRATEGIC),
        ("PATCH", [{"op": "replace", "path": "/spec/replicas", "value": 5}], JSON_PATCH),
    ],
    ids=["replaced", "merged", "merged strategically", "patched"],
)
async def test_scale_is_the_number_of_replicas(http: Http, method: str, body: Any, media: str) -> None:
    created = await http("POST", DEPLOYMENTS, deployment(2))
    scale = (await http("GET", f"{DEPLOYMENTS}/a/scale")).body
    assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 2})
    assert scale["metadata"]["resourceVersion"] == created.version
    changed = await http(method, f"{DEPLOYMENTS}/a/scale", body, Content_Type=media)
    assert (changed.status, changed.body["spec"]) == (200, {"replicas": 5})
    after = await http("GET", f"{DEPLOYMENTS}/a")
    assert after.body["spec"] == {**created.body["spec"], "replicas": 5}
    assert after.body["metadata"]["generation"] == 2
    negative = await http("PATCH", f"{DEPLOYMENTS}/a/scale", {"spec": {"replicas": -1}}, Content_Type=MERGE)
    assert negative.status == 422
    stale = {**scale, "spec": {"replicas": 1}}
    assert (await http("PUT", f"{DEPLOYMENTS}/a/scale", stale)).reason == "Conflict"
