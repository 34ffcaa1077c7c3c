"""Ranges and addresses of Services as objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pilotage.testing.wire import Answer, Http

ADDRESSES, RANGES = (f"/apis/networking.k8s.io/v1/{plural}" for plural in ("ipaddresses", "servicecidrs"))
SERVICES = "/api/v1/namespaces/default/services"


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


async def until(http: Http, path: str, holds: Callable[[Answer], Any]) -> Any:
    async with asyncio.timeout(10):
        while not (found := holds(await http("GET", path))):
            await asyncio.sleep(0.01)
        return found


def ready(answer: Answer) -> str:
    conditions = (answer.body.get("status") or {}).get("conditions") or [{}]
    return str(conditions[0].get("status", ""))


async def test_every_cluster_address_has_an_object_that_names_its_service(http: Http) -> None:
    address = (await http("POST", SERVICES, service("web"))).body["spec"]["clusterIP"]
    path = f"{ADDRESSES}/{address}"
    found = await until(http, path, lambda answer: answer.status == 200 and answer.body)
    assert found["spec"]["parentRef"] == {"group": "", "resource": "services", "namespace": "default", "name": "web"}
    assert found["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"] == "IPv4"
    assert (await http("GET", f"{ADDRESSES}/10.96.0.1")).body["spec"]["parentRef"]["name"] == "kubernetes"
    await http("DELETE", f"{SERVICES}/web")
    await until(http, path, lambda answer: answer.status == 404)


async def test_a_further_range_serves_addresses_and_stays_until_none_is_used(http: Http) -> None:
    await until(http, f"{RANGES}/kubernetes", lambda answer: ready(answer) == "True")
    outside = service("out", clusterIP="10.97.5.5")
    assert (await http("POST", SERVICES, outside)).status == 422
    made = await http("POST", RANGES, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/16"]}})
    assert made.status == 201
    await until(http, f"{RANGES}/more", lambda answer: ready(answer) == "True")
    assert (await http("POST", SERVICES, outside)).status == 201
    taken = await http("POST", SERVICES, service("twice", clusterIP="10.97.5.5"))
    assert taken.status == 422 and "provided IP is already allocated" in taken.body["message"]
    await http("DELETE", f"{RANGES}/more")
    await until(http, f"{RANGES}/more", lambda answer: ready(answer) == "False")
    assert (await http("POST", SERVICES, service("late", clusterIP="10.97.5.6"))).status == 422
    await http("DELETE", f"{SERVICES}/out")
    await until(http, f"{RANGES}/more", lambda answer: answer.status == 404)
