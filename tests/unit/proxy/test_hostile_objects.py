"""Objects that no API server should let pass: the proxy plans what is usable, names the rest, and harms nobody else."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.api.core_v1 import (
    ClientIPConfig,
    LoadBalancerIngress,
    LoadBalancerStatus,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
    SessionAffinityConfig,
)
from pilotage.api.discovery_v1 import SERVICE_NAME_LABEL, Endpoint, EndpointPort, EndpointSlice
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.nft.core.objects import Transaction, render
from pilotage.proxy.backends.fake import FakeBackend
from pilotage.proxy.backends.fake_xtables import FakeXtables
from pilotage.proxy.backends.iptables import IptablesBackend
from pilotage.proxy.core.commands import element_commands, structure_commands
from pilotage.proxy.core.layout import Surroundings
from pilotage.proxy.core.model import Problem, service_ports
from pilotage.proxy.core.topology import NodeView
from pilotage.proxy.core.whole import plan_everything
from pilotage.testing.services import make_service, make_slice

NODE = NodeView(name="n1", zone="a")
GOOD = make_service("good", "10.96.0.9", ["80@30009"], type="NodePort")
GOOD_SLICE = make_slice("good", ["10.244.1.9@n1"])

ADDRESSES = st.sampled_from(
    ["10.244.1.2", "10.96.0.9", "fd00::1", "::ffff:10.0.0.1", "", "nonsense", "10.0.0.300", "1" * 300, "10.0.0.1/8"]
)
NUMBERS = st.sampled_from([0, 1, 80, 65_535, 65_536, 70_000, -1, 2**31, 2**63])
WORDS = st.sampled_from(["", "TCP", "UDP", "tcp", "ICMP", "a" * 253, 'x"; drop', "\0", "ClientIP", "Local"])
RANGES = st.lists(st.sampled_from(["0.0.0.0/0", "10.0.0.0/33", "", "::/0", "10.0.0.1", "x" * 99]), max_size=3)


@st.composite
def services(draw: st.DrawFn) -> Service:
    ports = st.builds(ServicePort, name=WORDS, protocol=WORDS, port=NUMBERS, node_port=NUMBERS)
    return Service(
        metadata=ObjectMeta(name="bad", namespace="default", creation_timestamp="2027-01-01T00:00:00Z"),
        spec=ServiceSpec(
            type=draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "Nonsense"])),
            cluster_ip=draw(ADDRESSES),
            cluster_ips=tuple(draw(st.lists(ADDRESSES, max_size=3))),
            external_ips=tuple(draw(st.lists(ADDRESSES, max_size=3))),
            ports=tuple(draw(st.lists(ports, max_size=3))),
            session_affinity=draw(st.sampled_from(["ClientIP", "None", "Nonsense"])),
            session_affinity_config=SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=draw(NUMBERS))),
            load_balancer_source_ranges=tuple(draw(RANGES)),
            external_traffic_policy=draw(WORDS),
            internal_traffic_policy=draw(WORDS),
            health_check_node_port=draw(NUMBERS),
        ),
        status=ServiceStatus(
            load_balancer=LoadBalancerStatus(
                ingress=tuple(LoadBalancerIngress(ip=ip) for ip in draw(st.lists(ADDRESSES, max_size=2)))
            )
        ),
    )


@st.composite
def slices(draw: st.DrawFn) -> EndpointSlice:
    ports = st.builds(EndpointPort, name=WORDS, protocol=WORDS, port=st.one_of(st.none(), NUMBERS))
    endpoints = st.builds(
        Endpoint, addresses=st.lists(ADDRESSES, max_size=2).map(tuple), node_name=st.sampled_from(["", "n1", "\0"])
    )
    return EndpointSlice(
        metadata=ObjectMeta(
            name="bad-1",
            namespace="default",
            labels={SERVICE_NAME_LABEL: "bad"},
            annotations={"pilotage.dev/weight": draw(st.sampled_from(["1", "0", "-1", "99999", "x", "²"]))},
        ),
        address_type=draw(st.sampled_from(["IPv4", "IPv6", "FQDN", "Nonsense", ""])),
        ports=tuple(draw(st.lists(ports, max_size=2))),
        endpoints=tuple(draw(st.lists(endpoints, max_size=3))),
    )


@settings(max_examples=300, deadline=None)
@given(services(), st.lists(slices(), max_size=2))
def test_whatever_it_says_every_backend_takes_the_plan_and_others_stay(
    bad: Service, its_slices: list[EndpointSlice]
) -> None:
    problems: list[Problem] = []
    plan = plan_everything([GOOD, bad], [GOOD_SLICE, *its_slices], NODE, problems)
    alone = plan_everything([GOOD], [GOOD_SLICE], NODE)
    for part, elements in alone.elements.items():
        assert elements.items() <= plan.elements[part].items()
    surroundings = Surroundings(cluster_cidrs=("10.244.0.0/16",))
    FakeBackend(surroundings=surroundings).sync(plan)
    IptablesBackend(FakeXtables(), families=("ip", "ip6"), surroundings=surroundings).sync(plan)
    text = render(
        Transaction(structure_commands(plan.chains, ("ip", "ip6"), surroundings) + element_commands({}, plan.elements))
    )
    assert "nonsense" not in text
    assert all(len(problem.message) <= 1024 for problem in problems)


@pytest.mark.parametrize(
    ("ports", "spec", "reason", "message"),
    [
        pytest.param(["70000"], {}, "InvalidPort", "port 70000", id="a port that is no number of a port"),
        pytest.param(["80@65536"], {"type": "NodePort"}, "InvalidPort", "node port 65536", id="a node port likewise"),
        pytest.param(["80/ICMP"], {}, "UnknownProtocol", "ICMP", id="a protocol without ports"),
        pytest.param(["80"], {"cluster_ip": "x"}, "InvalidClusterIP", "x", id="a cluster IP that is none"),
        pytest.param(["80"], {"external_ips": ("x",)}, "InvalidExternalIP", "'x'", id="an external IP that is none"),
        pytest.param(
            ["80"],
            {"type": "LoadBalancer", "ingress": ["1.2.3"]},
            "InvalidLoadBalancerIP",
            "'1.2.3'",
            id="a balancer's address that is none",
        ),
        pytest.param(
            ["80"],
            {
                "session_affinity": "ClientIP",
                "session_affinity_config": SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=0)),
            },
            "InvalidSessionAffinity",
            "timeoutSeconds 0 is not between 1 and 86400; 1 is used",
            id="an affinity of no time",
        ),
    ],
)
def test_the_culprit_is_named(ports: list[str], spec: dict[str, Any], reason: str, message: str) -> None:
    problems: list[Problem] = []
    service_ports(make_service(ports=ports, **spec), [make_slice()], problems)
    assert [(one.reason, one.message) for one in problems] == [(reason, message)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["ready first", "ready last"])
def test_an_address_in_several_slices_counts_once_and_the_ready_one(order: tuple[int, int]) -> None:
    both = [make_slice(endpoints=["10.244.1.2"]), make_slice(endpoints=["10.244.1.2!", "10.244.1.3"], name="web-2")]
    (port,) = service_ports(make_service(), [both[number] for number in order])
    assert [(one.address, one.ready) for one in port.endpoints] == [("10.244.1.2", True), ("10.244.1.3", True)]


def test_slices_of_other_families_are_not_looked_at() -> None:
    problems: list[Problem] = []
    others = [make_slice(endpoints=["fd00::1"], address_type="IPv6"), make_slice(endpoints=["a"], address_type="FQDN")]
    (port,) = service_ports(make_service(), others, problems)
    assert (port.endpoints, problems) == ((), [])
