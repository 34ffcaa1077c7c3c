"""What the planned rules do to packets: Services in, a packet through the rule set in memory, its fate out."""

from collections.abc import Sequence

import pytest

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import Endpoint, EndpointHints, EndpointSlice, ForZone
from pilotage.nft.core.ruleset import Ruleset
from pilotage.nft.core.tracer import Outcome, Packet, trace
from pilotage.proxy.backends.fake import FakeBackend
from pilotage.proxy.core.layout import Surroundings
from pilotage.proxy.core.model import service_ports
from pilotage.proxy.core.plan import Planner
from pilotage.proxy.core.topology import NodeView
from pilotage.testing.services import make_endpoint, make_service, make_slice

NODE, NODE_IP = "n1", "10.89.0.11"
POD, OUTSIDER = "10.244.1.9", "10.89.0.1"
A, B, C = "10.244.1.2@n1", "10.244.2.2@n2", "10.244.2.3@n2"


def ruleset(services: Sequence[Service], slices: Sequence[EndpointSlice], *, zone: str = "") -> Ruleset:
    planner = Planner(NodeView(name=NODE, zone=zone))
    for service in services:
        own = [one for one in slices if one.service_name == service.metadata.name]
        planner.update(service.metadata.key, service_ports(service, own), age=service.metadata.creation_timestamp)
    backend = FakeBackend(surroundings=Surroundings(cluster_cidrs=("10.244.0.0/16", "fd00:244::/56")))
    backend.sync(planner.plan())
    return backend.nft.ruleset


def send(
    rules: Ruleset, to: str, *, source: str = POD, protocol: str = "tcp", from_host: bool = False, roll: int = 0
) -> Outcome:
    """One packet to `address:port` from a pod of this node, unless said otherwise."""
    address, _, port = to.rpartition(":")
    packet = Packet(source=source, destination=address.strip("[]"), protocol=protocol, destination_port=int(port))
    return trace(rules, packet, local=(NODE_IP, "127.0.0.1"), from_host=from_host, roll=lambda mod: roll % mod)


def arrives(rules: Ruleset, to: str, **options: object) -> str:
    """Where a packet ends: `address:port`, with `+masquerade` when its source is replaced, or `reject` or `drop`."""
    outcome = send(rules, to, **options)  # type: ignore[arg-type]
    if outcome.verdict != "accept":
        return outcome.verdict
    assert outcome.packet.priority == 0, "the number of the way must not stay on the packet"
    return outcome.destination + ("+masquerade" if outcome.masqueraded else "")


class TestClusterIP:
    def test_every_endpoint_gets_its_turn(self) -> None:
        rules = ruleset([make_service()], [make_slice(endpoints=[A, B, C])])
        assert [arrives(rules, "10.96.0.1:80", roll=roll) for roll in range(3)] == [
            "10.244.1.2:8080",
            "10.244.2.2:8080",
            "10.244.2.3:8080",
        ]

    def test_other_traffic_passes_untouched(self) -> None:
        rules = ruleset([make_service()], [make_slice(endpoints=[A])])
        assert arrives(rules, "192.0.2.1:80") == "192.0.2.1:80"
        assert arrives(rules, "10.244.2.2:8080") == "10.244.2.2:8080"

    def test_the_node_itself_is_served_and_masqueraded(self) -> None:
        rules = ruleset([make_service()], [make_slice(endpoints=[B])])
        assert arrives(rules, "10.96.0.1:80", source=NODE_IP, from_host=True) == "10.244.2.2:8080+masquerade"

    def test_a_client_outside_the_pod_network_is_masqueraded(self) -> None:
        rules = ruleset([make_service()], [make_slice(endpoints=[B])])
        assert arrives(rules, "10.96.0.1:80", source=OUTSIDER) == "10.244.2.2:8080+masquerade"

    def test_a_pod_that_reaches_itself_is_masqueraded(self) -> None:
        rules = ruleset([make_service()], [make_slice(endpoints=[A])])
        assert arrives(rules, "10.96.0.1:80", source="10.244.1.2") == "10.244.1.2:8080+masquerade"
        assert arrives(rules, "10.96.0.1:80", source=POD) == "10.244.1.2:8080"

    def test_without_endpoints_clients_are_refused(self) -> None:
        rules = ruleset([make_service()], [])
        assert arrives(rules, "10.96.0.1:80") == "reject"
        assert arrives(rules, "10.96.0.1:80", source=NODE_IP, from_host=True) == "reject"

    @pytest.mark.parametrize("to", ["10.96.0.1:81", "10.96.0.1:80"], ids=["another port", "another protocol"])
    def test_what_a_cluster_ip_does_not_serve_is_refused(self, to: str) -> None:
        rules = ruleset([make_service(ports=["80/UDP"])], [make_slice(endpoints=[A], ports=["8080/UDP"])])
        assert arrives(rules, to) == "reject"

    def test_established_connections_are_left_alone(self) -> None:
        rules = ruleset([make_service()], [])
        packet = Packet(source=POD, destination="10.96.0.1", destination_port=80, state="established")
        assert trace(rules, packet).verdict == "accept"

    def test_the_target_port_may_differ_from_pod_to_pod(self) -> None:
        slices = [
            make_slice(endpoints=[A], ports=["http:8080"], name="web-1"),
            make_slice(endpoints=[B], ports=["http:9090"], name="web-2"),
        ]
        rules = ruleset([make_service(ports=["http:80"])], slices)
        assert [arrives(rules, "10.96.0.1:80", roll=roll) for roll in (0, 1)] == ["10.244.1.2:8080", "10.244.2.2:9090"]

    def test_ports_and_protocols_are_told_apart(self) -> None:
        service = make_service(ports=["dns:53/UDP", "dns-tcp:53", "metrics:9153"])
        slices = [make_slice(endpoints=[A], ports=["dns:1053/UDP", "dns-tcp:2053", "metrics:9999"])]
        rules = ruleset([service], slices)
        assert arrives(rules, "10.96.0.1:53", protocol="udp") == "10.244.1.2:1053"
        assert arrives(rules, "10.96.0.1:53") == "10.244.1.2:2053"
        assert arrives(rules, "10.96.0.1:9153") == "10.244.1.2:9999"

    def test_ipv6_is_served_alike(self) -> None:
        service = make_service(cluster_ip="fd00:96::1")
        rules = ruleset([service], [make_slice(endpoints=["fd00:244::2@n1"], address_type="IPv6")])
        assert arrives(rules, "[fd00:96::1]:80", source="fd00:244::9") == "fd00:244::2:8080"
        assert arrives(rules, "[fd00:96::1]:80", source="2001:db8::1") == "fd00:244::2:8080+masquerade"
        assert arrives(rules, "[fd00:96::1]:81", source="fd00:244::9") == "reject"

    def test_both_families_of_one_service(self) -> None:
        service = make_service(cluster_ips=("10.96.0.1", "fd00:96::1"))
        slices = [
            make_slice(endpoints=[A], name="web-4"),
            make_slice(endpoints=["fd00:244::2"], name="web-6", address_type="IPv6"),
        ]
        rules = ruleset([service], slices)
        assert arrives(rules, "10.96.0.1:80") == "10.244.1.2:8080"
        assert arrives(rules, "[fd00:96::1]:80", source="fd00:244::9") == "fd00:244::2:8080"


class TestEndpointStates:
    @pytest.mark.parametrize(
        ("endpoints", "expected"),
        [
            pytest.param([A + "!", B], "10.244.2.2:8080", id="one that is not ready gets nothing"),
            pytest.param([A + "~", B], "10.244.2.2:8080", id="a terminating one gets nothing while another is ready"),
            pytest.param(
                [A + "~", B + "!"], "10.244.1.2:8080", id="a terminating one serves when nothing else is left"
            ),
            pytest.param([A + "-", B + "!"], "reject", id="a terminating one that stopped serving is no endpoint"),
        ],
    )
    def test_conditions(self, endpoints: list[str], expected: str) -> None:
        rules = ruleset([make_service()], [make_slice(endpoints=endpoints)])
        assert {arrives(rules, "10.96.0.1:80", roll=roll) for roll in range(4)} == {expected}

    def test_an_endpoint_in_two_slices_counts_once_and_ready_wins(self) -> None:
        slices = [make_slice(endpoints=[A + "!"], name="web-1"), make_slice(endpoints=[A], name="web-2")]
        rules = ruleset([make_service()], slices)
        assert {arrives(rules, "10.96.0.1:80", roll=roll) for roll in range(4)} == {"10.244.1.2:8080"}

    def test_zone_hints_keep_traffic_in_the_zone(self) -> None:
        def hinted(text: str, zone: str) -> Endpoint:
            endpoint = make_endpoint(text)
            return Endpoint(
                addresses=endpoint.addresses,
                conditions=endpoint.conditions,
                node_name=endpoint.node_name,
                hints=EndpointHints(for_zones=(ForZone(name=zone),)),
            )

        slices = [make_slice(endpoints=[hinted(A, "zone-a"), hinted(B, "zone-b")])]
        seen = {
            zone: {arrives(ruleset([make_service()], slices, zone=zone), "10.96.0.1:80", roll=r) for r in range(2)}
            for zone in ("zone-a", "zone-b", "zone-c", "")
        }
        both = {"10.244.1.2:8080", "10.244.2.2:8080"}
        assert seen == {"zone-a": {"10.244.1.2:8080"}, "zone-b": {"10.244.2.2:8080"}, "zone-c": both, "": both}


class TestWhatIsNotOurs:
    @pytest.mark.parametrize(
        "service",
        [
            pytest.param(make_service(cluster_ip="None"), id="headless"),
            pytest.param(make_service(type="ExternalName", cluster_ip=""), id="ExternalName"),
            pytest.param(
                make_service(labels={"service.kubernetes.io/service-proxy-name": "other"}), id="another proxy's"
            ),
            pytest.param(make_service(labels={"service.kubernetes.io/headless": ""}), id="labelled headless"),
        ],
    )
    def test_passes_untouched(self, service: Service) -> None:
        rules = ruleset([service], [make_slice(endpoints=[A])])
        assert arrives(rules, "10.96.0.1:80") == "10.96.0.1:80"


class TestExternalAddresses:
    SERVICE = make_service(
        ports=["80@30080"], type="LoadBalancer", external_ips=("198.51.100.7",), ingress=("10.89.200.1",)
    )
    ADDRESSES = ("198.51.100.7:80", "10.89.200.1:80", f"{NODE_IP}:30080")

    @pytest.mark.parametrize("to", ADDRESSES)
    @pytest.mark.parametrize("source", [OUTSIDER, POD], ids=["outsider", "pod"])
    def test_lead_to_endpoints_with_the_nodes_own_address(self, to: str, source: str) -> None:
        rules = ruleset([self.SERVICE], [make_slice(endpoints=[B])])
        assert arrives(rules, to, source=source) == "10.244.2.2:8080+masquerade"

    @pytest.mark.parametrize("to", ADDRESSES)
    def test_without_endpoints_are_refused(self, to: str) -> None:
        assert arrives(ruleset([self.SERVICE], []), to, source=OUTSIDER) == "reject"

    def test_a_node_port_on_loopback_stays_the_hosts(self) -> None:
        rules = ruleset([self.SERVICE], [make_slice(endpoints=[B])])
        assert arrives(rules, "127.0.0.1:30080", source="127.0.0.1", from_host=True) == "127.0.0.1:30080"

    def test_a_node_port_on_another_host_passes(self) -> None:
        rules = ruleset([self.SERVICE], [make_slice(endpoints=[B])])
        assert arrives(rules, "10.89.0.12:30080") == "10.89.0.12:30080"

    def test_source_ranges_guard_the_balancers_address_only(self) -> None:
        service = make_service(
            ports=["80@30080"],
            type="LoadBalancer",
            ingress=("10.89.200.1",),
            load_balancer_source_ranges=("10.89.0.0/24", "10.89.0.128/25", "203.0.113.0/24"),
        )
        rules = ruleset([service], [make_slice(endpoints=[B])])
        assert arrives(rules, "10.89.200.1:80", source=OUTSIDER) == "10.244.2.2:8080+masquerade"
        assert arrives(rules, "10.89.200.1:80", source="203.0.113.255") == "10.244.2.2:8080+masquerade"
        assert arrives(rules, "10.89.200.1:80", source="203.0.114.0") == "drop"
        assert arrives(rules, f"{NODE_IP}:30080", source="203.0.114.0") == "10.244.2.2:8080+masquerade"
        assert arrives(rules, "10.96.0.1:80", source="203.0.114.0") == "10.244.2.2:8080+masquerade"

    def test_ranges_of_the_other_family_let_nobody_in(self) -> None:
        service = make_service(
            type="LoadBalancer", ingress=("10.89.200.1",), load_balancer_source_ranges=("2001:db8::/32",)
        )
        rules = ruleset([service], [make_slice(endpoints=[B])])
        assert arrives(rules, "10.89.200.1:80", source=OUTSIDER) == "drop"


class TestLocalPolicies:
    @staticmethod
    def external(endpoints: list[str]) -> Ruleset:
        service = make_service(
            ports=["80@30080"],
            type="LoadBalancer",
            ingress=("10.89.200.1",),
            external_ips=("198.51.100.7",),
            external_traffic_policy="Local",
        )
        return ruleset([service], [make_slice(endpoints=endpoints)])

    @pytest.mark.parametrize("to", TestExternalAddresses.ADDRESSES)
    def test_outsiders_reach_this_nodes_endpoints_and_keep_their_address(self, to: str) -> None:
        rules = self.external([A, B, C])
        assert {arrives(rules, to, source=OUTSIDER, roll=roll) for roll in range(3)} == {"10.244.1.2:8080"}

    @pytest.mark.parametrize("to", TestExternalAddresses.ADDRESSES)
    def test_outsiders_are_dropped_where_no_endpoint_is(self, to: str) -> None:
        assert arrives(self.external([B, C]), to, source=OUTSIDER) == "drop"

    @pytest.mark.parametrize("to", TestExternalAddresses.ADDRESSES)
    def test_outsiders_are_refused_when_there_is_no_endpoint_anywhere(self, to: str) -> None:
        assert arrives(self.external([]), to, source=OUTSIDER) == "reject"

    @pytest.mark.parametrize("to", TestExternalAddresses.ADDRESSES)
    def test_insiders_reach_every_endpoint(self, to: str) -> None:
        rules = self.external([B, C])
        everywhere = {"10.244.2.2:8080", "10.244.2.3:8080"}
        assert {arrives(rules, to, roll=roll) for roll in range(2)} == everywhere
        assert {arrives(rules, to, source=NODE_IP, from_host=True, roll=roll) for roll in range(2)} == everywhere

    def test_the_cluster_ip_is_not_concerned(self) -> None:
        assert arrives(self.external([B]), "10.96.0.1:80", source=OUTSIDER) == "10.244.2.2:8080+masquerade"

    def test_internal_local_uses_this_nodes_endpoints(self) -> None:
        service = make_service(internal_traffic_policy="Local")
        rules = ruleset([service], [make_slice(endpoints=[A, B])])
        assert {arrives(rules, "10.96.0.1:80", roll=roll) for roll in range(2)} == {"10.244.1.2:8080"}
        assert arrives(ruleset([service], [make_slice(endpoints=[B])]), "10.96.0.1:80") == "drop"
        assert arrives(ruleset([service], []), "10.96.0.1:80") == "reject"

    def test_local_terminating_endpoints_count_when_no_local_one_is_ready(self) -> None:
        assert arrives(self.external([A + "~", B]), "10.89.200.1:80", source=OUTSIDER) == "10.244.1.2:8080"

    def test_cluster_dns_on_the_nodes_own_address(self) -> None:
        service = make_service("kube-dns", "10.96.0.10", ["dns:53/UDP"], internal_traffic_policy="Local")
        slices = [
            make_slice("kube-dns", [f"{NODE_IP}@n1"], ["dns:53/UDP"], name="kube-dns-n1"),
            make_slice("kube-dns", ["10.89.0.12@n2"], ["dns:53/UDP"], name="kube-dns-n2"),
        ]
        rules = ruleset([service], slices)
        assert arrives(rules, "10.96.0.10:53", protocol="udp") == f"{NODE_IP}:53"
        packet = Packet(source=NODE_IP, destination="10.96.0.10", protocol="udp", destination_port=53)
        own = trace(rules, packet, local=(NODE_IP,), from_host=True, out_interface="lo")
        assert (own.destination, own.masqueraded) == (f"{NODE_IP}:53", False)


class TestSessionAffinity:
    SERVICE = make_service(ports=["80@30080"], type="NodePort", session_affinity="ClientIP")

    @pytest.mark.parametrize("to", ["10.96.0.1:80", f"{NODE_IP}:30080"])
    def test_a_client_stays_and_others_do_not_follow(self, to: str) -> None:
        rules = ruleset([self.SERVICE], [make_slice(endpoints=[A, B, C])])
        assert send(rules, to, roll=1).destination == "10.244.2.2:8080"
        assert {send(rules, to, roll=roll).destination for roll in range(3)} == {"10.244.2.2:8080"}
        assert send(rules, to, source="10.244.1.10", roll=2).destination == "10.244.2.3:8080"

    def test_without_affinity_nothing_is_remembered(self) -> None:
        rules = ruleset([make_service()], [make_slice(endpoints=[A, B])])
        assert {send(rules, "10.96.0.1:80", roll=roll).destination for roll in range(2)} == {
            "10.244.1.2:8080",
            "10.244.2.2:8080",
        }

    def test_ipv6_clients_stay_alike(self) -> None:
        service = make_service(cluster_ip="fd00:96::1", session_affinity="ClientIP")
        endpoints = [f"fd00:244::{i}" for i in range(1, 9)]
        rules = ruleset([service], [make_slice(endpoints=endpoints, address_type="IPv6")])

        def reached(client: int) -> set[str]:
            source = f"fd00:244::9:{client}"
            rolls = range(client, client + 3)
            return {send(rules, "[fd00:96::1]:80", source=source, roll=roll).destination for roll in rolls}

        seen = [reached(client) for client in range(20)]
        assert all(len(one) == 1 for one in seen)
        assert len(set().union(*seen)) > 1


class TestRivals:
    def test_the_older_service_keeps_a_shared_external_address(self) -> None:
        old = make_service("old", "10.96.0.1", external_ips=("198.51.100.7",), created="2026-01-01T00:00:00Z")
        new = make_service("new", "10.96.0.2", external_ips=("198.51.100.7",), created="2026-01-02T00:00:00Z")
        slices = [make_slice("old", [A]), make_slice("new", [B])]
        for services in ([old, new], [new, old]):
            planner = Planner(NodeView(name=NODE))
            waiting = [*services]
            while waiting:
                service = waiting.pop(0)
                own = [one for one in slices if one.service_name == service.metadata.name]
                ports = service_ports(service, own)
                again = planner.update(service.metadata.key, ports, age=service.metadata.creation_timestamp)
                waiting += [one for one in services if one.metadata.key in again]
            backend = FakeBackend(surroundings=Surroundings(cluster_cidrs=("10.244.0.0/16",)))
            backend.sync(planner.plan())
            assert arrives(backend.nft.ruleset, "198.51.100.7:80") == "10.244.1.2:8080+masquerade"
            assert arrives(backend.nft.ruleset, "10.96.0.2:80") == "10.244.2.2:8080"
