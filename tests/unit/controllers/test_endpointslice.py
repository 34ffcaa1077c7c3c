"""Packing endpoints into slices with the fewest writes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.controllers.conftest import make_pod

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Pod, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.slices import ENDPOINTS_MAX, Plan
from pilotage.controllers.endpointslice.core import decide
from pilotage.controllers.endpointslice.topology import Zones

TRIGGER = "2026-03-01T12:00:00.000000Z"
ZONES = Zones(by_node={"n1": "zone-a"})


def service(**spec: Any) -> Service:
    body = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}], **spec}
    metadata = {"name": "web", "namespace": "default", "uid": "uid-svc", "labels": {"team": "shop"}}
    return convert(Service, {"metadata": metadata, "spec": body})


def pods(numbers: Any) -> list[Pod]:
    return [
        make_pod(f"p{number}", ip=f"10.244.{number // 250}.{number % 250 + 1}", ready_for_s=1, node="n1")
        for number in numbers
    ]


class Store:
    """Applies plans as the API server would."""

    def __init__(self) -> None:
        self.slices: dict[str, dict[str, Any]] = {}
        self.writes = 0

    def typed(self) -> list[EndpointSlice]:
        return [convert(EndpointSlice, document) for document in self.slices.values()]

    def apply(self, step: Plan) -> None:
        for document in step.create:
            self.writes += 1
            name = f"web-{self.writes}"
            self.slices[name] = {**document, "metadata": {**document["metadata"], "name": name}}
        for change in step.update:
            self.writes += 1
            stored = self.slices[change.slice.metadata.name]
            labels = {**stored["metadata"]["labels"], **change.document["metadata"]["labels"]}
            stored["metadata"]["labels"] = {key: value for key, value in labels.items() if value is not None}
            if "endpoints" in change.document:
                stored["endpoints"] = change.document["endpoints"]
        for item in step.delete:
            self.writes += 1
            del self.slices[item.metadata.name]

    def settle(self, svc: Service, members: list[Pod]) -> int:
        before = self.writes
        self.apply(decide(svc, members, ZONES, self.typed(), TRIGGER).plan)
        assert not decide(svc, members, ZONES, self.typed(), TRIGGER).plan
        return self.writes - before

    def addresses(self) -> list[str]:
        return sorted(e["addresses"][0] for document in self.slices.values() for e in document["endpoints"])


def test_one_changed_pod_is_one_write() -> None:
    store = Store()
    assert store.settle(service(), pods(range(250))) == 3
    changed = [*pods(range(249)), make_pod("p249", ip="10.244.0.250", node="n1")]
    assert store.settle(service(), changed) == 1


def test_a_replaced_pod_is_one_write() -> None:
    store = Store()
    store.settle(service(), pods(range(150)))
    assert store.settle(service(), pods([*range(1, 150), 999])) == 1


def test_growth_fills_what_is_open_before_it_opens_more() -> None:
    store = Store()
    store.settle(service(), pods(range(150)))
    assert store.settle(service(), pods(range(180))) == 1
    assert sorted(len(document["endpoints"]) for document in store.slices.values()) == [80, 100]


def test_a_service_without_pods_keeps_one_empty_slice() -> None:
    store = Store()
    assert store.settle(service(), []) == 1
    assert [document["endpoints"] for document in store.slices.values()] == [[]]
    store.settle(service(), pods([1]))
    assert len(store.slices) == 1
    store.settle(service(), [])
    assert [document["endpoints"] for document in store.slices.values()] == [[]]


def test_labels_follow_the_service() -> None:
    store = Store()
    store.settle(service(), pods([1]))
    labels = next(iter(store.slices.values()))["metadata"]["labels"]
    assert labels == {
        "team": "shop",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    headless = service(clusterIP="None")
    assert store.settle(headless, pods([1])) == 1
    assert "service.kubernetes.io/headless" in next(iter(store.slices.values()))["metadata"]["labels"]


def test_conditions_of_a_terminating_pod() -> None:
    store = Store()
    store.settle(service(), [make_pod("p", ip="10.0.0.1", ready_for_s=1, deleting=True)])
    endpoint = next(iter(store.slices.values()))["endpoints"][0]
    assert endpoint["conditions"] == {"ready": False, "serving": True, "terminating": True}


def test_publish_not_ready_addresses_is_ready_whatever_the_pod_says() -> None:
    store = Store()
    store.settle(service(publishNotReadyAddresses=True), [make_pod("p", ip="10.0.0.1")])
    endpoint = next(iter(store.slices.values()))["endpoints"][0]
    assert endpoint["conditions"] == {"ready": True, "serving": False, "terminating": False}


def test_hostnames_only_under_the_pods_own_subdomain() -> None:
    store = Store()
    belongs = make_pod("db-0", ip="10.0.0.1", hostname="db-0", subdomain="web")
    stranger = make_pod("x", ip="10.0.0.2", hostname="x", subdomain="other")
    store.settle(service(), [belongs, stranger])
    hostnames = {e["addresses"][0]: e.get("hostname") for e in next(iter(store.slices.values()))["endpoints"]}
    assert hostnames == {"10.0.0.1": "db-0", "10.0.0.2": None}


def test_both_families_have_slices_of_their_own() -> None:
    both = make_pod("p", ready_for_s=1, ip="10.0.0.1")
    document = convert(
        Pod,
        {
            "metadata": {"name": "p", "namespace": "default", "uid": "u"},
            "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "phase": "Running"},
        },
    )
    store = Store()
    store.settle(service(ipFamilies=["IPv4", "IPv6"]), [document])
    assert sorted(item["addressType"] for item in store.slices.values()) == ["IPv4", "IPv6"]
    assert store.addresses() == ["10.0.0.1", "fd00::1"]
    assert both.status.pod_ip == "10.0.0.1"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sets(st.integers(0, 260), max_size=260), min_size=1, max_size=4))
def test_any_churn_ends_with_each_address_once_in_bounded_slices(generations: list[set[int]]) -> None:
    store = Store()
    for numbers in generations:
        members = pods(sorted(numbers))
        store.settle(service(), members)
        assert store.addresses() == sorted(item.status.pod_ip for item in members)
        assert all(len(document["endpoints"]) <= ENDPOINTS_MAX for document in store.slices.values())


HINTS = [
    pytest.param("", True, [], [], id="nothing asked for"),
    pytest.param("PreferClose", True, ["zone-a"], [], id="close"),
    pytest.param("PreferSameZone", True, ["zone-a"], [], id="same zone"),
    pytest.param("PreferSameNode", True, ["zone-a"], ["n1"], id="same node, then zone"),
    pytest.param("PreferSameNode", False, [], [], id="none for what serves nobody"),
]


@pytest.mark.parametrize(("distribution", "ready", "zones", "nodes"), HINTS)
def test_hints(distribution: str, ready: bool, zones: list[str], nodes: list[str]) -> None:
    member = make_pod("p", ip="10.244.0.1", node="n1", ready_for_s=1 if ready else None)
    step = decide(service(trafficDistribution=distribution), [member], ZONES, [], TRIGGER).plan
    hints = step.create[0]["endpoints"][0].get("hints", {})
    assert [item["name"] for item in hints.get("forZones", [])] == zones
    assert [item["name"] for item in hints.get("forNodes", [])] == nodes


def test_a_new_distribution_rewrites_the_hints_alone() -> None:
    store = Store()
    assert store.settle(service(), pods(range(3))) == 1
    assert store.settle(service(trafficDistribution="PreferClose"), pods(range(3))) == 1
    (stored,) = store.slices.values()
    assert [list(item["hints"]["forZones"]) for item in stored["endpoints"]] == [[{"name": "zone-a"}]] * 3
    assert store.settle(service(), pods(range(3))) == 1
    assert all("hints" not in item for item in next(iter(store.slices.values()))["endpoints"])


def test_what_only_adds_may_wait_and_nothing_else() -> None:
    store = Store()
    store.settle(service(), pods(range(3)))

    def may_wait(members: list[Pod], svc: Service | None = None) -> bool:
        return decide(svc or service(), members, ZONES, store.typed(), TRIGGER).only_adds

    coming = make_pod("p9", ip="10.244.0.10", node="n1")
    assert may_wait([*pods(range(3)), coming])
    assert may_wait(pods(range(4)))
    assert not may_wait(pods(range(2))), "one has gone"
    assert not may_wait([*pods(range(2)), make_pod("p2", ip="10.244.0.3", node="n1")]), "one is not ready any more"
    assert not may_wait([*pods(range(2)), make_pod("p2", ip="10.244.0.3", ready_for_s=1, node="n1", deleting=True)])
    assert not may_wait(pods(range(4)), service(ports=[{"name": "http", "port": 80, "targetPort": 9090}]))
