"""Addresses are given again as late as the range allows, so that DNS's word about them has lapsed."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path

import pytest

from pilotage.agent.metrics import ADDRESS_REST_SECONDS
from pilotage.agent.pod_addresses import PodAddresses
from pilotage.agent.pod_network import NodeNetwork, PodNetwork
from pilotage.dns.core.leases import Leases
from pilotage.kit.clock import ManualClock
from pilotage.kit.ipam import PoolExhaustedError
from pilotage.network import FakeWiring
from pilotage.testing.dns import ask, part, service, table

RANGE = "10.244.1.0/29"  # .1 is the bridge's, .2 to .6 are pods'
SECOND = "fd00:244::/126"  # ::1 is the bridge's, ::2 and ::3 are pods'
ADDRESSES = [f"10.244.1.{last}" for last in range(2, 7)]


class Node:
    """A pod network that outlives its agent."""

    def __init__(self, directory: Path) -> None:
        self.wiring = FakeWiring()
        self.clock = ManualClock()
        self._directory = directory / "netns"
        self.second = ""
        self.start()

    def start(self) -> None:
        """The agent comes, for the first time or again."""
        network = NodeNetwork(bridge="cni0", pod_cidr=RANGE, second_pod_cidr=self.second)
        self.network = PodNetwork(self.wiring, network, self._directory, self.clock)
        self.network.open()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_the_address_free_for_longest_is_given_again_and_only_when_no_other_is_left(node: Node) -> None:
    assert [await node.network.attach(uid) for uid in "abc"] == ADDRESSES[:3]
    for uid in "bac":
        await node.network.detach(uid)
    assert [await node.network.attach(uid) for uid in "defgh"] == [*ADDRESSES[3:], *(ADDRESSES[i] for i in (1, 0, 2))]


async def test_a_restart_forgets_neither_which_are_taken_nor_the_order_of_the_others(node: Node) -> None:
    for uid in "abcd":
        await node.network.attach(uid)
    for uid in "cb":
        await node.network.detach(uid)
    node.start()
    assert node.network.restore("a", ADDRESSES[0])
    assert node.network.restore("d", ADDRESSES[3])
    await node.network.detach("a")  # one that this process has not given
    assert [await node.network.attach(uid) for uid in "wxyz"] == [ADDRESSES[i] for i in (4, 2, 1, 0)]


async def test_pods_with_an_address_of_each_family(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.second = SECOND
    node.start()
    assert node.wiring.bridges["cni0"] >= {"fd00:244::1/126"}
    assert node.wiring.sysctls[None, "net.ipv6.conf.all.forwarding"] == "1"
    for uid in "ab":
        await node.network.attach(uid)
    assert node.network.addresses("a") == (ADDRESSES[0], "fd00:244::2")
    for _ in ADDRESSES:  # as often as would use up the first family, were it not given back
        with pytest.raises(PoolExhaustedError, match="all 2 numbers"):
            await node.network.attach("c")
    await node.network.detach("b")
    first = await node.network.attach("d")
    assert node.network.addresses("d") == (first, "fd00:244::3")
    node.start()
    for uid, addresses in {"a": (ADDRESSES[0], "fd00:244::2"), "d": (first, "fd00:244::3")}.items():
        assert node.network.restore(uid, *addresses)
    with pytest.raises(PoolExhaustedError):
        await node.network.attach("e")
    await node.network.detach("a")
    await node.network.attach("f")
    assert node.network.addresses("f")[1] == "fd00:244::2"
    held = node.network.addresses("f")
    node.second = ""  # the cluster is of one family again; its pods keep what they have
    node.start()
    assert node.network.restore("f", *held)
    await node.network.detach("f")


async def test_the_address_of_a_pod_that_ended_meanwhile_rests_too(node: Node) -> None:
    await node.network.attach("a")
    node.wiring.delete_namespace(node.network.path("a"))
    node.start()
    assert not node.network.restore("a", ADDRESSES[0])
    assert [await node.network.attach(uid) for uid in "wxyzv"] == [*ADDRESSES[1:], ADDRESSES[0]]


@pytest.mark.parametrize("text", ["", "half {", "[]", '{"x": 1}', '{"10.244.1.2": "soon"}', '{"192.0.2.1": 1.0}'])
def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    memory = tmp_path / "free"
    memory.write_text(text)
    assert PodAddresses(RANGE, memory, ManualClock()).take() == ADDRESSES[0]


async def test_how_long_an_address_rested_is_measured_across_a_restart(node: Node) -> None:
    def seen() -> tuple[float, float]:
        samples = {s.name: s.value for f in ADDRESS_REST_SECONDS.collect() for s in f.samples if "le" not in s.labels}
        name = "pilotage_agent_address_rest_seconds"
        return samples[f"{name}_count"], samples[f"{name}_sum"]

    for uid in "abcde":
        await node.network.attach(uid)
    count, total = seen()
    await node.network.detach("a")
    node.clock.advance(40)
    node.start()
    for uid, address in zip("bcde", ADDRESSES[1:], strict=True):
        node.network.restore(uid, address)
    assert await node.network.attach("f") == ADDRESSES[0]
    assert seen() == (count + 1, pytest.approx(total + 40))


async def test_no_address_is_given_while_dns_holds_to_it_if_there_is_another(node: Node) -> None:
    """DNS's own leases are the judge: pods come and go at random, and everybody asks for all of them all the time."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    names = table(service("db"), ttl=30)
    names.leases = leases = Leases(node.clock.monotonic)
    pods: dict[str, str] = {}
    before, spared = part("db"), 0

    def tell() -> None:
        nonlocal before
        after = part("db", *sorted(pods.values()))
        names.set_slice(before, after)
        before = after
        ask(names, "db.default.svc")

    for number in range(400):
        if pods and (len(pods) == len(ADDRESSES) or dice.random() < 0.5):
            uid = dice.choice(sorted(pods))
            await node.network.detach(uid)
            del pods[uid]
        else:
            believed = {str(ipaddress.ip_address(packed)): left for packed, left in leases.remaining().items()}
            free = [address for address in ADDRESSES if address not in pods.values()]
            uid = f"p{number}"
            pods[uid] = await node.network.attach(uid)
            least = believed.get(pods[uid], 0)
            assert least <= min(believed.get(address, 0) for address in free)
            spared += any(believed.get(address, 0) > least for address in free)
        tell()
        node.clock.advance(dice.choice([0.1, 1, 5, 20]))
        if dice.random() < 0.1:
            node.start()
            for uid, address in pods.items():
                assert node.network.restore(uid, address)
    assert spared > 20, "there was something to get wrong"
