"""UDP and TCP on real sockets: the hot path, sizes, many questions a connection, limits, garbage."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from pilotage.dns import tcp, udp
from pilotage.dns.core.wire import Rotation


async def test_udp_answers_and_remembers_the_answer(start: Any) -> None:
    async with start() as server:
        for _ in range(3):
            response = await server.ask("web.default.svc")
            assert [str(r) for rrset in response.answer for r in rrset] == ["10.96.0.20"]
        assert len(server.server.table.fast) == 1


async def test_the_case_of_the_question_comes_back_from_the_hot_path(start: Any) -> None:
    async with start() as server:
        await server.ask("web.default.svc")
        response = await server.ask("WeB.deFault.SVC")
        assert str(response.answer[0].name) == "WeB.deFault.SVC.cluster.local."
        assert len(server.server.table.fast) == 1


async def test_addresses_take_turns(start: Any) -> None:
    async with start() as server:
        first = {str((await server.ask("big.default.svc", use_edns=0)).answer[0][0]) for _ in range(20)}
        assert len(first) == 20
        assert any(isinstance(kept, Rotation) for kept in server.server.table.fast.values())


async def test_a_truncated_answer_is_whole_by_tcp(start: Any) -> None:
    async with start() as server:
        response = await server.ask("big.default.svc")
        assert response.flags & dns.flags.TC
        whole = await server.ask("big.default.svc", tcp=True)
        assert not whole.flags & dns.flags.TC
        assert len(whole.answer[0]) == 100


async def test_many_questions_in_one_connection(start: Any) -> None:
    async with start() as server:
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        sent = set()
        for i in range(200):
            query = dns.message.make_query("web.default.svc.cluster.local.", "A", id=i)
            sent.add(i)
            data = query.to_wire()
            writer.write(len(data).to_bytes(2, "big") + data)
        got = set()
        async with asyncio.timeout(10):
            while got != sent:
                length = int.from_bytes(await reader.readexactly(2), "big")
                got.add(dns.message.from_wire(await reader.readexactly(length)).id)
        writer.close()


async def test_a_question_byte_by_byte_is_answered(start: Any) -> None:
    async with start() as server:
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        data = dns.message.make_query("web.default.svc.cluster.local.", "A").to_wire()
        for byte in len(data).to_bytes(2, "big") + data:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            length = int.from_bytes(await reader.readexactly(2), "big")
            assert dns.message.from_wire(await reader.readexactly(length)).answer
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\0\0", id="length of nothing"),
        pytest.param(b"\0\x0b" + b"x" * 11, id="shorter than a header"),
        pytest.param(b"\xff\xff" + b"x" * 100, id="longer than any query"),
        pytest.param(b"\0\x0c\0\0\x81\0\0\0\0\0\0\0\0\0", id="an answer"),
    ],
)
async def test_a_connection_that_breaks_the_rules_is_closed(start: Any, data: bytes) -> None:
    async with start() as server:
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        writer.write(data)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):  # how the kernel closes with bytes unread
                assert await reader.read() == b""
        writer.close()
        assert (await server.ask("web.default.svc", tcp=True)).answer


async def test_idle_and_slow_connections_are_closed(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "IDLE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(tcp, "MESSAGE_TIMEOUT_S", 0.05)
    async with start() as server:
        for beginning in (b"", b"\0", b"\0\x20", b"\0\x20half a question"):
            reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
            writer.write(beginning)
            async with asyncio.timeout(10):
                assert await reader.read() == b""
            writer.close()


async def test_connections_are_bounded(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "CONNECTIONS_MAX", 3)
    async with start() as server:
        held = [await asyncio.open_connection(server.address.host, server.address.port) for _ in range(3)]
        for reader, writer in held:  # each is really being served
            data = dns.message.make_query("web.default.svc.cluster.local.", "A").to_wire()
            writer.write(len(data).to_bytes(2, "big") + data)
            assert await reader.readexactly(2)
        # A fourth takes the place of the one that has been idle longest, and the others stay.
        assert (await server.ask("web.default.svc", tcp=True)).answer
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                while await held[0][0].read(4_096):
                    pass
        reader, writer = held[2]
        writer.write(len(data).to_bytes(2, "big") + data)
        async with asyncio.timeout(10):
            assert await reader.readexactly(2)
        for _, other in held:
            other.close()


async def test_garbage_gets_at_most_a_refusal_and_the_server_lives(start: Any, capsys: Any) -> None:
    async with start() as server:
        seed = random.randrange(1 << 32)
        print("seed", seed)
        dice = random.Random(seed)
        valid = dns.message.make_query("web.default.svc.cluster.local.", "A", use_edns=0).to_wire()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((server.address.host, server.address.port))
            for _ in range(500):
                data = bytearray(valid if dice.random() < 0.7 else dice.randbytes(dice.randrange(1, 200)))
                for _ in range(dice.randrange(4)):
                    data[dice.randrange(len(data))] = dice.randrange(256)
                client.send(bytes(data))
                if dice.random() < 0.1:
                    await asyncio.sleep(0)
            assert (await server.ask("web.default.svc")).answer
        assert "Traceback" not in capsys.readouterr().err


async def test_before_the_first_complete_view_the_cluster_is_servfail(start: Any) -> None:
    async with start() as server:
        server.server.table.synced = False
        assert (await server.ask("web.default.svc")).rcode() == dns.rcode.SERVFAIL
        server.server.table.synced = True
        assert (await server.ask("web.default.svc")).rcode() == dns.rcode.NOERROR


async def test_too_many_waiting_questions_are_refused(
    start: Any, upstream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "PENDING_MAX", 5)
    upstream.silent = True
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",), upstream_timeout_s=5) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((server.address.host, server.address.port))
            for i in range(5):
                client.send(dns.message.make_query(f"n{i}.example.test.", "A").to_wire())
            response = await server.ask("one-more.example.test.")
        assert response.rcode() == dns.rcode.SERVFAIL
        assert (await server.ask("web.default.svc")).answer


async def test_two_servers_of_one_port_is_an_error(start: Any) -> None:
    async with start() as server:
        with pytest.raises(OSError):
            async with start(listen=(str(server.address),)):
                pass
