"""ARP frames in, frames out."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.loadbalancer.core.arp import BROADCAST, announcement, answer

MINE, ASKER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
VIP, ASKER_IP, OTHER = bytes((10, 89, 200, 1)), bytes((10, 89, 0, 1)), bytes((10, 89, 200, 2))


def request(target: bytes = VIP, sender: bytes = ASKER_IP, operation: int = 1, mac: bytes = ASKER) -> bytes:
    head = BROADCAST + mac + b"\x08\x06"
    return head + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac + sender + b"\0" * 6 + target


def test_a_request_for_our_address_is_answered_to_the_asker() -> None:
    reply = answer(request(), MINE, {VIP})
    assert reply == ASKER + MINE + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + MINE + VIP + ASKER + (
        ASKER_IP
    )


def test_padding_of_short_ethernet_frames_is_ignored() -> None:
    assert answer(request() + b"\0" * 18, MINE, {VIP}) == answer(request(), MINE, {VIP})


def test_a_probe_is_answered() -> None:
    assert answer(request(sender=b"\0" * 4), MINE, {VIP}) is not None


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(request(target=OTHER), id="another address"),
        pytest.param(request(operation=2), id="a reply"),
        pytest.param(request(mac=MINE), id="our own announcement"),
        pytest.param(request()[:-1], id="a truncated frame"),
        pytest.param(request().replace(b"\x08\x06", b"\x86\xdd", 1), id="another protocol"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_anything_else_is_not(frame: bytes) -> None:
    assert answer(frame, MINE, {VIP}) is None


@given(st.binary(max_size=200))
def test_no_frame_breaks_it(frame: bytes) -> None:
    answer(frame, MINE, {VIP})


def test_an_announcement_is_a_request_and_a_reply_to_everybody() -> None:
    frames = announcement(MINE, VIP)
    assert [frame[:6] for frame in frames] == [BROADCAST, BROADCAST]
    assert [frame[20:22] for frame in frames] == [b"\0\x01", b"\0\x02"]
    for frame in frames:
        assert (frame[22:28], frame[28:32], frame[38:42]) == (MINE, VIP, VIP)
