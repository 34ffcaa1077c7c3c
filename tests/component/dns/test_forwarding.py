"""Three promises about upstreams: whose turn is chance, what a forger must guess, how long a denial is believed."""

from __future__ import annotations

import itertools
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import pytest

from pilotage.dns.chain import Request
from pilotage.dns.chain.cache import Cache, Options
from pilotage.dns.core.upstream import Reply, accept, upstream_query
from pilotage.dns.core.wire import parse_query
from pilotage.kit.clock import ManualClock

QUESTIONS = 60


def configured(start: Any, path: Path, text: str) -> Any:
    path.write_text(text)
    return start(config_file=str(path))


# ── whom to ask ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("policy", ["", "policy: random"], ids=["by default", "by name"])
async def test_chance_decides_which_server_is_asked(
    start: Any, start_upstream: Any, tmp_path: Path, policy: str
) -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(start_upstream()) for _ in range(3)]
        to = ", ".join(f'"127.0.0.1:{server.port}"' for server in servers)
        text = f"chain: [forward: {{to: [{to}], {policy}}}]"
        running = await stack.enter_async_context(configured(start, tmp_path / "dns.yaml", text))
        asked: list[int] = []
        for number in range(QUESTIONS):
            before = [server.datagrams for server in servers]
            await running.ask(f"short.{number}.example.test.")
            (one,) = (i for i, server in enumerate(servers) if server.datagrams > before[i])
            asked.append(one)
    assert set(asked) == {0, 1, 2}, asked
    for turn in (1, 2, 3):  # three equal servers repeat themselves after so many about once in 3**57 times
        assert asked[turn:] != asked[:-turn], asked


# ── what a forger has to guess ──────────────────────────────────────────────────────────────────────────────────────


async def test_every_query_has_a_port_an_id_and_a_letter_case_of_its_own(start: Any, upstream: Any) -> None:
    async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
        for number in range(QUESTIONS):
            await server.ask(f"short.with-a-long-name-{number:02}.example.test.")
    ports = [address[1] for _, address in upstream.seen]
    idents = [int.from_bytes(data[:2], "big") for data, _ in upstream.seen]
    cases = {bytes(byte & 0x20 for byte in data[12:34]) for data, _ in upstream.seen}
    for drawn, range_of in ((ports, 2_000), (idents, 30_000)):
        assert len(set(drawn)) >= QUESTIONS - 5, "two may be equal by chance, not many"
        assert max(drawn) - min(drawn) > range_of, drawn
        steps = {later - earlier for earlier, later in itertools.pairwise(drawn)}
        assert len(steps) > QUESTIONS // 2, "nobody learns the next one from the last ones"
    assert len(cases) >= QUESTIONS - 5


async def test_an_answer_that_knows_everything_but_comes_from_elsewhere_is_ignored(start: Any, upstream: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:

        def poison(reply: bytes, asker: tuple[str, int]) -> None:
            elsewhere.sendto(reply.replace(bytes((192, 0, 2, 7)), bytes((6, 6, 6, 6))), asker)

        upstream.overtake = poison
        async with start(upstreams=(f"127.0.0.1:{upstream.port}",)) as server:
            response = await server.ask("legacy.example.test.")
    assert [str(r) for rrset in response.answer for r in rrset] == ["real.example.test.", "192.0.2.7"]


# ── how long a denial is believed ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "rcode"), [("nothing.example.test.", dns.rcode.NXDOMAIN), ("nodata.example.test.", dns.rcode.NOERROR)]
)
async def test_a_denial_is_told_and_kept_no_longer_than_the_file_says(
    start: Any, upstream: Any, until: Any, tmp_path: Path, name: str, rcode: int
) -> None:
    text = f"""
chain:
  - cache: {{negative_ttl_max_s: 1, stale_s: 0, prefetch_hits: 0}}
  - forward: {{to: "127.0.0.1:{upstream.port}"}}
"""
    async with configured(start, tmp_path / "dns.yaml", text) as server:
        first = await server.ask(name)
        assert (first.rcode(), first.authority[0].ttl) == (rcode, 1), "the zone itself allows thirty seconds"
        assert (await server.ask("legacy.example.test.")).answer[-1].ttl == 60, "the bound is of denials alone"
        asked = upstream.datagrams

        async def asked_again() -> bool:
            assert (await server.ask(name)).rcode() == rcode
            return bool(upstream.datagrams > asked)

        await until(asked_again)


@pytest.mark.parametrize(
    ("name", "bound", "kept_s"),
    [
        pytest.param("nothing.example.test.", 12, 12, id="NXDOMAIN, by the bound"),
        pytest.param("nodata.example.test.", 12, 12, id="NODATA, by the bound"),
        pytest.param("nothing.example.test.", 300, 30, id="NXDOMAIN, by its zone's SOA"),
        pytest.param("nothing.example.test.", 0, 0, id="not at all"),
        pytest.param("legacy.example.test.", 12, 60, id="what exists, by its own TTL"),
    ],
)
async def test_how_long_an_answer_is_kept(upstream: Any, name: str, bound: int, kept_s: int) -> None:
    clock = ManualClock()
    cache = Cache(clock, Options(negative_ttl_max_s=bound, stale_s=0, prefetch_hits=0))
    query = parse_query(dns.message.make_query(name, "A").to_wire())
    asked = 0

    async def following(request: Request) -> Reply:
        nonlocal asked
        asked += 1
        sent = upstream_query(request.query, 7, 0)
        return accept(sent, upstream.answer(sent).to_wire())

    async def ask() -> int:
        await cache.resolve(Request(query=query, client=""), following)
        return asked

    assert await ask() == 1
    if kept_s:
        clock.advance(kept_s - 0.1)
        assert await ask() == 1
    clock.advance(0.2)
    assert await ask() == 2
