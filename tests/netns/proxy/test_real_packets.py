"""Services on a real kernel: real connections between namespaces, through the rules of a backend in node n1.

One suite, for every backend and both address families: what a packet can show of a Service, each of them must do.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.network import namespaces
from pilotage.network.conntrack import forget_flows
from pilotage.proxy.backends import Backend
from pilotage.proxy.core.model import service_ports
from pilotage.proxy.core.plan import Delta, Planner
from pilotage.proxy.core.topology import NodeView
from pilotage.proxy.flows import Stale, forgetting
from pilotage.testing.services import make_service, make_slice

from .conftest import PATIENCE_S, Addresses, World, at, path


class Proxy:
    """Plans and applies, as the proxier does, without an API server."""

    def __init__(self, backend: Backend, net: Addresses) -> None:
        self.backend, self.net = backend, net
        self.planner = Planner(NodeView(name="n1"))
        self.vip = at(net.vip, 80)

    def service(self, name: str = "web", cluster_ip: str = "", ports: Iterable[str] = ("80",), **spec: Any) -> Service:
        return make_service(name, cluster_ip or self.net.vip, ports, **spec)

    def slice(self, pods: Iterable[str], ports: Iterable[str] = ("8080",), service: str = "web") -> EndpointSlice:
        """Endpoints by the names of pods, a trailing `!`, `~` or `-` as in `make_endpoint`; or as they stand."""
        endpoints = [self.net.endpoint(pod[0]) + pod[1:] if pod[0] in self.net.pods else pod for pod in pods]
        return make_slice(service, endpoints, ports, address_type=self.net.address_type)

    def start(self, services: Sequence[Service], slices: Sequence[EndpointSlice]) -> None:
        for service in services:
            self.plan(service, [one for one in slices if one.service_name == service.metadata.name])
        self.planner.take()
        self.backend.sync(self.planner.plan())

    def change(self, service: Service, *slices: EndpointSlice) -> Delta:
        self.plan(service, slices)
        delta = self.planner.take()
        self.backend.apply(delta)
        return delta

    def plan(self, service: Service, slices: Sequence[EndpointSlice]) -> None:
        self.planner.update(service.metadata.key, service_ports(service, slices))


@pytest.fixture
def proxy(each_backend: Backend, net: Addresses) -> Proxy:
    return Proxy(each_backend, net)


class TestClusterIP:
    def test_connections_spread_over_all_endpoints(self, world: World, proxy: Proxy) -> None:
        proxy.start([proxy.service()], [proxy.slice("abc")])
        assert world.names("a", proxy.vip, 60) == {"a", "b", "c"}

    def test_datagrams_spread_too(self, world: World, proxy: Proxy) -> None:
        proxy.start([proxy.service(ports=["80/UDP"])], [proxy.slice("abc", ["8080/UDP"])])
        assert world.names("a", proxy.vip, 60, udp=True) == {"a", "b", "c"}

    def test_a_pod_keeps_its_address(self, world: World, proxy: Proxy) -> None:
        proxy.start([proxy.service()], [proxy.slice("c")])
        assert world.ask("a", proxy.vip) == f"c {proxy.net.pods['a']}"

    def test_the_node_and_outsiders_reach_it(self, world: World, proxy: Proxy) -> None:
        proxy.start([proxy.service()], [proxy.slice("a")])
        bridge = proxy.net.bridges["n1"]
        assert world.ask("n1", proxy.vip) == f"a {bridge}"
        assert world.ask("client", proxy.vip) == f"a {bridge}"

    def test_a_pod_reaches_itself(self, world: World, proxy: Proxy) -> None:
        proxy.start([proxy.service()], [proxy.slice("a")])
        assert world.ask("a", proxy.vip) == f"a {proxy.net.bridges['n1']}"

    @pytest.mark.parametrize("source", ["a", "n1", "client"])
    @pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
    def test_without_endpoints_it_refuses_at_once(self, world: World, proxy: Proxy, source: str, udp: bool) -> None:
        proxy.start([proxy.service(ports=["http:80", "dns:80/UDP"])], [])
        started = time.monotonic()
        assert world.ask(source, proxy.vip, udp=udp) == "refused"
        assert time.monotonic() - started < 1

    def test_a_port_it_does_not_serve_refuses(self, world: World, proxy: Proxy) -> None:
        proxy.start([proxy.service()], [proxy.slice("a")])
        assert world.ask("a", at(proxy.net.vip, 81)) == "refused"
        assert world.ask("a", proxy.vip, udp=True) == "refused"

    def test_endpoints_come_and_go_between_connections(self, world: World, proxy: Proxy) -> None:
        service = proxy.service()
        proxy.start([service], [proxy.slice("a")])
        for pods, names in (("ab", {"a", "b"}), ("b", {"b"}), ("", {"refused"}), ("c", {"c"})):
            proxy.change(service, proxy.slice(pods))
            assert world.names("a", proxy.vip, 40 if len(names) > 1 else 3) == names

    def test_a_service_that_goes_leaves_nothing_behind(self, world: World, proxy: Proxy) -> None:
        one, other = proxy.service(), proxy.service("other", proxy.net.other_vip)
        proxy.start([one, other], [proxy.slice("a"), proxy.slice("b", service="other")])
        proxy.planner.update("default/web", ())
        proxy.backend.apply(proxy.planner.take())
        # Nobody translates it, so it goes where the default routes lead: round in a circle.
        assert world.ask("a", proxy.vip, patience_s=PATIENCE_S) in ("silence", "unreachable")
        assert world.names("a", at(proxy.net.other_vip, 80), 3) == {"b"}

    def test_cluster_dns_on_the_nodes_own_address(self, world: World, proxy: Proxy) -> None:
        service = proxy.service("kube-dns", proxy.net.other_vip, ["53/UDP"], internal_traffic_policy="Local")
        nodes = [f"{address}@{node}" for node, address in proxy.net.nodes.items()]
        proxy.start([service], [proxy.slice(nodes, ["53/UDP"], "kube-dns")])
        to = at(proxy.net.other_vip, 53)
        assert world.ask("a", to, udp=True) == f"dns-n1 {proxy.net.pods['a']}"
        assert world.ask("n1", to, udp=True).split(" ")[0] == "dns-n1"

    def test_internal_policy_local(self, world: World, proxy: Proxy) -> None:
        service = proxy.service(internal_traffic_policy="Local")
        proxy.start([service], [proxy.slice("bc")])
        assert world.names("a", proxy.vip, 20) == {"b"}
        proxy.change(service, proxy.slice("c"))
        assert world.is_silent("a", proxy.vip)

    def test_ports_and_protocols_are_told_apart(self, world: World, proxy: Proxy) -> None:
        service = proxy.service(ports=["one:80", "two:81", "three:80/UDP"])
        slices = [
            proxy.slice("a", ["one:8080"]),
            proxy.slice("b", ["two:8080"]),
            proxy.slice("c", ["three:8080/UDP"]),
        ]
        proxy.start([service], slices)
        assert world.names("b", proxy.vip, 5) == {"a"}
        assert world.names("b", at(proxy.net.vip, 81), 5) == {"b"}
        assert world.names("b", proxy.vip, 5, udp=True) == {"c"}

    def test_what_ends_serves_when_nothing_else_is_left(self, world: World, proxy: Proxy) -> None:
        service = proxy.service()
        proxy.start([service], [proxy.slice(["a~", "b!", "c"])])
        assert world.names("a", proxy.vip, 20) == {"c"}
        proxy.change(service, proxy.slice(["a~", "b!", "c-"]))
        assert world.names("a", proxy.vip, 20) == {"a"}


class TestExternalAddresses:
    @pytest.fixture
    def service(self, proxy: Proxy) -> Service:
        net = proxy.net
        return proxy.service(
            ports=["80@30080"], type="LoadBalancer", external_ips=(net.external,), ingress=(net.balancer,)
        )

    @pytest.fixture
    def addresses(self, net: Addresses) -> tuple[str, ...]:
        return at(net.nodes["n1"], 30080), at(net.balancer, 80), at(net.external, 80)

    @pytest.mark.parametrize("endpoint", ["a", "c"], ids=["here", "there"])
    def test_reach_endpoints_with_the_nodes_address(
        self, world: World, proxy: Proxy, service: Service, addresses: tuple[str, ...], endpoint: str
    ) -> None:
        proxy.start([service], [proxy.slice(endpoint)])
        seen = {"a": proxy.net.bridges["n1"], "c": proxy.net.nodes["n1"]}[endpoint]
        assert {world.ask("client", to) for to in addresses} == {f"{endpoint} {seen}"}

    def test_from_a_pod_and_the_node(
        self, world: World, proxy: Proxy, service: Service, addresses: tuple[str, ...]
    ) -> None:
        proxy.start([service], [proxy.slice("c")])
        for to in addresses:
            assert world.ask("a", to) == f"c {proxy.net.nodes['n1']}"
            assert world.ask("n1", to).split(" ")[0] == "c"

    def test_a_node_port_on_every_address_of_the_node_but_loopback(
        self, world: World, proxy: Proxy, service: Service
    ) -> None:
        proxy.start([service], [proxy.slice("b")])
        assert world.ask("a", at(proxy.net.bridges["n1"], 30080)).split(" ")[0] == "b"
        assert world.ask("n1", at("127.0.0.1" if proxy.net.family == "ip" else "::1", 30080)) == "refused"

    def test_policy_local_keeps_the_clients_address(self, world: World, proxy: Proxy) -> None:
        net = proxy.net
        service = proxy.service(
            ports=["80@30080"], type="LoadBalancer", ingress=(net.balancer,), external_traffic_policy="Local"
        )
        proxy.start([service], [proxy.slice("ac")])
        balancer, node_port = at(net.balancer, 80), at(net.nodes["n1"], 30080)
        for to in (balancer, node_port):
            assert {world.ask("client", to) for _ in range(10)} == {f"a {net.client}"}
        assert world.names("b", balancer, 40) == {"a", "c"}
        proxy.change(service, proxy.slice("c"))
        assert world.is_silent("client", balancer)
        assert world.is_silent("client", node_port)
        assert world.names("b", balancer, 3) == {"c"}

    def test_source_ranges(self, world: World, proxy: Proxy) -> None:
        net, to = proxy.net, at(proxy.net.balancer, 80)

        def service(*ranges: str) -> Service:
            return proxy.service(type="LoadBalancer", ingress=(net.balancer,), load_balancer_source_ranges=ranges)

        endpoint, served = proxy.slice("a"), f"a {net.bridges['n1']}"
        proxy.start([service(net.elsewhere_network, net.client_network)], [endpoint])
        assert world.ask("client", to) == served
        assert world.is_silent("b", to)
        proxy.change(service(net.elsewhere_network), endpoint)
        assert world.is_silent("client", to)
        assert world.ask("client", proxy.vip) == served, "only the balancer's address is guarded"
        proxy.change(service(), endpoint)
        assert world.ask("client", to) == served

    def test_without_endpoints_they_refuse(
        self, world: World, proxy: Proxy, service: Service, addresses: tuple[str, ...]
    ) -> None:
        proxy.start([service], [])
        assert {world.ask(source, to) for to in addresses for source in ("client", "a", "n1")} == {"refused"}

    def test_the_hosts_other_ports_are_untouched(self, world: World, proxy: Proxy, service: Service) -> None:
        proxy.start([service], [proxy.slice("a")])
        answer = world.ask("client", at(proxy.net.nodes["n1"], 53), udp=True)
        assert answer == f"dns-n1 {proxy.net.client}"


class TestMemory:
    def test_a_client_stays_with_its_endpoint(self, world: World, proxy: Proxy) -> None:
        proxy.start([proxy.service(session_affinity="ClientIP")], [proxy.slice("abc")])
        assert len(world.names("a", proxy.vip, 20)) == 1
        assert len(world.names("client", proxy.vip, 20)) == 1

    def test_a_client_stays_when_endpoints_come_and_others_go(self, world: World, proxy: Proxy) -> None:
        service = proxy.service(session_affinity="ClientIP")
        proxy.start([service], [proxy.slice("ab")])
        (first,) = world.names("client", proxy.vip, 5)
        for pods in (first + "c", "abc", first):
            proxy.change(service, proxy.slice(sorted(pods)))
            assert world.names("client", proxy.vip, 5) == {first}

    def test_a_client_moves_when_its_endpoint_goes(self, world: World, proxy: Proxy) -> None:
        service = proxy.service(session_affinity="ClientIP")
        proxy.start([service], [proxy.slice("ab")])
        (first,) = world.names("n1", proxy.vip, 5)
        delta = proxy.change(service, proxy.slice({"a": "b", "b": "a"}[first]))
        assert delta.clients_changed == {proxy.net.family}
        proxy.backend.forget_clients(proxy.net.family, proxy.planner.sticky)
        assert world.names("n1", proxy.vip, 5) == {"a", "b"} - {first}

    def test_affinity_of_a_node_port(self, world: World, proxy: Proxy) -> None:
        service = proxy.service(ports=["80@30080"], type="NodePort", session_affinity="ClientIP")
        proxy.start([service], [proxy.slice("abc")])
        assert len(world.names("client", at(proxy.net.nodes["n1"], 30080), 20)) == 1

    def test_a_datagram_flow_follows_its_endpoints(self, world: World, proxy: Proxy) -> None:
        service = proxy.service(ports=["80/UDP"])
        source = proxy.net.pods["b"]
        proxy.start([service], [proxy.slice("a", ["8080/UDP"])])
        with world.udp_socket("b", proxy.vip) as sock:
            assert world.ask("b", proxy.vip, udp=True, sock=sock) == f"a {source}"
            delta = proxy.change(service, proxy.slice("c", ["8080/UDP"]))
            assert delta.flows_changed
            assert world.ask("b", proxy.vip, udp=True, sock=sock) == f"a {source}", "the kernel remembers the flow"
            assert namespaces.run_in(path("n1"), _forgetting(proxy, delta)) >= 1
            assert world.ask("b", proxy.vip, udp=True, sock=sock) == f"c {source}"

    def test_a_datagram_flow_ends_when_its_source_may_enter_no_more(self, world: World, proxy: Proxy) -> None:
        net, to = proxy.net, at(proxy.net.balancer, 80)

        def service(network: str) -> Service:
            return proxy.service(
                ports=["80/UDP"], type="LoadBalancer", ingress=(net.balancer,), load_balancer_source_ranges=(network,)
            )

        endpoint = proxy.slice("a", ["8080/UDP"])
        proxy.start([service(net.client_network)], [endpoint])
        with world.udp_socket("client", to) as sock:
            assert world.ask("client", to, udp=True, sock=sock) == f"a {net.bridges['n1']}"
            delta = proxy.change(service(net.elsewhere_network), endpoint)
            assert delta.flows_changed
            assert namespaces.run_in(path("n1"), _forgetting(proxy, delta)) == 1
            assert world.ask("client", to, udp=True, sock=sock, patience_s=0.3) == "silence"

    def test_many_datagram_flows_are_forgotten_at_once(self, world: World, proxy: Proxy) -> None:
        service = proxy.service(ports=["80/UDP"])
        proxy.start([service], [proxy.slice("a", ["8080/UDP"])])
        assert world.names("b", proxy.vip, 600, udp=True) == {"a"}
        delta = proxy.change(service, proxy.slice("c", ["8080/UDP"]))
        # A port may have been used twice, so there are a few flows less than datagrams.
        assert namespaces.run_in(path("n1"), _forgetting(proxy, delta)) > 500

    def test_flows_survive_a_change_and_a_restart(self, world: World, proxy: Proxy) -> None:
        service = proxy.service(ports=["80/UDP"])
        source = proxy.net.pods["b"]
        proxy.start([service], [proxy.slice("a", ["8080/UDP"])])
        with world.udp_socket("b", proxy.vip) as sock:
            assert world.ask("b", proxy.vip, udp=True, sock=sock) == f"a {source}"
            proxy.change(service, proxy.slice("ac", ["8080/UDP"]))
            assert proxy.backend.sync(proxy.planner.plan()) == 0, "a restart finds everything as it should be"
            assert proxy.backend.check(proxy.planner.plan()) == ()
            assert world.ask("b", proxy.vip, udp=True, sock=sock) == f"a {source}"


def _forgetting(proxy: Proxy, delta: Delta) -> Callable[[], int]:
    stale = Stale()
    stale.add(1, delta)
    return forgetting(forget_flows, proxy.planner, stale)
