"""How connections are spread: evenly over 1 to 50 endpoints, by weight, and sticky to the second.

Chance is judged by the chi-square statistic, at a level that a fair backend exceeds once in a million runs.
"""

import ipaddress
import math
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from pilotage.api.core_v1 import ClientIPConfig, SessionAffinityConfig
from pilotage.network import namespaces
from pilotage.nft.core.objects import ElementValue
from pilotage.nft.core.types import CLASS_ID, PORT, PROTOCOL, encode_address
from pilotage.proxy.backends import Backend
from pilotage.proxy.core.fragment import SetId
from pilotage.proxy.core.model import service_ports
from pilotage.proxy.core.plan import Plan, Planner
from pilotage.proxy.core.topology import NodeView
from pilotage.testing.services import make_service, make_slice

from .conftest import V4, V6, Addresses, World, further_addresses, path

LEVEL = 1e-6
EACH = 10  # connections expected at each endpoint, the usual least for the statistic
ENDPOINTS_MAX = 50
PORT_NUMBER = 9090
AFFINITY_S = 1
CLIENTS = 24


def numbered(net: Addresses, first: int, count: int) -> list[str]:
    """Further addresses in the pod network of n1."""
    base = int(ipaddress.ip_address(net.bridges["n1"])) - 1
    kind = ipaddress.IPv4Address if net is V4 else ipaddress.IPv6Address
    return [str(kind(base + number)) for number in range(first, first + count)]


def endpoints_of(net: Addresses) -> list[str]:
    return numbered(net, 100, ENDPOINTS_MAX)


def clients_of(net: Addresses) -> list[str]:
    return numbered(net, 200, CLIENTS)


@pytest.fixture(scope="module")
def crowd(world: World) -> Iterator[World]:
    """Pod a has fifty more addresses, and a server at each; pod b has some to ask from."""
    servers = [address for net in (V4, V6) for address in endpoints_of(net)]
    clients = [address for net in (V4, V6) for address in clients_of(net)]
    with further_addresses("a", servers), further_addresses("b", clients):
        for address in servers:
            world.servers.listen("", "a", address, PORT_NUMBER)
        yield world


def ask(net: Addresses, count: int, sources: Sequence[str] = ("",)) -> list[str]:
    """Which endpoint answers each of so many connections from pod b to the VIP, from these addresses in turn."""
    family = socket.AF_INET if net is V4 else socket.AF_INET6

    def one(source: str) -> str:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(5.0)
            if source:
                sock.bind((source, 0))
            sock.connect((net.vip, 80))
            return sock.recv(100).decode().split(" ")[0]

    return namespaces.run_in(path("b"), lambda: [one(sources[number % len(sources)]) for number in range(count)])


def chi_square(counts: Counter[str], shares: dict[str, float]) -> float:
    total = sum(counts.values())
    assert counts.keys() <= shares.keys()
    return sum((counts[name] - share * total) ** 2 / (share * total) for name, share in shares.items())


def limit(degrees: int) -> float:
    """What a fair spread exceeds with probability `LEVEL` (Wilson and Hilferty's approximation)."""
    z = statistics.NormalDist().inv_cdf(1 - LEVEL)
    part = 2 / (9 * degrees)
    return degrees * (1 - part + z * math.sqrt(part)) ** 3


def planned(planner: Planner, net: Addresses, endpoints: Sequence[str], affinity_s: int = 0) -> None:
    service = make_service(
        cluster_ip=net.vip,
        session_affinity="ClientIP" if affinity_s else "None",
        session_affinity_config=SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=affinity_s or 1)),
    )
    slices = [make_slice(endpoints=endpoints, ports=[str(PORT_NUMBER)], address_type=net.address_type)]
    planner.update(f"default/{net.family}", service_ports(service, slices))


@pytest.mark.parametrize(
    ("net", "counts"), [(V4, range(1, ENDPOINTS_MAX + 1)), (V6, (2, 3, 7, 50))], ids=["IPv4", "IPv6"]
)
def test_every_endpoint_gets_its_share(
    crowd: World, each_backend: Backend, net: Addresses, counts: Sequence[int]
) -> None:
    planner = Planner(NodeView(name="n1"))
    each_backend.sync(planner.plan())
    total, degrees = 0.0, 0
    for count in counts:
        endpoints = endpoints_of(net)[:count]
        planned(planner, net, endpoints)
        each_backend.apply(planner.take())
        answers = Counter(ask(net, count * EACH))
        found = chi_square(answers, dict.fromkeys(endpoints, 1 / count))
        assert count == 1 or found < limit(count - 1), answers
        total, degrees = total + found, degrees + count - 1
    # Together they show what one alone would not: an endpoint always left out, the first always preferred.
    assert total < limit(degrees)


def weighted(net: Addresses, weights: dict[str, int]) -> Plan:
    """A plan as the planner writes it, with endpoints in several slots."""
    size = 4 if net is V4 else 16
    planner = Planner(NodeView(name="n1"))
    slots = [endpoint for endpoint, weight in weights.items() for _ in range(weight)]
    planned(planner, net, endpoints_of(net)[: len(slots)])
    plan = planner.plan()
    elements: dict[SetId, dict[bytes, ElementValue]] = {one: dict(content) for one, content in plan.elements.items()}
    vip = encode_address(net.vip, size) + PROTOCOL.encode("tcp") + PORT.encode(80)
    for slot, endpoint in enumerate(slots, 1):
        target = encode_address(endpoint, size) + PORT.encode(PORT_NUMBER)
        elements[net.family, "backends"][vip + CLASS_ID.encode(slot)] = target
    return Plan(elements=elements, chains=plan.chains)


def test_a_weight_is_a_share(crowd: World, each_backend: Backend, net: Addresses) -> None:
    weights = dict(zip(endpoints_of(net), (5, 3, 1, 1), strict=False))
    each_backend.sync(weighted(net, weights))
    answers = Counter(ask(net, 400))
    assert chi_square(answers, {name: weight / 10 for name, weight in weights.items()}) < limit(3), answers


def test_a_client_stays_for_the_time_asked_and_no_longer(crowd: World, each_backend: Backend) -> None:
    nets = (V4, V6)
    planner = Planner(NodeView(name="n1"))
    for net in nets:
        planned(planner, net, endpoints_of(net)[:8], AFFINITY_S)
    planner.take()
    each_backend.sync(planner.plan())
    half = CLIENTS // 2

    def asked(part: Callable[[list[str]], list[str]]) -> list[tuple[str, float, float]]:
        """The endpoint of each client in turn, and when it began and had finished asking."""
        found = []
        for net in nets:
            for client in part(clients_of(net)):
                began = time.monotonic()
                (answer,) = ask(net, 1, [client])
                found.append((answer, began, time.monotonic()))
        return found

    early, late = asked(lambda clients: clients[:half]), asked(lambda clients: clients[half:])
    time.sleep(max(0.0, early[0][2] + 0.6 * AFFINITY_S - time.monotonic()))  # the subject is the passing of time
    again = asked(lambda clients: clients[:half])
    in_time = [
        (before[0], after[0])
        for before, after in zip(early, again, strict=True)
        if after[2] - before[1] < AFFINITY_S  # on a busy machine some come too late to prove anything
    ]
    assert [pair for pair in in_time if pair[0] != pair[1]] == []
    time.sleep(max(0.0, late[-1][2] + AFFINITY_S + 0.1 - time.monotonic()))
    moved = [before[0] != after[0] for before, after in zip(late, asked(lambda clients: clients[half:]), strict=True)]
    # Drawn anew among eight, a client stays by chance once in eight: that 14 of 24 do is one in a million.
    assert moved.count(False) < 14
