"""Netlink framing: what is built can be read back, and what is broken is not read past its end."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.network.core import message
from pilotage.network.core.message import HEADER, Message, Request


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_read_back_as_written(pairs: list[tuple[int, bytes]]) -> None:
    body = b"".join(message.attribute(kind, payload) for kind, payload in pairs)
    assert len(body) % 4 == 0
    assert list(message.attribute_list(body)) == pairs


@given(st.binary(max_size=64))
def test_any_bytes_are_read_without_error(raw: bytes) -> None:
    list(message.messages(raw))
    list(message.attribute_list(raw))


@given(st.binary(max_size=30), st.integers(0, 0xFFFF))
def test_a_framed_request_is_one_message(body: bytes, kind: int) -> None:
    framed = message.frame(Request(kind=kind, flags=0, body=body), 7)
    (read,) = message.messages(framed)
    assert (read.kind, read.sequence, read.body) == (kind, 7, body)


def test_of_marked_messages_an_acknowledgement_is_always_one() -> None:
    bodies = [b"this is wanted  ", b"this is not ", b"wanted, too "]
    framed = [message.frame(Request(kind=1, flags=0, body=body), number) for number, body in enumerate(bodies)]
    ends = [
        message.frame(Request(kind=kind, flags=0, body=b""), 9) for kind in (message.NLMSG_ERROR, message.NLMSG_DONE)
    ]
    read = list(message.messages(b"".join((*framed, *ends)), (b"wanted",)))
    assert [one.body for one in read] == [bodies[0], bodies[2], b"", b""]


@pytest.mark.parametrize(
    ("flags", "acknowledged"),
    [
        pytest.param(0, True, id="a plain request asks for a verdict"),
        pytest.param(message.NLM_F_CREATE | message.NLM_F_EXCL, True, id="so does a creation"),
        pytest.param(message.NLM_F_DUMP, False, id="a dump ends by itself"),
    ],
)
def test_acknowledgement_is_asked_for_where_nothing_else_answers(flags: int, acknowledged: bool) -> None:
    _length, _kind, framed, _sequence, _port = HEADER.unpack_from(
        message.frame(Request(kind=1, flags=flags, body=b""), 1)
    )
    assert bool(framed & message.NLM_F_ACK) is acknowledged


def test_a_refusal_carries_the_kernels_own_words() -> None:
    text = message.text(1, "Device already exists")
    body = struct.pack("=i", -errno.EEXIST) + HEADER.pack(HEADER.size, 16, 0, 1, 0) + text
    flags = message.NLM_F_CAPPED | message.NLM_F_ACK_TLVS
    verdict = message.acknowledgement(Message(kind=message.NLMSG_ERROR, flags=flags, sequence=1, body=body))
    assert (verdict.code, verdict.text) == (errno.EEXIST, "Device already exists")


def test_success_is_code_zero() -> None:
    body = struct.pack("=i", 0) + HEADER.pack(HEADER.size, 16, 0, 1, 0)
    verdict = message.acknowledgement(Message(kind=message.NLMSG_ERROR, flags=0, sequence=1, body=body))
    assert verdict.code == 0
