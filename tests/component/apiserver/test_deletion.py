"""Deletion: at once, gracefully, and behind finalizers."""

from typing import Any

from pilotage.testing.wire import CONFIG_MAPS, PODS, Http, config_map, pod

MERGE = "application/merge-patch+json"


async def on_a_node(http: Http, name: str, **spec: Any) -> None:
    await http("POST", PODS, pod(name, **spec))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name},
        "target": {"kind": "Node", "name": "n1"},
    }
    answer = await http("POST", f"{PODS}/{name}/binding", binding)
    assert answer.status == 201, answer.body


async def test_a_plain_object_goes_at_once(http: Http) -> None:
    created = await http("POST", CONFIG_MAPS, config_map("a"))
    deleted = await http("DELETE", f"{CONFIG_MAPS}/a")
    assert deleted.status == 200
    assert deleted.body["status"] == "Success"
    assert deleted.body["details"] == {"name": "a", "kind": "configmaps", "uid": created.body["metadata"]["uid"]}
    assert (await http("GET", f"{CONFIG_MAPS}/a")).status == 404
    assert (await http("DELETE", f"{CONFIG_MAPS}/a")).status == 404


async def test_preconditions(http: Http) -> None:
    created = await http("POST", CONFIG_MAPS, config_map("a"))
    for preconditions in ({"uid": "other"}, {"resourceVersion": "1"}):
        refused = await http("DELETE", f"{CONFIG_MAPS}/a", {"preconditions": preconditions})
        assert (refused.status, refused.reason) == (409, "Conflict")
    uid = created.body["metadata"]["uid"]
    assert (await http("DELETE", f"{CONFIG_MAPS}/a", {"preconditions": {"uid": uid}})).status == 200


async def test_finalizers_hold_an_object_until_the_last_is_gone(http: Http) -> None:
    body = config_map("a")
    body["metadata"]["finalizers"] = ["example.com/one", "example.com/two"]
    await http("POST", CONFIG_MAPS, body)
    marked = await http("DELETE", f"{CONFIG_MAPS}/a")
    assert marked.body["metadata"]["deletionTimestamp"]
    again = await http("DELETE", f"{CONFIG_MAPS}/a")
    assert again.version == marked.version
    path = f"{CONFIG_MAPS}/a"
    await http("PATCH", path, {"metadata": {"finalizers": ["example.com/two"]}}, Content_Type=MERGE)
    assert (await http("GET", path)).status == 200
    assert (await http("PATCH", path, {"metadata": {"finalizers": None}}, Content_Type=MERGE)).status == 200
    assert (await http("GET", path)).status == 404


async def test_propagation_becomes_finalizers(http: Http) -> None:
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        name = policy.lower()
        await http("POST", CONFIG_MAPS, config_map(name))
        marked = await http("DELETE", f"{CONFIG_MAPS}/{name}", {"propagationPolicy": policy})
        assert marked.body["metadata"]["finalizers"] == [finalizer]
    await http("POST", CONFIG_MAPS, config_map("background"))
    assert (await http("DELETE", f"{CONFIG_MAPS}/background?propagationPolicy=Background")).body["status"] == "Success"
    await http("POST", CONFIG_MAPS, config_map("odd"))
    assert (await http("DELETE", f"{CONFIG_MAPS}/odd?propagationPolicy=Sideways")).status == 400


async def test_a_pod_nobody_runs_goes_at_once(http: Http) -> None:
    await http("POST", PODS, pod("a"))
    assert (await http("DELETE", f"{PODS}/a")).status == 200
    assert (await http("GET", f"{PODS}/a")).status == 404


async def test_a_running_pod_is_given_time(http: Http) -> None:
    await on_a_node(http, "a", terminationGracePeriodSeconds=7)
    marked = await http("DELETE", f"{PODS}/a")
    assert marked.body["metadata"]["deletionGracePeriodSeconds"] == 7
    assert (await http("DELETE", f"{PODS}/a")).version == marked.version
    shorter = await http("DELETE", f"{PODS}/a?gracePeriodSeconds=3")
    assert shorter.body["metadata"]["deletionGracePeriodSeconds"] == 3
    longer = await http("DELETE", f"{PODS}/a?gracePeriodSeconds=60")
    assert longer.body["metadata"]["deletionGracePeriodSeconds"] == 3
    assert (await http("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0})).status == 200
    assert (await http("GET", f"{PODS}/a")).status == 404


async def test_a_pod_is_bound_once(http: Http) -> None:
    await on_a_node(http, "a")
    bound = (await http("GET", f"{PODS}/a")).body
    assert bound["spec"]["nodeName"] == "n1"
    assert {"type": "PodScheduled", "status": "True"}.items() <= bound["status"]["conditions"][0].items()
    body = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n2"}}
    assert (await http("POST", f"{PODS}/a/binding", body)).status == 409
    assert (await http("POST", "/api/v1/namespaces/default/bindings", body)).status == 409


async def test_deleting_a_collection_respects_selectors(http: Http) -> None:
    for name, tier in (("a", "front"), ("b", "back"), ("c", "front")):
        await http("POST", CONFIG_MAPS, config_map(name, labels={"tier": tier}))
    answer = await http("DELETE", f"{CONFIG_MAPS}?labelSelector=tier%3Dfront")
    assert [item["metadata"]["name"] for item in answer.body["items"]] == ["a", "c"]
    left = await http("GET", f"{CONFIG_MAPS}?labelSelector=tier")
    assert [item["metadata"]["name"] for item in left.body["items"]] == ["b"]


async def test_a_namespace_waits_for_its_controller(http: Http) -> None:
    await http("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    marked = await http("DELETE", "/api/v1/namespaces/team")
    assert marked.body["status"]["phase"] == "Terminating"
    assert marked.body["metadata"]["deletionTimestamp"]
    finalized = {**marked.body, "spec": {"finalizers": []}}
    assert (await http("PUT", "/api/v1/namespaces/team/finalize", finalized)).status == 200
    assert (await http("GET", "/api/v1/namespaces/team")).status == 404


async def test_eviction_spends_the_budget(http: Http) -> None:
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    budget = {"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}
    await http("POST", budgets, budget)
    running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    for name in ("a", "b"):
        body = pod(name)
        body["metadata"]["labels"] = {"app": "web"}
        await http("POST", PODS, body)
        await http("PATCH", f"{PODS}/{name}/status", {"status": running}, Content_Type=MERGE)
    evict = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}
    early = await http("POST", f"{PODS}/a/eviction", evict)
    assert (early.status, early.headers["Retry-After"]) == (429, "10")
    counted = {"status": {"disruptionsAllowed": 1, "observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 1}}
    await http("PATCH", f"{budgets}/web/status", counted, Content_Type=MERGE)
    assert (await http("POST", f"{PODS}/a/eviction", evict)).status == 201
    refused = await http("POST", f"{PODS}/b/eviction", {**evict, "metadata": {"name": "b"}})
    assert (refused.status, refused.reason) == (429, "TooManyRequests")
    after = (await http("GET", f"{budgets}/web")).body["status"]
    assert after["disruptionsAllowed"] == 0 and list(after["disruptedPods"]) == ["a"]
