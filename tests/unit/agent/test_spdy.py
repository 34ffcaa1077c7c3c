"""SPDY/3.1: whatever the pieces in which bytes arrive, the same events; nothing a peer sends makes it grow."""

import contextlib
import struct
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.agent.core.spdy import (
    DICTIONARY,
    HEADER_BYTES_MAX,
    STREAMS_MAX,
    Event,
    GoneAway,
    Opened,
    Received,
    ServerConnection,
    SpdyError,
    WasReset,
    control_frame,
    decode_headers,
    encode_headers,
)
from pilotage.testing.spdy import GOAWAY, PING, RST_STREAM, SYN_REPLY, SYN_STREAM, Frame, SpdyClient


def events(server: ServerConnection, data: bytes = b"") -> list[Event]:
    server.receive(data)
    found: list[Event] = []
    while (event := server.next_event()) is not None:
        found.append(event)
    return found


def joined(found: list[Event]) -> list[Event]:
    """Data that came in pieces, as one."""
    result: list[Event] = []
    for event in found:
        last = result[-1] if result else None
        if isinstance(event, Received) and isinstance(last, Received) and last.stream == event.stream:
            result[-1] = Received(stream=last.stream, data=last.data + event.data, ended=event.ended)
        else:
            result.append(event)
    return result


def test_the_dictionary_is_the_one_every_peer_has() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_a_stream_from_its_beginning_to_its_end() -> None:
    server, client = ServerConnection(), SpdyClient()
    opened = Opened(stream=1, headers={"streamtype": "data", "port": "80"}, ended=False)
    assert events(server, client.open(streamType="data", port="80")) == [opened]
    server.reply(1)
    assert client.read(server.data_to_send()) == [Frame(SYN_REPLY, 1)]
    assert events(server, client.data(1, b"GET /")) == [Received(stream=1, data=b"GET /", ended=False)]
    server.send(1, b"hello")
    server.send(1, b" you", end=True)
    assert client.read(server.data_to_send()) == [Frame(0, 1, data=b"hello"), Frame(0, 1, ended=True, data=b" you")]
    server.send(1, b"too late")
    assert server.data_to_send() == b""
    assert events(server, client.data(1, b"", end=True)) == [Received(stream=1, data=b"", ended=True)]
    assert server.streams == 0
    assert events(server, client.data(1, b"nobody listens")) == []


def test_resets_end_a_stream_both_ways() -> None:
    server, client = ServerConnection(), SpdyClient()
    events(server, client.open() + client.open())
    assert events(server, client.reset(1) + client.reset(1)) == [WasReset(stream=1)]
    server.reset(3)
    assert [frame.kind for frame in client.read(server.data_to_send())] == [RST_STREAM]
    server.send(3, b"x")
    server.reply(3)
    assert (server.data_to_send(), server.streams) == (b"", 0)


def test_pings_of_the_peer_are_answered_and_answers_are_not() -> None:
    server, client = ServerConnection(), SpdyClient()
    events(server, client.ping(7) + client.ping(4))
    assert client.read(server.data_to_send()) == [Frame(PING, 7)]


def test_unknown_frames_settings_and_windows_are_skipped_and_a_farewell_is_told() -> None:
    server = ServerConnection()
    noise = control_frame(4, b"\0" * 4) + control_frame(9, b"\0" * 8) + control_frame(77, b"new")
    assert events(server, noise + control_frame(GOAWAY, b"\0" * 8)) == [GoneAway()]


Script = list[tuple[str, int, bytes]]
_steps = st.lists(
    st.tuples(st.sampled_from(["open", "data", "end", "reset", "ping"]), st.integers(0, 5), st.binary(max_size=300)),
    max_size=30,
)


def sent(client: SpdyClient, script: Script) -> bytes:
    """What a client sends for a script; steps on streams that it has not opened are left out."""
    opened, output = 0, b""
    for what, which, data in script:
        stream = 2 * which + 1
        if what == "open":
            output += client.open(streamType="data", requestID=data.hex()[:20])
            opened += 1
        elif what == "ping":
            output += client.ping(stream)
        elif which < opened:
            output += client.reset(stream) if what == "reset" else client.data(stream, data, end=what == "end")
    return output


@given(_steps, st.integers(1, 7))
def test_pieces_of_any_size_mean_the_same(script: Script, size: int) -> None:
    whole, pieces = ServerConnection(), ServerConnection()
    data = sent(SpdyClient(), script)
    at_once = joined(events(whole, data))
    one_by_one: list[Event] = []
    for start in range(0, len(data), size):
        one_by_one += events(pieces, data[start : start + size])
    assert joined(one_by_one) == at_once
    assert whole.data_to_send() == pieces.data_to_send()
    assert whole.streams == pieces.streams


@given(st.binary(max_size=400))
def test_noise_is_an_error_or_nothing_but_never_a_crash(noise: bytes) -> None:
    server = ServerConnection()
    try:
        found = events(server, noise)
    except SpdyError:
        return
    assert all(isinstance(event, GoneAway) for event in found)


@given(st.binary(min_size=1, max_size=200), st.integers(0, 300), st.integers(0, 255))
def test_a_damaged_conversation_never_crashes(data: bytes, where: int, value: int) -> None:
    client, server = SpdyClient(), ServerConnection()
    valid = bytearray(client.open(streamType="data") + client.data(1, data) + client.open(streamType="error"))
    valid[where % len(valid)] = value
    with contextlib.suppress(SpdyError):
        events(server, bytes(valid))
    assert server.streams <= 2


@given(st.dictionaries(st.from_regex("[a-z-]{1,20}", fullmatch=True), st.text(max_size=50), max_size=20))
def test_headers_survive_their_encoding(headers: dict[str, str]) -> None:
    assert decode_headers(encode_headers(headers.items())) == headers


def test_long_data_is_delivered_as_it_arrives() -> None:
    server, client = ServerConnection(), SpdyClient()
    events(server, client.open())
    head = struct.pack("!II", 1, 10_000_000)
    assert events(server, head) == []
    for _ in range(3):
        assert events(server, b"x" * 1000) == [Received(stream=1, data=b"x" * 1000, ended=False)]


def test_more_than_one_frame_is_made_of_what_is_longer_than_a_frame() -> None:
    server, client = ServerConnection(), SpdyClient()
    events(server, client.open())
    data = bytes(17 * 1024 * 1024)
    server.send(1, data, end=True)
    frames = client.read(server.data_to_send())
    assert [frame.ended for frame in frames] == [False, True]
    assert b"".join(frame.data for frame in frames) == data


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (struct.pack("!HHI", 0x8002, SYN_STREAM, 10) + bytes(10), "version 2"),
        (struct.pack("!HHI", 0x8003, SYN_STREAM, HEADER_BYTES_MAX + 1), "control frame of"),
        (control_frame(SYN_STREAM, b"\0\0"), "too short"),
        (control_frame(SYN_STREAM, struct.pack("!IIBB", 1, 0, 0, 0) + b"not zlib"), "cannot be decompressed"),
        (SpdyClient().open(2), "stream 2 after stream 0"),
        (control_frame(PING, b""), "too short"),
    ],
    ids=["another version", "a long frame", "a short frame", "no compression", "an even stream", "an empty ping"],
)
def test_a_broken_peer_is_an_error(frame: bytes, words: str) -> None:
    with pytest.raises(SpdyError, match=words):
        events(ServerConnection(), frame)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (struct.pack("!I", 1_000_000), "1000000 headers"),
        (struct.pack("!II", 1, 99) + b"short", "longer than its block"),
        (encode_headers([("a", "1"), ("A", "2")]), "twice"),
        (encode_headers([("", "1")]), "without a name"),
        (b"\0" * (HEADER_BYTES_MAX + 1), "headers of more than"),
    ],
)
def test_header_blocks_that_do_not_add_up(block: bytes, words: str) -> None:
    client = SpdyClient()
    body = struct.pack("!IIBB", 1, 0, 0, 0) + client.block(block)
    with pytest.raises(SpdyError, match=words):
        events(ServerConnection(), control_frame(SYN_STREAM, body))


def test_a_small_block_that_unpacks_to_a_large_one_is_stopped() -> None:
    bomb = SpdyClient().block(bytes(50_000_000))
    with pytest.raises(SpdyError, match=r"control frame of|headers of more than"):
        events(ServerConnection(), control_frame(SYN_STREAM, struct.pack("!IIBB", 1, 0, 0, 0) + bomb))


def test_streams_have_a_number() -> None:
    server, client = ServerConnection(), SpdyClient()
    found = events(server, b"".join(client.open() for _ in range(STREAMS_MAX + 1)))
    assert len(found) == STREAMS_MAX == server.streams
    numbers = [event.stream for event in found if isinstance(event, Opened)]
    assert all(after - before == 2 for before, after in pairwise(numbers))
    (refused,) = client.read(server.data_to_send())
    assert (refused.kind, refused.number, refused.data) == (RST_STREAM, 2 * STREAMS_MAX + 1, struct.pack("!I", 3))
    # The refused stream's headers went through the compressor: the next one is understood.
    events(server, client.reset(1))
    assert events(server, client.open(streamType="late"))[0].headers == {"streamtype": "late"}  # type: ignore[union-attr]
