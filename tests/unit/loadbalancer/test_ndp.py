"""Solicitations made by hand against the answers, checksum and all."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.loadbalancer.core.ndp import announcement, answer, solicited_node

OURS, THEIRS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
VIP, ASKER = "fd00:89::200:1", "fd00:89::1"
ALL_NODES = "ff02::1"
NO_OPTION = b""
LINK_ADDRESS = b"\x01\x01" + THEIRS


def packed(address: str) -> bytes:
    return ipaddress.IPv6Address(address).packed


def checksum(source: bytes, destination: bytes, message: bytes) -> int:
    """The Internet checksum the slow way, byte by byte (RFC 1071)."""
    data = source + destination + len(message).to_bytes(4, "big") + b"\0\0\0\x3a" + message
    total = 0
    for position, byte in enumerate(data):
        total += byte << (8 if position % 2 == 0 else 0)
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def question(
    target: str = VIP,
    *,
    asker: str = ASKER,
    to: str = "",
    sender: bytes = THEIRS,
    kind: int = 135,
    code: int = 0,
    hops: int = 255,
    options: bytes = LINK_ADDRESS,
    wrong: int = 0,
    tail: bytes = b"",
) -> bytes:
    source, destination = packed(asker), packed(to or solicited_node(target))
    body = bytes(4) + packed(target) + options
    found = checksum(source, destination, bytes((kind, code, 0, 0)) + body) ^ wrong
    message = struct.pack("!BBH", kind, code, found) + body
    header = struct.pack("!IHBB", 6 << 28, len(message), 58, hops) + source + destination
    return b"\x33\x33" + destination[12:] + sender + b"\x86\xdd" + header + message + tail


def read(frame: bytes | None) -> tuple[str, str, str, str, int, str, bytes]:
    """(to, from, source, destination, flags, target, options) of an advertisement that is valid."""
    assert frame is not None
    source, destination, message = frame[22:38], frame[38:54], frame[54:]
    assert frame[12:22] == b"\x86\xdd\x60\0\0\0" + len(message).to_bytes(2, "big") + b"\x3a\xff"
    assert message[:2] == b"\x88\0"
    assert checksum(source, destination, message) == 0
    addresses = [str(ipaddress.IPv6Address(part)) for part in (source, destination, message[8:24])]
    return frame[:6].hex(), frame[6:12].hex(), addresses[0], addresses[1], message[4] >> 5, addresses[2], message[24:]


OPTION = b"\x02\x01" + OURS
SOLICITED_OVERRIDE, OVERRIDE = 0b011, 0b001
EVERYBODY = "333300000001"


@pytest.mark.parametrize(
    ("asked", "neighbour"),
    [
        (question(), THEIRS),
        (question(to=VIP), THEIRS),
        (question(options=NO_OPTION), THEIRS),
        (question(options=b"\x01\x01" + b"\x02\0\0\0\0\x09"), b"\x02\0\0\0\0\x09"),
        (question(options=b"\x0e\x01nonce!" + LINK_ADDRESS), THEIRS),
        (question(tail=bytes(10)), THEIRS),
    ],
    ids=[
        "to the group",
        "to make sure that we are still there",
        "without the asker's link address",
        "whose link address is another than the frame's",
        "with an option we do not know",
        "with padding",
    ],
)
def test_a_question_for_our_address_is_answered_to_the_asker(asked: bytes, neighbour: bytes) -> None:
    expected = (neighbour.hex(), OURS.hex(), VIP, ASKER, SOLICITED_OVERRIDE, VIP, OPTION)
    assert read(answer(asked, {VIP}, OURS)) == expected


def test_whoever_wants_the_address_himself_is_told_before_everybody() -> None:
    asked = question(asker="::", options=NO_OPTION)
    assert read(answer(asked, {VIP}, OURS)) == (EVERYBODY, OURS.hex(), VIP, ALL_NODES, OVERRIDE, VIP, OPTION)


def test_an_announcement_overrides_what_everybody_remembers() -> None:
    assert read(announcement(VIP, OURS)) == (EVERYBODY, OURS.hex(), VIP, ALL_NODES, OVERRIDE, VIP, OPTION)


@pytest.mark.parametrize(
    "frame",
    [
        question("fd00:89::200:2"),
        question("ff02::1"),
        question(kind=136),
        question(code=1),
        question(hops=64),
        question(sender=OURS),
        question(wrong=1),
        question(asker="::", options=LINK_ADDRESS),
        question(asker="::", options=NO_OPTION, to=VIP),
        question(options=b"\x01\0" + THEIRS),
        question(options=b"\x01\x02" + THEIRS),
        question(options=b"\x01"),
        question()[:-1],
        question()[:77],
        b"",
        announcement(VIP, THEIRS),
    ],
    ids=[
        "another address",
        "a group",
        "an advertisement",
        "an unknown code",
        "come from beyond a router",
        "our own question",
        "damaged",
        "unspecified with a link address",
        "unspecified but not to the group",
        "an option of no length",
        "an option longer than the message",
        "half an option",
        "cut short",
        "cut shorter",
        "empty",
        "announced by another",
    ],
)
def test_everything_else_is_not_answered(frame: bytes) -> None:
    assert answer(frame, {VIP, "ff02::1"}, OURS) is None


@given(st.binary(max_size=120))
def test_no_frame_raises(frame: bytes) -> None:
    answer(frame, {VIP}, OURS)


@given(st.binary(max_size=40), st.integers(0, 85))
def test_no_damage_raises(junk: bytes, position: int) -> None:
    frame = question()
    answer(frame[:position] + junk + frame[position + len(junk) :], {VIP}, OURS)


def test_the_group_in_which_neighbours_ask() -> None:
    assert solicited_node("2001:db8::ab:cdef:1234") == "ff02::1:ffef:1234"
