"""Names that are not ours: forwarding, failover, forged answers, the cache, ExternalName."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from pilotage.dns.chain import forward
from pilotage.kit import Backoff


def answers(response: dns.message.Message) -> list[str]:
    return [f"{rrset.rdtype.name} {r}" for rrset in response.answer for r in rrset]


async def test_without_upstreams_other_names_are_refused(start: Any) -> None:
    async with start() as server:
        assert (await server.ask("www.example.test.")).rcode() == dns.rcode.REFUSED


async def test_other_names_are_the_upstreams(start: Any, upstream: Any) -> None:
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
        response = await server.ask("Legacy.EXAMPLE.test.")
        assert answers(response) == ["CNAME real.EXAMPLE.test.", "A 192.0.2.7"]
        assert not response.flags & dns.flags.AA
        assert response.flags & dns.flags.RA
        missing = await server.ask("nothing.example.test.")
        assert missing.rcode() == dns.rcode.NXDOMAIN
        assert missing.authority


async def test_upstreams_come_from_a_resolv_conf_too(start: Any, upstream: Any, tmp_path: Any) -> None:
    from pilotage.dns.config import Config, find_upstreams

    path = tmp_path / "resolv.conf"
    path.write_text(
        "# a comment\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver 127.0.0.1\noptions ndots:5\n"
    )
    found = find_upstreams(Config(listen=("127.0.0.1:53",), resolv_conf=str(path)))
    assert [str(address) for address in found] == ["10.0.0.1:53", "[fe80::1]:53"], "never itself"


async def test_positive_and_negative_answers_are_kept(start: Any, upstream: Any) -> None:
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
        for name in ("legacy.example.test.", "nothing.example.test."):
            before = upstream.datagrams
            for _ in range(5):
                await server.ask(name)
                await server.ask(name, use_edns=0)
                await server.ask(name, tcp=True)
            assert upstream.datagrams == before + 1
        assert len(server.server.chains.chain.steps[0]) == 2


async def test_a_kept_answer_ages_and_goes(start: Any, upstream: Any, until: Any) -> None:
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
        await server.ask("short.example.test.")

        async def asked_again() -> bool:
            response = await server.ask("short.example.test.")
            assert response.answer[0].ttl <= 1
            return bool(upstream.datagrams == 2)

        await until(asked_again)


async def test_questions_asked_together_cost_one_upstream_query(start: Any, upstream: Any, until: Any) -> None:
    upstream.hold = asyncio.Event()
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
        asking = asyncio.gather(*(server.ask("legacy.example.test.") for _ in range(20)))

        async def arrived() -> bool:
            await asyncio.sleep(0.02)
            return bool(upstream.datagrams)

        await until(arrived)
        upstream.hold.set()
        responses = await asking
        assert all(len(response.answer) == 2 for response in responses)
        assert upstream.datagrams == 1


async def test_large_answers_come_by_tcp_and_are_cut_for_udp(start: Any, upstream: Any) -> None:
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
        response = await server.ask("large.example.test.")
        assert response.flags & dns.flags.TC
        assert upstream.streams == 1
        whole = await server.ask("large.example.test.", tcp=True)
        assert len(whole.answer[0]) == 119
        assert upstream.streams == 1, "kept whole"


async def test_a_silent_upstream_is_left_for_the_next(
    start: Any, upstream: Any, start_upstream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_REST", Backoff(initial_s=60.0, max_s=60.0))  # longer than this test may take
    async with start_upstream() as second:
        upstream.silent = True
        ports = (f"127.0.0.1:{upstream.port}", f"127.0.0.1:{second.port}")
        async with start(upstreams=ports, upstream_timeout_s=1.0) as server:
            for i in range(4):
                assert (await server.ask(f"short.{i}.example.test.")).rcode() == dns.rcode.NOERROR
            assert upstream.datagrams == 2, "rests after two failures"
            assert second.datagrams == 4


async def test_an_upstream_that_cannot_help_is_left_for_the_next(
    start: Any, upstream: Any, start_upstream: Any
) -> None:
    async with start_upstream() as second:
        upstream.rcode = dns.rcode.SERVFAIL
        ports = (f"127.0.0.1:{upstream.port}", f"127.0.0.1:{second.port}")
        async with start(upstreams=ports) as server:
            assert answers(await server.ask("legacy.example.test."))[-1] == "A 192.0.2.7"
            second.rcode = dns.rcode.REFUSED
            assert (await server.ask("other.example.test.")).rcode() == dns.rcode.SERVFAIL


async def test_when_no_upstream_answers_it_is_servfail_and_nothing_is_kept(start: Any, upstream: Any) -> None:
    upstream.silent = True
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",), upstream_timeout_s=0.5) as server:
        assert (await server.ask("legacy.example.test.")).rcode() == dns.rcode.SERVFAIL
        upstream.silent = False
        assert (await server.ask("legacy.example.test.")).rcode() == dns.rcode.NOERROR


async def test_forged_packets_before_the_honest_one_are_ignored(start: Any, upstream: Any) -> None:
    def forge(reply: bytes) -> list[bytes]:
        poisoned = reply.replace(bytes((192, 0, 2, 7)), bytes((6, 6, 6, 6)))
        wrong_ids = [
            ((int.from_bytes(reply[:2], "big") + i) & 0xFFFF).to_bytes(2, "big") + poisoned[2:] for i in (1, 9)
        ]
        wrong_name = poisoned[:13] + b"x" + poisoned[14:]
        return [*wrong_ids, wrong_name, b"", b"\0" * 3, poisoned[:2] + b"\1\0" + poisoned[4:]]

    upstream.forge = forge
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
        for rtype, _ in itertools.product(("A",), range(3)):
            assert answers(await server.ask("legacy.example.test.", rtype))[-1] == "A 192.0.2.7"
        assert upstream.streams == 0


async def test_an_upstream_that_changes_the_case_is_asked_by_tcp(start: Any, upstream: Any) -> None:
    upstream.forge = lambda reply: [reply[:12] + reply[12:].swapcase()]
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
        assert answers(await server.ask("legacy.example.test."))[-1] == "A 192.0.2.7"
        assert upstream.streams == 1


async def test_an_external_name_is_a_cname_with_the_upstreams_answer(start: Any, upstream: Any) -> None:
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
        for tcp in (False, True):
            response = await server.ask("legacy.default.svc", tcp=tcp)
            assert answers(response) == ["CNAME legacy.example.test.", "CNAME real.example.test.", "A 192.0.2.7"]
        response = await server.ask("legacy.default.svc", "CNAME")
        assert answers(response) == ["CNAME legacy.example.test."]
        dangling = await server.ask("gone.default.svc")
        assert dangling.rcode() == dns.rcode.NXDOMAIN
        assert answers(dangling) == ["CNAME nothing.example.test."]


async def test_an_external_name_without_upstream_help_is_servfail(start: Any, upstream: Any) -> None:
    upstream.silent = True
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",), upstream_timeout_s=0.05) as server:
        assert (await server.ask("legacy.default.svc")).rcode() == dns.rcode.SERVFAIL


async def test_a_client_that_has_asked_everything_still_hears_the_answers(
    start: Any, upstream: Any, until: Any
) -> None:
    upstream.hold = asyncio.Event()
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        for name in ("legacy.example.test.", "nothing.example.test."):
            data = dns.message.make_query(name, "A").to_wire()
            writer.write(len(data).to_bytes(2, "big") + data)
        writer.write_eof()

        async def arrived() -> bool:
            return bool(upstream.datagrams == 2)

        await until(arrived)
        upstream.hold.set()
        async with asyncio.timeout(10):
            rcodes = set()
            for _ in range(2):
                length = int.from_bytes(await reader.readexactly(2), "big")
                rcodes.add(dns.message.from_wire(await reader.readexactly(length)).rcode())
            assert await reader.read() == b""
        writer.close()
        assert rcodes == {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}


async def test_clients_that_leave_before_their_answers_harm_nobody(start: Any, upstream: Any, until: Any) -> None:
    upstream.hold = asyncio.Event()
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
        for _ in range(5):
            _, writer = await asyncio.open_connection(server.address.host, server.address.port)
            for i in range(10):
                data = dns.message.make_query(f"n{i}.example.test.", "A").to_wire()
                writer.write(len(data).to_bytes(2, "big") + data)
            await writer.drain()
            writer.transport.abort()

        async def arrived() -> bool:
            await server.ask("web.default.svc")
            return bool(upstream.datagrams >= 10)

        await until(arrived)
        upstream.hold.set()
        assert (await server.ask("web.default.svc", tcp=True)).answer
