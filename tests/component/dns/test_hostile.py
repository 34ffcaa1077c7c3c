"""Packets and connections that mean harm: no crash, nothing in the log, memory and answers bounded, others served."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dns.message
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotage.dns import tcp
from pilotage.dns.core.table import Table
from pilotage.dns.core.wire import UDP_BYTES_DEFAULT, UDP_BYTES_MAX, Malformed, parse_query
from pilotage.testing.dns import part, service, table

NAME = "web.default.svc.cluster.local."


def header(*, flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0)) -> bytes:
    return struct.pack("!6H", 0x1234, flags, *counts)


WEB = b"\3web\7default\3svc\7cluster\5local\0"
A_IN = b"\0\1\0\1"
OPT = b"\0\0\x29\x04\xd0\0\0\0\0"

CORPUS = {
    "pointer to itself": header() + b"\xc0\x0c" + A_IN,
    "two pointers to each other": header() + b"\xc0\x0e\xc0\x0c" + A_IN,
    "pointer forward": header() + b"\xc0\x20" + A_IN + b"\0" * 40,
    "pointer beyond the packet": header() + b"\3web\xff\xff" + A_IN,
    "half a pointer": header() + b"\3web\xc0",
    "loop in the additional section": header(counts=(1, 0, 0, 1)) + WEB + A_IN + b"\xc0\x28\0\x29\x04\xd0\0\0\0\0\0\0",
    "reserved label types": header() + b"\x40abc\x80def\0" + A_IN,
    "a name of 256 bytes": header() + b"\x3f" + b"a" * 63 + (b"\x3f" + b"b" * 63) * 3 + b"\0" + A_IN,
    "a name of 4,000 bytes": header() + b"\x3f" * 4_000,
    "127 labels": header() + b"\1a" * 127 + b"\0" + A_IN,
    "labels that are zero bytes": header() + b"\4\0\0\0\0\3svc\7cluster\5local\0" + A_IN,
    "the root": header() + b"\0" + A_IN,
    "65,535 questions": header(counts=(65535, 0, 0, 0)) + WEB + A_IN,
    "65,535 additional records": header(counts=(1, 0, 0, 65535)) + WEB + A_IN,
    "65,535 authorities": header(counts=(1, 0, 65535, 0)) + WEB + A_IN + b"\0" * 300,
    "no question": header(counts=(0, 0, 0, 0)),
    "an answer": header(flags=0x8180) + WEB + A_IN,
    "every flag": header(flags=0x7FFF) + WEB + A_IN,
    "an update": header(flags=0x2800) + WEB + b"\0\6\0\1",
    "a notification": header(flags=0x2400) + WEB + b"\0\6\0\1",
    "class ANY": header() + WEB + b"\0\1\0\xff",
    "type 0": header() + WEB + b"\0\0\0\1",
    "a transfer": header() + b"\7cluster\5local\0\0\xfc\0\1",
    "an incremental transfer": header(counts=(1, 0, 1, 0))
    + b"\7cluster\5local\0\0\xfb\0\1"
    + b"\0\0\6\0\1\0\0\0\0\xff\xff",
    "an option longer than the packet": header(counts=(1, 0, 0, 1)) + WEB + A_IN + OPT + b"\xff\xff",
    "an OPT owned by a name": header(counts=(1, 0, 0, 1)) + WEB + A_IN + WEB + b"\0\x29\x04\xd0\0\0\0\0\0\0",
    "two OPTs": header(counts=(1, 0, 0, 2)) + WEB + A_IN + (OPT + b"\0\0") * 2,
    "EDNS version 255": header(counts=(1, 0, 0, 1)) + WEB + A_IN + b"\0\0\x29\x04\xd0\0\xff\0\0\0\0",
    "a buffer of nothing": header(counts=(1, 0, 0, 1)) + WEB + A_IN + b"\0\0\x29\0\0\0\0\0\0\0\0",
    "bytes after the end": header() + WEB + A_IN + b"x" * 500,
}


@pytest.fixture
async def quiet(start: Any, caplog: pytest.LogCaptureFixture, capsys: Any) -> AsyncIterator[Any]:
    """A server; afterwards it still answers, and nothing has been said of an exception."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    with caplog.at_level(logging.WARNING):
        async with start() as server:
            yield server
            assert (await server.ask("web.default.svc")).answer
            assert (await server.ask("web.default.svc", tcp=True)).answer
    assert not unheard
    assert not [record for record in caplog.records if record.exc_info]
    assert "Traceback" not in capsys.readouterr().err


def judge(sent: bytes, reply: bytes) -> None:
    assert reply[:2] == sent[:2]
    assert reply[2] & 0x80
    dns.message.from_wire(reply, ignore_trailing=False)
    has_opt = b"\0\0\x29" in sent
    assert len(reply) <= (UDP_BYTES_MAX if has_opt else UDP_BYTES_DEFAULT)


async def test_the_corpus_and_its_mutations_by_udp(quiet: Any) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    address = (quiet.address.host, quiet.address.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(address)
        client.setblocking(False)
        for _ in range(40):
            for data in CORPUS.values():
                changed = bytearray(data)
                for _ in range(dice.randrange(4)):
                    changed[dice.randrange(2, len(changed))] = dice.randrange(256)
                client.send(bytes(changed[: dice.randrange(2, len(changed) + 1)] if dice.random() < 0.3 else changed))
            await asyncio.sleep(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    judge(b"\x12\x34" + b"\0\0\x29", client.recv(65535))


@pytest.mark.parametrize("data", CORPUS.values(), ids=CORPUS)
def test_every_packet_of_the_corpus_is_answered_in_kind_or_not_at_all(data: bytes) -> None:
    made = table(service("web", "10.96.0.20"))
    try:
        reply = made.respond(data, parse_query(data))
    except Malformed as refusal:
        reply = refusal.reply
    if isinstance(reply, bytes):
        judge(data, reply)


_LABEL = st.one_of(
    st.binary(min_size=1, max_size=63), st.sampled_from([b"web", b"default", b"svc", b"cluster", b"local"])
)
_OWNER = st.one_of(
    st.lists(_LABEL, max_size=12).map(lambda labels: b"".join(bytes((len(x),)) + x for x in labels) + b"\0"),
    st.integers(0, 0x3FFF).map(lambda offset: (0xC000 | offset).to_bytes(2, "big")),
)
_RECORD = st.builds(
    lambda owner, head, data, length: (
        owner + head + (len(data) if length is None else length).to_bytes(2, "big") + data
    ),
    _OWNER,
    st.binary(min_size=8, max_size=8),
    st.binary(max_size=60),
    st.one_of(st.none(), st.integers(0, 0xFFFF)),
)


@pytest.fixture(scope="module")
def crowded() -> Table:
    return table(service("web", "10.96.0.20"), service("big"), part("big", *(f"10.0.0.{i + 1}" for i in range(200))))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 0xFFFF),
    st.tuples(*[st.sampled_from([0, 1, 1, 1, 2, 0xFFFF])] * 4),
    _OWNER,
    st.binary(min_size=4, max_size=4),
    st.lists(_RECORD, max_size=4).map(b"".join),
)
def test_built_messages_are_answered_in_kind_or_not_at_all(
    crowded: Table, flags: int, counts: tuple[int, int, int, int], owner: bytes, kind: bytes, records: bytes
) -> None:
    data = header(flags=flags, counts=counts) + owner + kind + records
    try:
        reply = crowded.respond(data, parse_query(data))
    except Malformed as refusal:
        reply = refusal.reply
    if isinstance(reply, bytes):
        assert reply[:2] == data[:2]
        assert reply[2] & 0x80
        assert len(reply) <= UDP_BYTES_MAX
        dns.message.from_wire(reply, ignore_trailing=False)


def test_no_answer_by_udp_is_worth_forging_an_address_for(crowded: Table) -> None:
    """The largest answers to the smallest questions; more is only to be had by TCP, whose address is proven."""
    for name in ("web", "big"):
        for kind in (b"\0\1", b"\0\x21", b"\0\xff"):
            labels = bytes((len(name),)) + name.encode() + b"\7default\3svc\7cluster\5local\0"
            small = header() + labels + kind + b"\0\1"
            large = header(counts=(1, 0, 0, 1)) + labels + kind + b"\0\1" + b"\0\0\x29\xff\xff\0\0\0\0\0\0"
            for data, limit in ((small, 512), (large, 1232)):
                reply = crowded.respond(data, parse_query(data))
                assert isinstance(reply, bytes)
                assert len(reply) <= limit


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_frames_of_65_535_bytes_are_not_kept(quiet: Any) -> None:
    before = resident_bytes()
    for _ in range(100):
        reader, writer = await asyncio.open_connection(quiet.address.host, quiet.address.port)
        with contextlib.suppress(ConnectionError):
            writer.write(b"\xff\xff" + b"\x3f" * 65_535)
            await writer.drain()
            async with asyncio.timeout(10):
                assert await reader.read() == b""
        writer.close()
    assert resident_bytes() - before < 20_000_000


async def test_garbage_by_stream_ends_the_connection_at_most(quiet: Any) -> None:
    for data in CORPUS.values():
        reader, writer = await asyncio.open_connection(quiet.address.host, quiet.address.port)
        writer.write(len(data).to_bytes(2, "big") + data + b"\0\0")
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                received = await reader.read()
                assert not received or received[2:4] == data[:2]
        writer.close()


async def test_silent_connections_keep_nobody_out(quiet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "CONNECTIONS_MAX", 20)
    held = []
    for _ in range(60):
        held.append(await asyncio.open_connection(quiet.address.host, quiet.address.port))
        await asyncio.sleep(0)
    for _ in range(3):
        assert (await quiet.ask("web.default.svc", tcp=True)).answer
    for reader, _ in held[:30]:  # the first had to go
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
    for _, writer in held:
        writer.close()


async def test_messages_that_trickle_in_are_cut_off(quiet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "CONNECTIONS_MAX", 10)
    monkeypatch.setattr(tcp, "MESSAGE_TIMEOUT_S", 0.2)
    held = []
    for _ in range(10):
        reader, writer = await asyncio.open_connection(quiet.address.host, quiet.address.port)
        writer.write(b"\0\x40half")
        held.append((reader, writer))
    for reader, writer in held:
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
