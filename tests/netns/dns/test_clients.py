"""dig (BIND) and kdig (Knot): by UDP, TCP, TLS and HTTPS, whole zones too, without a word of complaint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilotage.dns import Config, Server
from pilotage.kit.tasks import task_set
from pilotage.testing.certificates import write_certificate
from pilotage.testing.dns import endpoint, fill, part, service

ZONE = "cluster.local"
ONCE = {"dig": ("+time=5", "+tries=1"), "kdig": ("+timeout=5", "+retry=0")}
FINE = ("truncated reply", ".local is reserved for Multicast DNS")
"""What kdig says of every answer that is asked for again by TCP, and dig of this zone's name."""
BIG = f"big.default.svc.{ZONE}"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    config = Config(
        listen=("127.0.0.1:0", "[::1]:0"),
        listen_tls=("127.0.0.1:0",),
        listen_https=("127.0.0.1:0",),
        **write_certificate(tmp_path),
        transfer_to=("127.0.0.1",),
        reverse_cidrs=("10.96.0.0/16",),
        upstreams=("127.0.0.1:9",),  # never asked here: without any, dig rightly says that there is no recursion
    )
    server = Server(config)
    ready = asyncio.Event()
    async with task_set() as tasks:
        tasks.start(server.run(None, ready.set))
        async with asyncio.timeout(10):
            await ready.wait()
        fill(
            server.table,
            [
                service("web", "10.96.0.20", "fd00:96::20"),
                service("db", ports=[("sql", 5432)]),
                part("db", endpoint("10.244.1.7", "db-0"), endpoint("10.244.2.7", "db-1"), ports=[("sql", 5432)]),
                service("big"),
                part("big", *(f"10.244.9.{i + 1}" for i in range(100))),
            ],
        )
        yield server


async def ask(server: Server, program: str, *words: str) -> str:
    """What the program prints; it must not have tried twice, nor complain."""
    assert server.secure is not None
    host, port = server.addresses[0].host, server.addresses[0].port
    if "-6" in words:
        host, port = server.addresses[1].host, server.addresses[1].port
    if "+tls" in words:
        ((host, port),) = server.secure.tls
    if "+https" in words:
        ((host, port),) = server.secure.https
    words = tuple(word for word in words if word not in ("udp", "-6"))
    whole = (program, f"@{host}", "-p", str(port), *ONCE[program], *words)
    process = await asyncio.create_subprocess_exec(
        *whole, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    lines = output.decode().splitlines()
    text = "\n".join(line for line in lines if line and not any(known in line for known in FINE))
    assert process.returncode == 0, text
    for complaint in ("WARNING", "warning", "malformed", "mismatch", "failed", "error", "extra bytes"):
        assert complaint not in text, text
    return text


@pytest.mark.parametrize("program", ["dig", "kdig"])
@pytest.mark.parametrize("transport", ["udp", "+tcp", "+tls", "+https", "-6"])
async def test_every_transport(server: Server, program: str, transport: str) -> None:
    async def short(*words: str) -> list[str]:
        return sorted((await ask(server, program, transport, "+short", *words)).splitlines())

    assert await short(f"web.default.svc.{ZONE}", "A") == ["10.96.0.20"]
    assert await short(f"web.default.svc.{ZONE}", "AAAA") == ["fd00:96::20"]
    assert len(await short(BIG, "A")) == 100  # by UDP: after TC, by TCP
    assert await short(f"_sql._tcp.db.default.svc.{ZONE}", "SRV") == [
        f"0 50 5432 db-{i}.db.default.svc.{ZONE}." for i in (0, 1)
    ]
    assert await short("-x", "10.96.0.20") == [f"web.default.svc.{ZONE}."]
    assert await short(f"dns-version.{ZONE}", "TXT") == ['"1.1.0"']


@pytest.mark.parametrize("program", ["dig", "kdig"])
async def test_negative_answers_carry_the_soa(server: Server, program: str) -> None:
    text = await ask(server, program, f"nothing.default.svc.{ZONE}", "A")
    assert "NXDOMAIN" in text
    assert "SOA" in text
    assert "NXDOMAIN" not in await ask(server, program, f"default.svc.{ZONE}", "A")


@pytest.mark.parametrize(
    "words", [("+bufsize=512",), ("+noedns",), ("+dnssec",), ("+cookie",), ("+subnet=192.0.2.0/24",)]
)
async def test_what_dig_may_add_to_a_question(server: Server, words: tuple[str, ...]) -> None:
    assert "10.96.0.20" in await ask(server, "dig", *words, f"web.default.svc.{ZONE}", "A")


@pytest.mark.parametrize("program", ["dig", "kdig"])
async def test_a_whole_zone(server: Server, program: str) -> None:
    text = await ask(server, program, "+tcp", ZONE, "AXFR")
    records = [line.split() for line in text.splitlines() if line and not line.startswith(";")]
    assert [f"web.default.svc.{ZONE}.", "5", "IN", "A", "10.96.0.20"] in records
    assert [record[3] for record in records].count("SOA") == 2
    assert sum(record[0] == f"{BIG}." and record[3] == "A" for record in records) == 100
