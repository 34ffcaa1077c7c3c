"""Services that claim what another has, and ports that mean two things: packets show whose they are.

Who claims wrongly is named and gets what else it asks for; whoever else there is keeps what it has.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from pilotage.api.core_v1 import Service
from pilotage.proxy.backends import Backend
from pilotage.proxy.core.model import Problem, service_ports

from .conftest import Addresses, World, at
from .test_real_packets import Proxy

OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


@pytest.fixture
def proxy(each_backend: Backend, net: Addresses) -> Proxy:
    return Proxy(each_backend, net)


def settle(proxy: Proxy, services: dict[str, tuple[Service | None, str]], changed: Sequence[str]) -> list[Problem]:
    """Plan `changed` and whom they concern (name → Service and the pod behind it), as the proxier does."""
    problems: dict[str, list[Problem]] = {}
    waiting = list(changed)
    while waiting:
        name = waiting.pop(0)
        service, pod = services[name]
        ports, age = service_ports(service, [proxy.slice(pod, service=name)]) if service else (), OLD
        if service is not None:
            age = service.metadata.creation_timestamp
        problems[name] = []
        again = proxy.planner.update(f"default/{name}", ports, age=age, problems=problems[name])
        waiting += [key.removeprefix("default/") for key in again]
    return [one for found in problems.values() for one in found]


def start(proxy: Proxy, services: dict[str, tuple[Service | None, str]]) -> list[Problem]:
    found = settle(proxy, services, list(services))
    proxy.planner.take()
    proxy.backend.sync(proxy.planner.plan())
    return found


def claims(proxy: Proxy, spec: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Service | None, str]]:
    """Two Services with one endpoint each: `older`, led to pod a, and `younger`, led to pod c."""
    return {
        "older": (proxy.service("older", created=OLD, **spec), "a"),
        "younger": (proxy.service("younger", created=YOUNG, **other), "c"),
    }


class TestClaims:
    def test_a_node_port_that_two_services_have(self, world: World, proxy: Proxy) -> None:
        node_port = at(proxy.net.nodes["n1"], 30080)
        services = claims(
            proxy,
            {"ports": ["80@30080"], "type": "NodePort"},
            {"cluster_ip": proxy.net.other_vip, "ports": ["80@30080", "more:81@30081"], "type": "NodePort"},
        )
        (problem,) = start(proxy, services)
        assert (problem.service, problem.reason) == ("default/younger", "AddressInUse")
        assert problem.message == "node port 30080/tcp already belongs to Service default/older"
        assert world.names("client", node_port, 8) == {"a"}
        assert world.names("b", proxy.vip, 4) == {"a"}
        assert world.names("b", at(proxy.net.other_vip, 80), 4) == {"c"}, "what else it asks for it gets"

        services["older"] = (None, "a")
        assert settle(proxy, services, ["older"]) == []
        proxy.backend.apply(proxy.planner.take())
        assert world.names("client", node_port, 8) == {"c"}
        assert world.ask("b", proxy.vip) != "a", "nobody's now"

    def test_a_cluster_ip_and_port_that_two_services_have(self, world: World, proxy: Proxy) -> None:
        services = claims(proxy, {"ports": ["80"]}, {"ports": ["one:80", "two:81"]})
        (problem,) = start(proxy, services)
        assert problem.service == "default/younger"
        assert problem.message == f"{proxy.net.vip}:80/tcp already belongs to Service default/older"
        assert world.names("b", proxy.vip, 8) == {"a"}

    @pytest.mark.parametrize("culprit", ["older", "younger"])
    def test_an_external_address_that_is_anothers_cluster_ip(self, world: World, proxy: Proxy, culprit: str) -> None:
        victim = "younger" if culprit == "older" else "older"
        wrong: dict[str, Any] = {"cluster_ip": proxy.net.other_vip, "external_ips": (proxy.net.vip, proxy.net.external)}
        services = claims(proxy, *((wrong, {}) if culprit == "older" else ({}, wrong)))
        right_pod, wrong_pod = services[victim][1], services[culprit][1]
        (problem,) = start(proxy, services)
        assert problem.service == f"default/{culprit}", "whoever came first, a cluster IP is whose it is"
        assert problem.message == f"{proxy.net.vip}:80/tcp already belongs to Service default/{victim}"
        for source in ("b", "n1", "client"):
            assert world.names(source, proxy.vip, 4) == {right_pod}
        assert world.ask("b", proxy.vip) == f"{right_pod} {proxy.net.pods['b']}", "nor is its client hidden"
        assert world.names("client", at(proxy.net.external, 80), 4) == {wrong_pod}

    def test_what_was_free_is_given_up_to_whose_cluster_ip_it_becomes(self, world: World, proxy: Proxy) -> None:
        services = claims(proxy, {"cluster_ip": proxy.net.other_vip, "external_ips": (proxy.net.vip,)}, {})
        victim, services["younger"] = services["younger"], (None, "c")
        assert start(proxy, services) == []
        assert world.names("client", proxy.vip, 4) == {"a"}
        services["younger"] = victim
        assert [one.service for one in settle(proxy, services, ["younger"])] == ["default/older"]
        proxy.backend.apply(proxy.planner.take())
        assert world.names("client", proxy.vip, 4) == {"c"}


class TestMasquerade:
    """One number, 30080: a port of cluster IPs and of balancers, and another Service's node port."""

    NODE_PORT = 30080

    def services(
        self, proxy: Proxy, *, node_port_policy: str = "Cluster", balancer_policy: str = "Cluster"
    ) -> dict[str, tuple[Service | None, str]]:
        return claims(
            proxy,
            {
                "ports": [f"80@{self.NODE_PORT}"],
                "type": "NodePort",
                "external_traffic_policy": node_port_policy,
            },
            {
                "cluster_ip": proxy.net.other_vip,
                "ports": [f"{self.NODE_PORT}>8080@31000"],
                "type": "LoadBalancer",
                "ingress": [proxy.net.balancer],
                "external_traffic_policy": balancer_policy,
            },
        )

    def test_a_pod_keeps_its_address_on_its_way_to_a_cluster_ip(self, world: World, proxy: Proxy) -> None:
        assert start(proxy, self.services(proxy)) == []
        assert world.ask("b", at(proxy.net.other_vip, self.NODE_PORT)) == f"c {proxy.net.pods['b']}"

    def test_outsiders_get_the_nodes_address_on_both(self, world: World, proxy: Proxy) -> None:
        start(proxy, self.services(proxy))
        node = proxy.net.nodes["n1"]
        assert world.ask("client", at(proxy.net.other_vip, self.NODE_PORT)) == f"c {node}"
        assert world.ask("client", at(proxy.net.balancer, self.NODE_PORT)) == f"c {node}"
        assert world.ask("client", at(node, self.NODE_PORT)) == f"a {proxy.net.bridges['n1']}"
        assert world.ask("client", at(node, 31000)) == f"c {node}"

    def test_policy_local_of_the_balancer_keeps_its_clients(self, world: World, proxy: Proxy) -> None:
        services = self.services(proxy, balancer_policy="Local")
        services["younger"] = (services["younger"][0], "b")  # an endpoint on this node
        start(proxy, services)
        assert world.ask("client", at(proxy.net.balancer, self.NODE_PORT)) == f"b {proxy.net.client}"
        assert world.ask("client", at(proxy.net.nodes["n1"], self.NODE_PORT)) == f"a {proxy.net.bridges['n1']}"

    def test_policy_local_of_the_node_port_keeps_its_clients(self, world: World, proxy: Proxy) -> None:
        start(proxy, self.services(proxy, node_port_policy="Local"))
        assert world.ask("client", at(proxy.net.nodes["n1"], self.NODE_PORT)) == f"a {proxy.net.client}"
        assert world.ask("client", at(proxy.net.balancer, self.NODE_PORT)) == f"c {proxy.net.nodes['n1']}"
        assert world.ask("b", at(proxy.net.other_vip, self.NODE_PORT)) == f"c {proxy.net.pods['b']}"
