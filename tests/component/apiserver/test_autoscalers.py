"""One autoscaler, two versions: what is written through one is read through the other, and nothing is lost."""

from __future__ import annotations

from typing import Any

from pilotage.testing.wire import Http

V1, V2 = (f"/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers" for version in ("v1", "v2"))
TARGET = {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}


def cpu(percent: int) -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


async def test_v1_is_kept_as_v2(http: Http) -> None:
    spec = {"scaleTargetRef": TARGET, "maxReplicas": 5, "targetCPUUtilizationPercentage": 60}
    made = await http("POST", V1, {"metadata": {"name": "a"}, "spec": spec})
    assert made.status == 201 and made.body["apiVersion"] == "autoscaling/v1"
    assert made.body["spec"] == {**spec, "minReplicas": 1}
    found = (await http("GET", f"{V2}/a")).body
    assert found["apiVersion"] == "autoscaling/v2" and found["spec"]["metrics"] == [cpu(60)]
    assert "targetCPUUtilizationPercentage" not in found["spec"]


async def test_what_v1_has_no_field_for_survives_its_clients(http: Http) -> None:
    memory = {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Value", "value": "1Gi"}}}
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 5}}
    spec = {"scaleTargetRef": TARGET, "maxReplicas": 5, "metrics": [cpu(70), memory], "behavior": behavior}
    assert (await http("POST", V2, {"metadata": {"name": "a"}, "spec": spec})).status == 201
    old = (await http("GET", f"{V1}/a")).body
    assert old["spec"]["targetCPUUtilizationPercentage"] == 70
    old["spec"]["maxReplicas"] = 7
    assert (await http("PUT", f"{V1}/a", old)).status == 200
    found = (await http("GET", f"{V2}/a")).body
    assert found["spec"] == {**spec, "maxReplicas": 7, "minReplicas": 1}
    assert "annotations" not in found["metadata"]
    listed = (await http("GET", V1)).body
    assert [item["apiVersion"] for item in listed["items"]] == ["autoscaling/v1"]


async def test_a_watch_of_each_version_speaks_it(http: Http) -> None:
    async with http.watch(f"{V1}?watch=true") as first, http.watch(f"{V2}?watch=true") as second:
        spec = {"scaleTargetRef": TARGET, "maxReplicas": 5}
        await http("POST", V2, {"metadata": {"name": "a"}, "spec": spec})
        seen = [(await stream.next())["object"] for stream in (first, second)]
    assert [item["apiVersion"] for item in seen] == ["autoscaling/v1", "autoscaling/v2"]
    assert seen[0]["spec"]["targetCPUUtilizationPercentage"] == 80


async def test_metrics_that_aim_at_nothing_are_refused(http: Http) -> None:
    spec = {"scaleTargetRef": {**TARGET, "name": ""}, "maxReplicas": 1, "metrics": [{"type": "Pods"}]}
    answer = await http("POST", V2, {"metadata": {"name": "a"}, "spec": spec})
    fields = [cause["field"] for cause in answer.body["details"]["causes"]]
    assert answer.status == 422 and fields == ["spec.scaleTargetRef.name", "spec.metrics[0].pods"]
