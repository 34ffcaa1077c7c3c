"""Which node answers for which address."""

from pilotage.api.core_v1 import Node, NodeCondition, NodeStatus
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.loadbalancer.core.election import EXCLUDE_LABEL, announcers, candidates, elect
from pilotage.testing.services import make_service, make_slice


def make_node(name: str, ready: str = "True", labels: dict[str, str] | None = None) -> Node:
    return Node(
        metadata=ObjectMeta(name=name, labels=labels or {}),
        status=NodeStatus(conditions=(NodeCondition(type="Ready", status=ready),)),
    )


NODES = [make_node(name) for name in ("n1", "n2", "n3")]
ADDRESSES = [f"10.89.200.{i}" for i in range(1, 200)]


def test_only_ready_nodes_that_are_not_excluded_stand_for_election() -> None:
    nodes = [*NODES, make_node("n4", "False"), make_node("n5", "Unknown"), make_node("n6", labels={EXCLUDE_LABEL: ""})]
    assert candidates(nodes) == ("n1", "n2", "n3")


def test_every_node_gets_a_fair_share() -> None:
    shares = [sum(elect(address, ("n1", "n2", "n3")) == node for address in ADDRESSES) for node in ("n1", "n2", "n3")]
    assert min(shares) > 40


def test_when_a_node_goes_only_its_addresses_move() -> None:
    before = {address: elect(address, ("n1", "n2", "n3")) for address in ADDRESSES}
    after = {address: elect(address, ("n1", "n3")) for address in ADDRESSES}
    assert all(after[address] == node for address, node in before.items() if node != "n2")


def test_without_candidates_nobody_answers() -> None:
    service = make_service(type="LoadBalancer", ingress=["10.89.200.1"])
    assert announcers([service], {}, [make_node("n1", "False")]) == {}


def test_policy_local_needs_an_endpoint_on_the_node() -> None:
    service = make_service(type="LoadBalancer", ingress=["10.89.200.1"], external_traffic_policy="Local")

    def elected(*endpoints: str) -> dict[str, str]:
        return announcers([service], {"default/web": [make_slice(endpoints=endpoints)]}, NODES)

    assert elected("10.244.2.2@n2") == {"10.89.200.1": "n2"}
    assert elected("10.244.2.2@n2!", "10.244.3.2@n3") == {"10.89.200.1": "n3"}
    assert elected("10.244.2.2@n2~", "10.244.3.2@n3!") == {"10.89.200.1": "n2"}
    assert elected("10.244.2.2@n2!") == {}


def test_other_services_addresses_are_not_announced() -> None:
    services = [
        make_service("cluster", ingress=["10.89.200.1"]),
        make_service("foreign", type="LoadBalancer", ingress=["10.89.200.2"], load_balancer_class="example.com/other"),
    ]
    assert announcers(services, {}, NODES) == {}
