"""The packet tracer and the kernel say the same of Services and packets that nobody thought of.

The tracer walks the rules that the planner makes for nftables; the kernel carries out what a backend made of the same
plan. So this holds the tracer to the kernel, and every backend to the plan. What chance decides is traced with every
roll, and the kernel's answer must be among the results.
"""

import random
import selectors
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.network import forget_flows, namespaces
from pilotage.nft.core.ruleset import Ruleset
from pilotage.nft.core.tracer import Packet, trace
from pilotage.proxy.backends import Backend
from pilotage.proxy.backends.fake import FakeBackend
from pilotage.proxy.core.layout import sets, table
from pilotage.proxy.core.model import service_ports
from pilotage.proxy.core.plan import Planner
from pilotage.proxy.core.topology import NodeView
from pilotage.testing.services import make_service, make_slice

from .conftest import PATIENCE_S, PODS, SURROUNDINGS, TIMEOUT_S, V4, V6, Addresses, World, path

EXAMPLES = 6
SERVICES_MAX = 6
PACKETS = 150
SOURCES = ("a", "n1", "client")
NETS = (V4, V6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One packet, and where it starts."""

    net: Addresses
    source: str
    to: str
    port: int
    udp: bool


def _nth(net: Addresses, network: str, number: int) -> str:
    """An address of the world, a little further on."""
    head = {"vip": net.vip, "external": net.external, "balancer": net.balancer}[network]
    return head[:-1] + str(int(head[-1]) + number)


@st.composite
def services(draw: st.DrawFn, number: int) -> tuple[Service, list[EndpointSlice]]:
    """A dual-stack Service that may share external addresses and node ports with its neighbours."""
    protocols = draw(st.sampled_from([("TCP",), ("UDP",), ("TCP", "UDP")]))
    kind = draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]))
    node_port = f"@{30080 + draw(st.sampled_from([0, number, number * 64]))}" if kind != "ClusterIP" else ""
    shared = draw(st.sampled_from([0, number % 2]))
    nets = draw(st.sampled_from([NETS, (V4,), (V6,)]))
    ranges = [(), *((net.client_network, net.elsewhere_network) for net in NETS), (V4.pod_network, V6.pod_network)]
    service = make_service(
        f"s{number}",
        _nth(nets[0], "vip", number),
        [f"{protocol.lower()}:80{node_port}/{protocol}" for protocol in protocols],
        cluster_ips=tuple(_nth(net, "vip", number) for net in nets),
        created=draw(st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])),
        ingress=[_nth(net, "balancer", number) for net in NETS] if kind == "LoadBalancer" else [],
        external_ips=tuple(_nth(net, "external", shared) for net in NETS) if draw(st.booleans()) else (),
        type=kind,
        session_affinity=draw(st.sampled_from(["None", "None", "ClientIP"])),
        internal_traffic_policy=draw(st.sampled_from(["Cluster", "Cluster", "Local"])),
        external_traffic_policy=draw(st.sampled_from(["Cluster", "Local"])),
        load_balancer_source_ranges=tuple(draw(st.sampled_from(ranges))),
    )
    pods = draw(st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "", "!", "~", "-"])))
    ports = [f"{protocol.lower()}:8080/{protocol}" for protocol in protocols]
    slices = [
        make_slice(
            f"s{number}",
            [net.endpoint(pod) + state for pod, state in sorted(pods.items())],
            ports,
            name=net.family,
            address_type=net.address_type,
        )
        for net in NETS
    ]
    return service, slices


CLUSTERS = st.integers(1, SERVICES_MAX).flatmap(lambda count: st.tuples(*(services(number) for number in range(count))))


def planned(cluster: Iterable[tuple[Service, list[EndpointSlice]]]) -> Planner:
    known = {service.metadata.key: (service, slices) for service, slices in cluster}
    planner, dirty = Planner(NodeView(name="n1")), set(known)
    while dirty:
        service, slices = known[dirty.pop()]
        ports = service_ports(service, slices)
        dirty |= planner.update(service.metadata.key, ports, age=service.metadata.creation_timestamp)
    return planner


def questions(cluster: Iterable[tuple[Service, list[EndpointSlice]]], roll: random.Random) -> list[Question]:
    """Packets for everything the Services answer at, and for some ports beside."""
    found = set()
    for number, (service, _) in enumerate(cluster):
        node_ports = {port.node_port for port in service.spec.ports} - {0}
        for net in NETS:
            addresses = [_nth(net, network, number) for network in ("vip", "external", "balancer")]
            places = [(address, port) for address in addresses for port in (80, 81)]
            places += [(to, port) for port in node_ports for to in (net.nodes["n1"], net.bridges["n1"])]
            found |= {
                Question(net=net, source=source, to=to, port=port, udp=udp)
                for to, port in places
                for source in SOURCES
                for udp in (False, True)
            }
    ordered = sorted(found, key=lambda one: (one.net.family, one.source, one.to, one.port, one.udp))
    return roll.sample(ordered, min(PACKETS, len(ordered)))


# ── what the tracer says ────────────────────────────────────────────────────────────────────────────────────────────


def predicted(rules: Ruleset, question: Question) -> set[str]:
    """As `answers` puts it: who answers whom, `refused`, or `silence`."""
    net = question.net
    node = (net.nodes["n1"], net.bridges["n1"], "127.0.0.1", "::1")
    source = {"a": net.pods["a"], "client": net.client, "n1": net.nodes["n1"]}[question.source]
    if question.source == "n1" and question.to in node:
        source = question.to  # as routing chooses it
    packet = Packet(
        source=source,
        destination=question.to,
        protocol="udp" if question.udp else "tcp",
        destination_port=question.port,
    )
    found = set()
    for roll in range(len(PODS)):
        rules.tables[table(net.family)].elements[sets(net.family).affinity.name].clear()
        outcome = trace(
            rules,
            packet,
            local=node,
            from_host=question.source == "n1",
            roll=lambda mod, roll=roll: roll % mod,  # type: ignore[misc]  # mypy cannot infer a default's type here
        )
        if outcome.verdict != "accept":
            found.add({"reject": "refused", "drop": "silence"}[outcome.verdict])
            continue
        there = {address: pod for pod, address in net.pods.items()}.get(outcome.packet.destination)
        if there is None:
            # Not translated: nobody listens on the node, and elsewhere it goes round in circles.
            found.add("refused" if outcome.packet.destination in node else "silence")
            continue
        masqueraded = net.bridges["n1"] if PODS[there] == "n1" else net.nodes["n1"]
        found.add(f"{there} {masqueraded if outcome.masqueraded else outcome.packet.source}")
    return found


# ── what the kernel says ────────────────────────────────────────────────────────────────────────────────────────────


def answers(asked: dict[Question, set[str]]) -> dict[Question, str]:
    """The answer to each question, all asked at once: silence is waited for once."""
    result: dict[Question, str] = {}
    with selectors.DefaultSelector() as selector:
        for source in SOURCES:
            mine = [one for one in asked if one.source == source]
            namespaces.run_in(path(source), lambda mine=mine: _send(mine, asked, selector, result))  # type: ignore[misc]
        began = time.monotonic()
        waiting = {key.data for key in selector.get_map().values()}
        while waiting:
            expected = any(asked[one] != {"silence"} for one in waiting)
            left = began + (TIMEOUT_S if expected else PATIENCE_S) - time.monotonic()
            if left <= 0:
                break
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                result[key.data] = _received(key.fileobj)
                waiting.discard(key.data)
                selector.unregister(key.fileobj)
                key.fileobj.close()
        for key in [*selector.get_map().values()]:
            assert isinstance(key.fileobj, socket.socket)
            result[key.data] = "silence"
            key.fileobj.close()
    return result


def _send(
    mine: Iterable[Question],
    asked: dict[Question, set[str]],
    selector: selectors.BaseSelector,
    result: dict[Question, str],
) -> None:
    for one in mine:
        family = socket.AF_INET if one.net is V4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_DGRAM if one.udp else socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect_ex((one.to, one.port))  # readable when there is an answer, or an error
            if one.udp:
                sock.send(b"who")
        except PermissionError:
            # The host's own datagram was stopped on its way out; the kernel does not say which way.
            result[one] = "refused" if "refused" in asked[one] else "silence"
            sock.close()
            continue
        selector.register(sock, selectors.EVENT_READ, one)


def _received(sock: socket.socket) -> str:
    try:
        return sock.recv(2048).decode()
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silence"  # unreachable: it went round in circles until somebody said so


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # making a failure small costs seconds a step
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(CLUSTERS, st.randoms(use_true_random=False))
def test_tracer_and_kernel_agree(
    world: World,
    each_backend: Backend,
    cluster: tuple[tuple[Service, list[EndpointSlice]], ...],
    roll: random.Random,
) -> None:
    planner = planned(cluster)
    fake = FakeBackend(surroundings=SURROUNDINGS)
    fake.sync(planner.plan())
    each_backend.sync(planner.plan())
    for net in NETS:
        each_backend.forget_clients(net.family, planner.sticky)
    namespaces.run_in(path("n1"), lambda: forget_flows(lambda flow: True))
    asked = {question: predicted(fake.nft.ruleset, question) for question in questions(cluster, roll)}
    found = answers(asked)
    wrong = {one: (answer, asked[one]) for one, answer in found.items() if answer not in asked[one]}
    for one, (answer, expected) in wrong.items():
        note(f"{one.source} → {one.to} port {one.port} {'udp' if one.udp else 'tcp'}: {answer}, not {expected}")
    assert not wrong
