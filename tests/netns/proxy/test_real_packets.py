"""Services on a real kernel: real connections between namespaces, through the rules of the backend in node n1."""

import time
from collections.abc import Callable, Sequence

import pytest

from pilotage.api.core_v1 import ClientIPConfig, Service, SessionAffinityConfig
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.network import namespaces
from pilotage.network.conntrack import forget_flows
from pilotage.proxy.backends.nftables import NftablesBackend
from pilotage.proxy.core.flows import is_stale_flow
from pilotage.proxy.core.model import service_ports
from pilotage.proxy.core.plan import Delta, Planner
from pilotage.proxy.core.topology import NodeView
from pilotage.testing.services import make_service, make_slice

from .conftest import World, path

VIP = "10.96.0.1:80"
A, B, C = "10.244.1.2@n1", "10.244.1.3@n1", "10.244.2.2@n2"


class Proxy:
    """Plans and applies, as the proxier does, without an API server."""

    def __init__(self, backend: NftablesBackend) -> None:
        self.backend = backend
        self.planner = Planner(NodeView(name="n1"))

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
def proxy(backend: NftablesBackend) -> Proxy:
    return Proxy(backend)


class TestClusterIP:
    def test_connections_spread_over_all_endpoints(self, world: World, proxy: Proxy) -> None:
        proxy.start([make_service()], [make_slice(endpoints=[A, B, C])])
        assert world.names("a", VIP, 60) == {"a", "b", "c"}

    def test_datagrams_spread_too(self, world: World, proxy: Proxy) -> None:
        proxy.start([make_service(ports=["80/UDP"])], [make_slice(endpoints=[A, B, C], ports=["8080/UDP"])])
        assert world.names("a", VIP, 60, udp=True) == {"a", "b", "c"}

    def test_a_pod_keeps_its_address(self, world: World, proxy: Proxy) -> None:
        proxy.start([make_service()], [make_slice(endpoints=[C])])
        assert world.ask("a", VIP) == "c 10.244.1.2"

    def test_the_node_and_outsiders_reach_it(self, world: World, proxy: Proxy) -> None:
        proxy.start([make_service()], [make_slice(endpoints=[A])])
        assert world.ask("n1", VIP) == "a 10.244.1.1"
        assert world.ask("client", VIP) == "a 10.244.1.1"

    def test_a_pod_reaches_itself(self, world: World, proxy: Proxy) -> None:
        proxy.start([make_service()], [make_slice(endpoints=[A])])
        assert world.ask("a", VIP) == "a 10.244.1.1"

    @pytest.mark.parametrize("source", ["a", "n1", "client"])
    @pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
    def test_without_endpoints_it_refuses_at_once(self, world: World, proxy: Proxy, source: str, udp: bool) -> None:
        proxy.start([make_service(ports=["http:80", "dns:80/UDP"])], [])
        started = time.monotonic()
        assert world.ask(source, VIP, udp=udp) == "refused"
        assert time.monotonic() - started < 1

    def test_a_port_it_does_not_serve_refuses(self, world: World, proxy: Proxy) -> None:
        proxy.start([make_service()], [make_slice(endpoints=[A])])
        assert world.ask("a", "10.96.0.1:81") == "refused"
        assert world.ask("a", VIP, udp=True) == "refused"

    def test_endpoints_come_and_go_between_connections(self, world: World, proxy: Proxy) -> None:
        service = make_service()
        proxy.start([service], [make_slice(endpoints=[A])])
        for endpoints, names in (([A, B], {"a", "b"}), ([B], {"b"}), ([], {"refused"}), ([C], {"c"})):
            proxy.change(service, make_slice(endpoints=endpoints))
            assert world.names("a", VIP, 40 if len(names) > 1 else 3) == names

    def test_cluster_dns_on_the_nodes_own_address(self, world: World, proxy: Proxy) -> None:
        service = make_service("kube-dns", "10.96.0.10", ["53/UDP"], internal_traffic_policy="Local")
        proxy.start([service], [make_slice("kube-dns", ["10.89.0.11@n1", "10.89.0.12@n2"], ["53/UDP"])])
        assert world.ask("a", "10.96.0.10:53", udp=True) == "dns-n1 10.244.1.2"
        assert world.ask("n1", "10.96.0.10:53", udp=True).split(" ")[0] == "dns-n1"

    def test_spreading_is_even(self, world: World, proxy: Proxy) -> None:
        proxy.start([make_service()], [make_slice(endpoints=[A, B, C])])
        counts = dict.fromkeys("abc", 0)
        for _ in range(600):
            counts[world.ask("n1", VIP).split(" ")[0]] += 1
        # Chi-square with two degrees of freedom: above 13.8 happens by chance once in a thousand.
        assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 13.8, counts


class TestExternalAddresses:
    @pytest.fixture
    def service(self) -> Service:
        return make_service(
            ports=["80@30080"], type="LoadBalancer", external_ips=("198.51.100.7",), ingress=("10.89.200.1",)
        )

    @pytest.mark.parametrize("to", ["10.89.0.11:30080", "10.89.200.1:80", "198.51.100.7:80"])
    @pytest.mark.parametrize(("endpoint", "seen"), [(A, "a 10.244.1.1"), (C, "c 10.89.0.11")], ids=["here", "there"])
    def test_reach_endpoints_with_the_nodes_address(
        self, world: World, proxy: Proxy, service: Service, to: str, endpoint: str, seen: str
    ) -> None:
        proxy.start([service], [make_slice(endpoints=[endpoint])])
        assert world.ask("client", to) == seen

    def test_node_port_from_a_pod_and_the_node(self, world: World, proxy: Proxy, service: Service) -> None:
        proxy.start([service], [make_slice(endpoints=[C])])
        assert world.ask("a", "10.89.0.11:30080") == "c 10.89.0.11"
        assert world.ask("n1", "10.89.0.11:30080").split(" ")[0] == "c"

    def test_policy_local_keeps_the_clients_address(self, world: World, proxy: Proxy) -> None:
        service = make_service(
            ports=["80@30080"], type="LoadBalancer", ingress=("10.89.200.1",), external_traffic_policy="Local"
        )
        proxy.start([service], [make_slice(endpoints=[A, C])])
        for to in ("10.89.200.1:80", "10.89.0.11:30080"):
            assert {world.ask("client", to) for _ in range(10)} == {"a 10.89.0.1"}
        assert world.names("b", "10.89.200.1:80", 40) == {"a", "c"}
        proxy.change(service, make_slice(endpoints=[C]))
        assert world.ask("client", "10.89.200.1:80") == "silence"

    def test_source_ranges(self, world: World, proxy: Proxy) -> None:
        def service(*ranges: str) -> Service:
            return make_service(type="LoadBalancer", ingress=("10.89.200.1",), load_balancer_source_ranges=ranges)

        proxy.start([service("10.89.0.0/24")], [make_slice(endpoints=[A])])
        assert world.ask("client", "10.89.200.1:80") == "a 10.244.1.1"
        proxy.change(service("203.0.113.0/24"), make_slice(endpoints=[A]))
        assert world.ask("client", "10.89.200.1:80") == "silence"
        proxy.change(service(), make_slice(endpoints=[A]))
        assert world.ask("client", "10.89.200.1:80") == "a 10.244.1.1"

    def test_without_endpoints_a_node_port_refuses(self, world: World, proxy: Proxy, service: Service) -> None:
        proxy.start([service], [])
        assert world.ask("client", "10.89.0.11:30080") == "refused"

    def test_the_hosts_other_ports_are_untouched(self, world: World, proxy: Proxy, service: Service) -> None:
        proxy.start([service], [make_slice(endpoints=[A])])
        assert world.ask("client", "10.89.0.11:53", udp=True) == "dns-n1 10.89.0.1"


class TestMemory:
    def test_a_client_stays_with_its_endpoint(self, world: World, proxy: Proxy) -> None:
        proxy.start([make_service(session_affinity="ClientIP")], [make_slice(endpoints=[A, B, C])])
        assert len(world.names("a", VIP, 20)) == 1
        assert len(world.names("client", VIP, 20)) == 1

    def test_a_client_moves_when_its_endpoint_goes(self, world: World, proxy: Proxy) -> None:
        service = make_service(session_affinity="ClientIP")
        proxy.start([service], [make_slice(endpoints=[A, B])])
        (first,) = world.names("n1", VIP, 5)
        other = {"a": B, "b": A}[first]
        delta = proxy.change(service, make_slice(endpoints=[other]))
        assert delta.clients_changed == {"ip"}
        assert proxy.backend.forget_clients("ip", proxy.planner.sticky) == 1
        assert world.names("n1", VIP, 5) == {"a", "b"} - {first}

    def test_affinity_ends_after_its_timeout(self, world: World, proxy: Proxy) -> None:
        service = make_service(
            session_affinity="ClientIP",
            session_affinity_config=SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=1)),
        )
        proxy.start([service], [make_slice(endpoints=[A, B, C])])
        world.ask("a", VIP)

        def moved() -> bool:
            time.sleep(1.1)  # the subject is the passing of this second
            return len(world.names("a", VIP, 1) | seen) > 1

        seen = world.names("a", VIP, 1)
        assert any(moved() for _ in range(12))

    def test_a_datagram_flow_follows_its_endpoints(self, world: World, proxy: Proxy) -> None:
        service = make_service(ports=["80/UDP"])
        proxy.start([service], [make_slice(endpoints=[A], ports=["8080/UDP"])])
        with world.udp_socket("b", VIP) as sock:
            assert world.ask("b", VIP, udp=True, sock=sock) == "a 10.244.1.3"
            delta = proxy.change(service, make_slice(endpoints=[C], ports=["8080/UDP"]))
            assert delta.flows_changed
            assert world.ask("b", VIP, udp=True, sock=sock) == "a 10.244.1.3", "the kernel remembers the flow"
            assert namespaces.run_in(path("n1"), _forgetting(proxy, delta)) >= 1
            assert world.ask("b", VIP, udp=True, sock=sock) == "c 10.244.1.3"

    def test_established_connections_survive_a_change_and_a_restart(self, world: World, proxy: Proxy) -> None:
        service = make_service(ports=["80/UDP"])
        proxy.start([service], [make_slice(endpoints=[A], ports=["8080/UDP"])])
        with world.udp_socket("b", VIP) as sock:
            assert world.ask("b", VIP, udp=True, sock=sock) == "a 10.244.1.3"
            proxy.change(service, make_slice(endpoints=[A, C], ports=["8080/UDP"]))
            assert proxy.backend.sync(proxy.planner.plan()) == 0
            assert world.ask("b", VIP, udp=True, sock=sock) == "a 10.244.1.3"


def _forgetting(proxy: Proxy, delta: Delta) -> Callable[[], int]:
    return lambda: forget_flows(
        lambda flow: (
            flow.protocol == 17
            and is_stale_flow(
                proxy.planner.udp,
                delta.frontends_gone,
                destination=flow.destination,
                destination_port=flow.destination_port,
                reply_source=flow.reply_source,
                reply_source_port=flow.reply_source_port,
            )
        )
    )
