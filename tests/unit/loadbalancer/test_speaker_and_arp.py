import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.api.core_v1 import Node, NodeCondition, NodeStatus, Service, ServiceSpec
from pilotage.api.discovery_v1 import Endpoint, EndpointConditions, EndpointSlice
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.loadbalancer.core.arp import announcement, answer
from pilotage.loadbalancer.core.speaker import EXCLUDE_LABEL, candidates, eligible_nodes, speaker

OURS, THEIRS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
VIP, ASKER = "10.89.200.1", "10.89.0.1"


def question(target: str = VIP, *, operation: int = 1, sender: bytes = THEIRS, asker: str = ASKER) -> bytes:
    packed = [ipaddress.IPv4Address(address).packed for address in (asker, target)]
    arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, sender, packed[0], b"\0" * 6, packed[1])
    return b"\xff" * 6 + sender + struct.pack("!H", 0x0806) + arp + b"\0" * 18


def test_a_question_for_our_address_is_answered_to_the_asker() -> None:
    reply = answer(question(), {VIP}, OURS)
    assert reply is not None
    assert reply[:14] == THEIRS + OURS + b"\x08\x06"
    assert struct.unpack("!H6s4s6s4s", reply[20:42]) == (
        2,
        OURS,
        ipaddress.IPv4Address(VIP).packed,
        THEIRS,
        ipaddress.IPv4Address(ASKER).packed,
    )


@pytest.mark.parametrize(
    "frame",
    [
        question("10.89.200.2"),
        question(operation=2),
        question(sender=OURS),
        question(asker=VIP),
        question()[:41],
        b"",
        announcement(VIP, THEIRS),
    ],
    ids=[
        "another address",
        "a reply",
        "our own question",
        "an announcement of theirs",
        "cut short",
        "empty",
        "announced",
    ],
)
def test_everything_else_is_not_answered(frame: bytes) -> None:
    assert answer(frame, {VIP}, OURS) is None


@given(st.binary(max_size=80))
def test_no_frame_raises(frame: bytes) -> None:
    answer(frame, {VIP}, OURS)


def node(name: str, *, ready: str = "True", **labels: str) -> Node:
    condition = NodeCondition(type="Ready", status=ready)
    return Node(metadata=ObjectMeta(name=name, labels=labels), status=NodeStatus(conditions=(condition,)))


def test_only_ready_nodes_that_may_are_eligible() -> None:
    excluded = Node(metadata=ObjectMeta(name="c", labels={EXCLUDE_LABEL: ""}), status=node("c").status)
    assert eligible_nodes([node("a"), node("b", ready="Unknown"), excluded]) == {"a"}


def test_local_policy_needs_a_ready_endpoint_on_the_node() -> None:
    service = Service(spec=ServiceSpec(type="LoadBalancer", external_traffic_policy="Local"))
    gone = Endpoint(node_name="b", conditions=EndpointConditions(ready=False))
    slices = [EndpointSlice(endpoints=(Endpoint(node_name="a"), gone))]
    assert candidates(service, slices, frozenset("abc")) == {"a"}


@given(st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=2, max_size=8), st.integers(0, 255))
def test_when_a_node_goes_only_its_addresses_move(nodes: set[str], last: int) -> None:
    address = f"10.89.200.{last}"
    chosen = speaker(address, nodes)
    for gone in nodes - {chosen}:
        assert speaker(address, nodes - {gone}) == chosen


def test_without_nodes_nobody_speaks() -> None:
    assert speaker(VIP, ()) == ""


def test_addresses_spread_over_nodes() -> None:
    shares = [speaker(f"10.89.200.{last}", ("n1", "n2", "n3")) for last in range(256)]
    assert all(50 < shares.count(name) < 130 for name in ("n1", "n2", "n3"))
