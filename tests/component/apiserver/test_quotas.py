"""ResourceQuotas through the whole server: exact under concurrency, and their status true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pilotage.testing.wire import CONFIG_MAPS, PODS, Http, config_map, pod

QUOTAS = "/api/v1/namespaces/default/resourcequotas"


async def make_quota(http: Http, name: str, hard: dict[str, str], **spec: Any) -> None:
    answer = await http("POST", QUOTAS, {"metadata": {"name": name}, "spec": {"hard": hard, **spec}})
    assert answer.status == 201, answer.body


async def used(http: Http, name: str, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """The quota's published sums, once they are as expected."""
    async with asyncio.timeout(10):
        while True:
            sums: dict[str, str] = ((await http("GET", f"{QUOTAS}/{name}")).body.get("status") or {}).get("used") or {}
            if holds(sums):
                return sums
            await asyncio.sleep(0.01)


async def test_of_many_creates_at_once_exactly_as_many_pass_as_the_quota_allows(http: Http) -> None:
    await make_quota(http, "q", {"count/configmaps": "5"})
    answers = await asyncio.gather(*(http("POST", CONFIG_MAPS, config_map(f"m{i}")) for i in range(40)))
    statuses = [answer.status for answer in answers]
    assert statuses.count(201) == 5 and statuses.count(403) == 35
    assert any("exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=5, limited: "
               "count/configmaps=5" in answer.body.get("message", "") for answer in answers)  # fmt: skip
    await used(http, "q", lambda sums: sums == {"count/configmaps": "5"})
    assert (await http("DELETE", f"{CONFIG_MAPS}/{(await names(http))[0]}")).status == 200
    assert (await http("POST", CONFIG_MAPS, config_map("again"))).status == 201


async def names(http: Http) -> list[str]:
    listed = (await http("GET", CONFIG_MAPS)).body["items"]
    return [item["metadata"]["name"] for item in listed if item["metadata"]["name"].startswith("m")]


async def test_a_refused_or_dry_create_gives_back_what_it_would_have_taken(http: Http) -> None:
    await make_quota(http, "q", {"count/configmaps": "1"})
    assert (await http("POST", f"{CONFIG_MAPS}?dryRun=All", config_map("a"))).status == 201
    assert (await http("POST", CONFIG_MAPS, config_map("a"))).status == 201
    await http("DELETE", f"{CONFIG_MAPS}/a")
    await asyncio.gather(*(http("POST", CONFIG_MAPS, config_map("same")) for _ in range(5)))
    assert [item["metadata"]["name"] for item in (await http("GET", CONFIG_MAPS)).body["items"]] == ["same"]
    await http("DELETE", f"{CONFIG_MAPS}/same")
    assert (await http("POST", CONFIG_MAPS, config_map("b"))).status == 201


async def test_the_status_follows_pods_and_the_quota_itself(http: Http) -> None:
    await make_quota(http, "q", {"requests.cpu": "1", "pods": "4", "limits.memory": "1Gi"}, scopes=["NotBestEffort"])
    await used(http, "q", lambda sums: sums == {"requests.cpu": "0", "pods": "0", "limits.memory": "0"})
    document = pod("a")
    document["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "250m"}, "limits": {"memory": "512Mi"}}
    assert (await http("POST", PODS, document)).status == 201
    assert (await http("POST", PODS, pod("best-effort"))).status == 201
    await used(http, "q", lambda sums: sums == {"requests.cpu": "250m", "pods": "1", "limits.memory": "512Mi"})
    finished = {"status": {"phase": "Succeeded"}}
    kind = "application/merge-patch+json"
    assert (await http("PATCH", f"{PODS}/a/status", finished, Content_Type=kind)).status == 200
    await used(http, "q", lambda sums: sums["pods"] == "0")
    await http("PATCH", f"{QUOTAS}/q", {"spec": {"hard": {"pods": "9"}}}, Content_Type=kind)
    async with asyncio.timeout(10):
        while (await http("GET", f"{QUOTAS}/q")).body["status"]["hard"]["pods"] != "9":
            await asyncio.sleep(0.01)


async def test_a_quota_with_scopes_that_contradict_each_other_is_refused(http: Http) -> None:
    for hard, why in (({"pods": "1"}, "conflicting scopes"), ({"cpu": "1"}, "unsupported scope applied to resource")):
        spec = {"hard": hard, "scopes": ["BestEffort", "NotBestEffort"]}
        answer = await http("POST", QUOTAS, {"metadata": {"name": "q"}, "spec": spec})
        assert answer.status == 422 and why in answer.body["message"]
