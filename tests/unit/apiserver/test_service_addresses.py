"""Allocation of cluster addresses and node ports: unique, in range, and free again."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pilotage.api.status import ApiError
from pilotage.apiserver.admission import ServiceAddresses
from pilotage.apiserver.admission.service_addresses import held
from pilotage.apiserver.documents import Document


def service(name: str = "web", **spec: Any) -> Document:
    ports = spec.pop("ports", [{"port": 80, "protocol": "TCP"}])
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"type": "ClusterIP", "ports": ports, **spec}}


def allocator(*networks: str) -> ServiceAddresses:
    return ServiceAddresses(networks or ("10.96.0.0/16",))


def allocated(addresses: ServiceAddresses, document: Document, old: Document | None = None) -> dict[str, Any]:
    addresses.allocate(old, document)
    addresses.observe(old, document)
    return document["spec"]


def refusal(addresses: ServiceAddresses, document: Document) -> str:
    with pytest.raises(ApiError) as refused:
        addresses.allocate(None, document)
    return str(refused.value)


def test_an_address_from_the_upper_part_and_the_fields_around_it() -> None:
    spec = allocated(allocator(), service())
    assert spec["clusterIP"] == "10.96.1.0" and spec["clusterIPs"] == ["10.96.1.0"]
    assert spec["ipFamilies"] == ["IPv4"] and spec["ipFamilyPolicy"] == "SingleStack"
    assert "nodePort" not in spec["ports"][0]


def test_an_address_chosen_by_hand() -> None:
    addresses = allocator()
    assert allocated(addresses, service(clusterIP="10.96.0.10"))["clusterIPs"] == ["10.96.0.10"]
    assert refusal(addresses, service("b", clusterIP="10.96.0.10")) == (
        'Service "b" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10: '
        "provided IP is already allocated"
    )
    assert refusal(addresses, service("b", clusterIP="192.168.0.1")).endswith(
        "failed to allocate IP 192.168.0.1: the provided IP (192.168.0.1) is not in the valid range. "
        "The range of valid IPs is 10.96.0.0/16"
    )


def test_headless_and_external_names_take_nothing() -> None:
    addresses = allocator("10.96.0.0/30")
    for index in range(5):
        spec = allocated(addresses, service(f"h{index}", clusterIP="None", selector={"app": "web"}))
        assert spec["clusterIPs"] == ["None"] and spec["ipFamilies"] == ["IPv4"]
    external = allocated(addresses, service("x", type="ExternalName", externalName="a.b", ports=[]))
    assert "clusterIP" not in external and "ipFamilies" not in external


def test_two_families() -> None:
    addresses = allocator("10.96.0.0/16", "fd00::/112")
    both = allocated(addresses, service(ipFamilyPolicy="PreferDualStack"))
    assert both["ipFamilies"] == ["IPv4", "IPv6"] and both["clusterIPs"][1].startswith("fd00::")
    six = allocated(addresses, service("six", ipFamilies=["IPv6"]))
    assert six["clusterIP"].startswith("fd00::") and six["ipFamilyPolicy"] == "SingleStack"
    lone = allocator()
    assert "not configured for dual-stack" in refusal(lone, service(ipFamilyPolicy="RequireDualStack"))
    assert 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured' in refusal(lone, service(ipFamilies=["IPv6"]))
    assert allocated(lone, service(ipFamilyPolicy="PreferDualStack"))["ipFamilies"] == ["IPv4"]


def test_node_ports() -> None:
    addresses = allocator()
    ports = [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 80, "nodePort": 30080}]
    spec = allocated(addresses, service(type="NodePort", ports=ports))
    first, second, third = (port["nodePort"] for port in spec["ports"])
    assert first == second, "one number serves both protocols of a port"
    assert 30000 <= first <= 32767 and third == 30080
    other = [{"port": 80, "nodePort": 30080}]
    assert refusal(addresses, service("b", type="NodePort", ports=other)) == (
        'Service "b" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated'
    )
    assert refusal(addresses, service("b", type="NodePort", ports=[{"port": 80, "nodePort": 80}])).endswith(
        "provided port is not in the valid range. The range of valid ports is 30000-32767"
    )


def test_load_balancers_may_go_without_node_ports_and_have_a_health_check() -> None:
    addresses = allocator()
    without = allocated(addresses, service(type="LoadBalancer", allocateLoadBalancerNodePorts=False))
    assert "nodePort" not in without["ports"][0]
    local = allocated(addresses, service("l", type="LoadBalancer", externalTrafficPolicy="Local"))
    assert local["healthCheckNodePort"] not in (0, None, local["ports"][0]["nodePort"])


def test_a_refused_service_leaves_nothing_taken() -> None:
    addresses = allocator("10.96.0.0/29")  # Six addresses.
    allocated(addresses, service("a", type="NodePort", ports=[{"port": 1, "nodePort": 30001}]))
    for _ in range(20):
        refusal(addresses, service("b", type="NodePort", ports=[{"port": 1, "nodePort": 30001}]))
    for index in range(5):
        allocated(addresses, service(f"c{index}"))
    assert refusal(addresses, service("full")) == "failed to allocate a serviceIP: range is full"


def test_undo_gives_back_and_only_what_was_new() -> None:
    addresses = allocator()
    old = service(type="ClusterIP")
    allocated(addresses, old)
    new = copy.deepcopy(old)
    new["spec"]["type"] = "NodePort"
    new["spec"]["ports"][0]["nodePort"] = 30080
    addresses.allocate(old, new)()
    assert allocated(addresses, service("b", type="NodePort", ports=[{"port": 1, "nodePort": 30080}]))
    assert "already allocated" in refusal(addresses, service("c", clusterIP=old["spec"]["clusterIP"]))


class Lives(RuleBasedStateMachine):
    """Services come, change and go; some writes fail. No two ever share an address or a port."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses = ServiceAddresses(("10.96.0.0/27",), (30000, 30020))
        self.stored: dict[str, Document] = {}
        self.count = 0

    def write(self, name: str, old: Document | None, new: Document, fails: bool) -> None:
        try:
            undo = self.addresses.allocate(old, new)
        except ApiError:
            return
        if fails:
            undo()
        else:
            self.stored[name] = new
            self.addresses.observe(old, new)

    @rule(
        kind=st.sampled_from(["ClusterIP", "NodePort"]),
        address=st.sampled_from(["", "10.96.0.3", "10.96.0.20"]),
        port=st.sampled_from([0, 30001, 30015]),
        fails=st.booleans(),
    )
    def create(self, kind: str, address: str, port: int, fails: bool) -> None:
        self.count += 1
        name = f"s{self.count}"
        ports: list[dict[str, Any]] = [{"port": 80, "protocol": "TCP"}]
        if port and kind == "NodePort":
            ports[0]["nodePort"] = port
        self.write(
            name, None, service(name, type=kind, ports=ports, **({"clusterIP": address} if address else {})), fails
        )

    @precondition(lambda self: self.stored)
    @rule(pick=st.integers(0, 99), fails=st.booleans())
    def open_up(self, pick: int, fails: bool) -> None:
        name = sorted(self.stored)[pick % len(self.stored)]
        new = copy.deepcopy(self.stored[name])
        new["spec"]["type"] = "NodePort"
        self.write(name, self.stored[name], new, fails)

    @precondition(lambda self: self.stored)
    @rule(pick=st.integers(0, 99))
    def delete(self, pick: int) -> None:
        name = sorted(self.stored)[pick % len(self.stored)]
        self.addresses.observe(self.stored.pop(name), None)

    @invariant()
    def nothing_is_shared(self) -> None:
        taken = [held(document) for document in self.stored.values()]
        for values in ([a for addresses, _ in taken for a in addresses], [p for _, ports in taken for p in ports]):
            assert len(values) == len(set(values))

    def teardown(self) -> None:
        for document in self.stored.values():
            self.addresses.observe(document, None)
        for index in range(30):  # All thirty usable addresses are free again.
            self.addresses.allocate(None, service(f"t{index}"))


Lives.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
test_lives = Lives.TestCase
