"""ClusterConfig → Plan: addresses that stay the same over restarts."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from pilotage.network import Route
from pilotage.up.core.config import NODES_MAX, ClusterConfig, IPv6Networks, Networks
from pilotage.up.core.plan import fabric_routes, make_plan
from pilotage.up.core.processes import identities, processes


def test_the_default_cluster_has_the_documented_addresses() -> None:
    plan = make_plan(ClusterConfig())
    assert plan.address == "10.89.0.1"
    assert plan.api_url == "https://10.89.0.1:6443"
    assert [(node.name, node.address, node.pod_cidr) for node in plan.nodes] == [
        ("n1", "10.89.0.11", "10.244.1.0/24"),
        ("n2", "10.89.0.12", "10.244.2.0/24"),
    ]
    assert (plan.kubernetes_service, plan.dns_service) == ("10.96.0.1", "10.96.0.10")


def test_the_outside_reaches_pods_by_their_node_and_services_by_any() -> None:
    assert fabric_routes(make_plan(ClusterConfig())) == (
        Route(destination="10.244.1.0/24", via=("10.89.0.11",)),
        Route(destination="10.244.2.0/24", via=("10.89.0.12",)),
        Route(destination="10.96.0.0/16", via=("10.89.0.11", "10.89.0.12")),
    )


def test_a_second_family_is_numbered_like_the_first() -> None:
    plan = make_plan(ClusterConfig(networks=Networks(ipv6=IPv6Networks())))
    assert plan.second is not None
    assert (plan.second.address, plan.second.prefix_length) == ("fd00:10:89::1", 64)
    assert [(node.second_address, node.second_pod_cidr) for node in plan.nodes] == [
        ("fd00:10:89::b", "fd00:10:244:1::/64"),
        ("fd00:10:89::c", "fd00:10:244:2::/64"),
    ]
    assert plan.pod_cidrs == ("10.244.0.0/16", "fd00:10:244::/56")
    assert plan.service_cidrs == ("10.96.0.0/16", "fd00:10:96::/112")
    assert plan.dns_services == ("10.96.0.10", "fd00:10:96::a")
    assert plan.load_balancer_cidrs == ("10.89.200.0/24", "fd00:10:89::200:0/112")
    first = fabric_routes(make_plan(ClusterConfig()))
    assert fabric_routes(plan) == (
        *first,
        Route(destination="fd00:10:244:1::/64", via=("fd00:10:89::b",)),
        Route(destination="fd00:10:244:2::/64", via=("fd00:10:89::c",)),
        Route(destination="fd00:10:96::/112", via=("fd00:10:89::b", "fd00:10:89::c")),
    )


def test_other_ranges_are_followed() -> None:
    networks = Networks(
        underlay="172.20.0.0/16", pods="172.21.0.0/16", services="172.22.0.0/20", load_balancers="172.20.9.0/24"
    )
    plan = make_plan(ClusterConfig(networks=networks))
    assert (plan.address, plan.nodes[0].address, plan.nodes[0].pod_cidr) == (
        "172.20.0.1",
        "172.20.0.11",
        "172.21.1.0/24",
    )
    assert plan.dns_service == "172.22.0.10"


@given(st.integers(1, NODES_MAX))
def test_no_two_nodes_share_an_address_and_none_is_in_the_pool(count: int) -> None:
    plan = make_plan(ClusterConfig(nodes=count, networks=Networks(ipv6=IPv6Networks())))
    assert plan.second is not None
    assert len({node.second_address for node in plan.nodes}) == count
    assert not any(
        ipaddress.ip_address(node.second_address) in ipaddress.ip_network(plan.second.load_balancer_cidr)
        for node in plan.nodes
    )
    ranges = {ipaddress.IPv6Network(node.second_pod_cidr) for node in plan.nodes}
    assert len(ranges) == count
    assert all(part.subnet_of(ipaddress.IPv6Network(plan.second.pod_cidr)) for part in ranges)
    pool = ipaddress.ip_network(plan.load_balancer_cidr)
    assert len({node.address for node in plan.nodes}) == len({node.pod_cidr for node in plan.nodes}) == count
    assert not any(ipaddress.ip_address(node.address) in pool for node in plan.nodes)
    assert all(
        ipaddress.ip_network(node.pod_cidr).subnet_of(ipaddress.IPv4Network(plan.pod_cidr)) for node in plan.nodes
    )


@given(st.integers(1, 10))
def test_adding_a_node_moves_nobody(count: int) -> None:
    assert make_plan(ClusterConfig(nodes=count + 1)).nodes[:count] == make_plan(ClusterConfig(nodes=count)).nodes


def test_every_node_has_its_three_processes_and_the_cluster_its_own() -> None:
    names = [process.name for process in processes(make_plan(ClusterConfig()))]
    assert names[0] == "apiserver"
    assert len(names) == len(set(names))
    assert {"agent-n1", "proxy-n1", "dns-n1", "agent-n2", "proxy-n2", "dns-n2", "gateway", "controllers"} < set(names)


def test_every_agent_has_an_identity_of_its_own() -> None:
    found = {identity.file: identity for identity in identities(make_plan(ClusterConfig()))}
    assert found["agent-n2"].common_name == "system:node:n2"
    assert found["agent-n2"].organizations == ("system:nodes",)
    assert found["admin"].organizations == ("system:masters",)
    assert found["external-dns"].common_name == "system:pilotage:external-dns"
