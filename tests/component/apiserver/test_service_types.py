"""Services change type and families in every direction; nothing is lost on the way and nothing is kept that is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from pilotage.testing.cluster import api_server
from pilotage.testing.wire import Answer, Http, connected

SERVICES = "/api/v1/namespaces/default/services"
MERGE = "application/merge-patch+json"

# The type and what a user writes with it.
KINDS: dict[str, dict[str, Any]] = {
    "ClusterIP": {"type": "ClusterIP"},
    "NodePort": {"type": "NodePort"},
    "LoadBalancer": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
    "ExternalName": {"type": "ExternalName", "externalName": "db.example.com"},
}
ALLOCATED = {
    "ClusterIP": {"clusterIP"},
    "NodePort": {"clusterIP", "nodePort"},
    "LoadBalancer": {"clusterIP", "nodePort", "healthCheckNodePort"},
    "ExternalName": set(),
}


@pytest.fixture
async def both() -> AsyncIterator[Http]:
    """A server with addresses of both families."""
    async with api_server(service_cidr="10.96.0.0/16,fd00:10:96::/112") as server, connected(server) as client:
        yield client


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}, **spec}}


async def patched(http: Http, name: str, spec: dict[str, Any]) -> Answer:
    return await http("PATCH", f"{SERVICES}/{name}", {"spec": spec}, Content_Type=MERGE)


async def test_the_service_of_the_api_is_of_the_first_family_alone() -> None:
    async with api_server(service_cidr="fd00:10:96::/112,10.96.0.0/16") as server, connected(server) as http:
        found = (await http("GET", "/api/v1/namespaces/default/services/kubernetes")).body["spec"]
        assert (found["ipFamilyPolicy"], found["ipFamilies"]) == ("SingleStack", ["IPv6"])
        assert found["clusterIPs"] == ["fd00:10:96::1"]
        chosen = (await http("POST", SERVICES, service("web", ipFamilyPolicy="PreferDualStack"))).body["spec"]
        assert chosen["ipFamilies"] == ["IPv6", "IPv4"]


def allocated(spec: dict[str, Any]) -> set[str]:
    found = {field for field in ("clusterIP", "healthCheckNodePort") if spec.get(field)}
    return found | ({"nodePort"} if any(port.get("nodePort") for port in spec["ports"]) else set())


@pytest.mark.parametrize(("was", "now"), list(permutations(KINDS, 2)))
async def test_a_type_may_become_every_other(http: Http, was: str, now: str) -> None:
    before = (await http("POST", SERVICES, service("web", **KINDS[was]))).body["spec"]
    assert allocated(before) == ALLOCATED[was]
    # As kubectl's apply or edit does it: what only the old type has is not mentioned.
    answer = await patched(http, "web", KINDS[now])
    assert answer.status == 200, answer.body
    after = answer.body["spec"]
    assert allocated(after) == ALLOCATED[now]
    if "clusterIP" in ALLOCATED[was] & ALLOCATED[now]:
        assert after["clusterIP"] == before["clusterIP"]
    if "nodePort" in ALLOCATED[was] & ALLOCATED[now]:
        assert after["ports"][0]["nodePort"] == before["ports"][0]["nodePort"]
    # What the old type had and the new one has not is free again.
    if "clusterIP" in ALLOCATED[was] - ALLOCATED[now]:
        again = service("again", clusterIP=before["clusterIP"])
        assert (await http("POST", SERVICES, again)).status == 201
    if "nodePort" in ALLOCATED[was] - ALLOCATED[now]:
        again = service("port", type="NodePort", ports=[{"port": 80, "nodePort": before["ports"][0]["nodePort"]}])
        assert (await http("POST", SERVICES, again)).status == 201


async def test_the_second_family_comes_and_goes_while_the_first_stays(both: Http) -> None:
    first = (await both("POST", SERVICES, service("web"))).body["spec"]
    assert (first["ipFamilyPolicy"], first["ipFamilies"]) == ("SingleStack", ["IPv4"])
    for policy in ("PreferDualStack", "RequireDualStack"):
        two = (await patched(both, "web", {"ipFamilyPolicy": policy})).body["spec"]
        assert (two["ipFamilies"], two["clusterIPs"][0]) == (["IPv4", "IPv6"], first["clusterIP"])
        assert two["clusterIPs"][1].startswith("fd00:10:96::")
        one = (await patched(both, "web", {"ipFamilyPolicy": "SingleStack"})).body["spec"]
        assert (one["ipFamilies"], one["clusterIPs"]) == (["IPv4"], [first["clusterIP"]])
        freed = service(policy.lower(), clusterIP=two["clusterIPs"][1])
        assert (await both("POST", SERVICES, freed)).status == 201, "the second address is free again"
    refused = await patched(both, "web", {"ipFamilies": ["IPv6"]})
    assert (refused.status, refused.reason) == (422, "Invalid"), "the primary family stays"


FAMILIES = [
    pytest.param({}, "SingleStack", ["IPv4"], id="nothing said"),
    pytest.param({"ipFamilies": ["IPv6"]}, "SingleStack", ["IPv6"], id="the second family alone"),
    pytest.param({"ipFamilies": ["IPv6", "IPv4"]}, "RequireDualStack", ["IPv6", "IPv4"], id="both, in this order"),
    pytest.param({"ipFamilyPolicy": "PreferDualStack"}, "PreferDualStack", ["IPv4", "IPv6"], id="both if possible"),
    pytest.param(
        {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]},
        "RequireDualStack",
        ["IPv6", "IPv4"],
        id="both, the second first",
    ),
    pytest.param({"clusterIP": "None"}, "SingleStack", ["IPv4"], id="headless"),
    pytest.param({"clusterIP": "None", "selector": {}}, "RequireDualStack", ["IPv4", "IPv6"], id="headless by hand"),
    pytest.param(
        {"clusterIP": "None", "selector": {}, "ipFamilyPolicy": "SingleStack"},
        "SingleStack",
        ["IPv4"],
        id="headless by hand, one family",
    ),
]


@pytest.mark.parametrize(("spec", "policy", "families"), FAMILIES)
async def test_family_policies(both: Http, spec: dict[str, Any], policy: str, families: list[str]) -> None:
    made = (await both("POST", SERVICES, service("web", **spec))).body["spec"]
    assert (made["ipFamilyPolicy"], made["ipFamilies"]) == (policy, families)
    versions = ["IPv6" if ":" in address else "IPv4" for address in made["clusterIPs"] if address != "None"]
    assert versions == ([] if spec.get("clusterIP") == "None" else families)


async def test_endpoints_by_hand_may_be_of_a_family_the_cluster_has_not(http: Http) -> None:
    made = await http("POST", SERVICES, service("by-hand", clusterIP="None", selector={}))
    assert made.body["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    refused = await http("POST", SERVICES, service("web", ipFamilyPolicy="RequireDualStack"))
    assert refused.status == 422 and "not configured for dual-stack" in refused.body["message"]


async def test_a_cluster_may_be_given_its_second_family_later(tmp_path: Path) -> None:
    storage, four = f"sqlite:{tmp_path / 'state.db'}", "10.96.0.0/16"
    path = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes"

    async def cidrs(http: Http) -> list[str]:
        found = await http("GET", path)
        return found.body["spec"]["cidrs"] if found.status == 200 else []

    async def until(http: Http, wanted: list[str]) -> None:
        async with asyncio.timeout(10):
            while await cidrs(http) != wanted:
                await asyncio.sleep(0.01)

    async with api_server(storage=storage, data_dir=tmp_path) as server, connected(server) as http:
        first = (await http("POST", SERVICES, service("web"))).body["spec"]
        await until(http, [four])
    async with (
        api_server(storage=storage, data_dir=tmp_path, service_cidr=f"{four},fd00:10:96::/112") as server,
        connected(server) as http,
    ):
        await until(http, [four, "fd00:10:96::/112"])
        two = (await patched(http, "web", {"ipFamilyPolicy": "PreferDualStack"})).body["spec"]
        assert two["clusterIPs"][0] == first["clusterIP"] and len(two["clusterIPs"]) == 2


async def test_addresses_of_both_families_are_given_once(both: Http) -> None:
    made = (await both("POST", SERVICES, service("web", ipFamilyPolicy="RequireDualStack"))).body["spec"]
    taken = await both("POST", SERVICES, service("twice", clusterIPs=[made["clusterIPs"][1]], ipFamilies=["IPv6"]))
    assert taken.status == 422 and "provided IP is already allocated" in taken.body["message"]
    kubernetes = (await both("GET", f"{SERVICES}/kubernetes")).body["spec"]
    assert (kubernetes["clusterIPs"], kubernetes["ipFamilyPolicy"]) == (["10.96.0.1"], "SingleStack")


async def test_a_balancers_answer_says_who_handles_its_address(http: Http) -> None:
    await http("POST", SERVICES, service("web", type="LoadBalancer"))

    async def answered(*ingress: dict[str, Any], name: str = "web") -> Answer:
        body = {"status": {"loadBalancer": {"ingress": list(ingress)}}}
        return await http("PATCH", f"{SERVICES}/{name}/status", body, Content_Type=MERGE)

    good = await answered({"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}, {"hostname": "lb.example.com"})
    assert good.body["status"]["loadBalancer"]["ingress"] == [
        {"ip": "192.0.2.1", "ipMode": "VIP"},
        {"ip": "192.0.2.2", "ipMode": "Proxy"},
        {"hostname": "lb.example.com"},
    ]
    for wrong, field in (
        ({"hostname": "lb.example.com", "ipMode": "VIP"}, "ingress[0].ipMode"),
        ({"ip": "192.0.2.1", "ipMode": "Direct"}, "ingress[0].ipMode"),
        ({"ip": "192.0.2"}, "ingress[0].ip"),
        ({"hostname": "192.0.2.1"}, "ingress[0].hostname"),
    ):
        refused = await answered(wrong)
        assert refused.status == 422 and field in refused.body["message"]
    await http("POST", SERVICES, service("inside"))
    assert (await answered({"ip": "192.0.2.9"}, name="inside")).status == 422
    cleared = await patched(http, "web", {"type": "ClusterIP"})
    assert cleared.body["status"] == {"loadBalancer": {}}


async def test_the_class_of_a_balancer_is_chosen_once(http: Http) -> None:
    await http("POST", SERVICES, service("web", type="LoadBalancer", loadBalancerClass="example.com/edge"))
    refused = await patched(http, "web", {"loadBalancerClass": "example.com/other"})
    assert refused.status == 422 and "may not change once set" in refused.body["message"]
    gone = await patched(http, "web", {"type": "ClusterIP"})
    assert "loadBalancerClass" not in gone.body["spec"]
    back = await patched(http, "web", {"type": "LoadBalancer", "loadBalancerClass": "example.com/other"})
    assert back.body["spec"]["loadBalancerClass"] == "example.com/other"


async def test_a_balancer_may_give_its_node_ports_back(http: Http) -> None:
    spec = (await http("POST", SERVICES, service("web", type="LoadBalancer"))).body["spec"]
    number = spec["ports"][0]["nodePort"]
    without = [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": None}]
    changed = await patched(http, "web", {"allocateLoadBalancerNodePorts": False, "ports": without})
    assert "nodePort" not in changed.body["spec"]["ports"][0]
    again = service("again", type="NodePort", ports=[{"port": 80, "nodePort": number}])
    assert (await http("POST", SERVICES, again)).status == 201
