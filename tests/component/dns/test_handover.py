"""An upgrade while questions come: the command as it is run, twice, and what happens to connections that are open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import dns.asyncquery
import dns.message
import pytest

from pilotage.api.coordination_v1 import Lease
from pilotage.dns import Config, Server
from pilotage.dns.handover import is_served
from pilotage.kit.tasks import task_set
from pilotage.testing.certificates import write_certificate
from pilotage.testing.cluster import api_server
from pilotage.testing.dns import fill, service
from pilotage.testing.etcd import free_port

NAME = "web.default.svc.cluster.local."
ADDRESS = "10.96.0.20"
LOST_S = 20.0
"""A question that has no answer by then is lost."""


def free_ports(count: int) -> list[int]:
    """All different."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


def trusting(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    return context


def question() -> dns.message.Message:
    return dns.message.make_query(NAME, "A")


def addresses(response: dns.message.Message) -> list[str]:
    return [str(r) for rrset in response.answer for r in rrset]


class Command:
    """`pilotage dns` with every transport, and clients that ask it without end."""

    def __init__(self, kubeconfig: Path, folder: Path, *more: str) -> None:
        self.port, self.tls, self.https, self.health = free_ports(4)
        self.socket = folder / "handover"
        files = write_certificate(folder)
        self.words = (
            *(sys.executable, "-m", "pilotage.cli", "dns", "--kubeconfig", str(kubeconfig), "--node", "n1"),
            *("--listen", f"127.0.0.1:{self.port}", "--listen-tls", f"127.0.0.1:{self.tls}"),
            *("--listen-https", f"127.0.0.1:{self.https}", "--health", f"127.0.0.1:{self.health}"),
            *("--tls-cert", files["certificate"], "--tls-key", files["key"]),
            *("--handover", str(self.socket), *more),
        )
        self.processes: list[asyncio.subprocess.Process] = []
        self.asked: dict[str, int] = {}
        self.stop = asyncio.Event()

    async def start(self, *more: str, readies: int = 1) -> asyncio.subprocess.Process:
        """Once it answers: when that many processes have said so."""
        process = await asyncio.create_subprocess_exec(*self.words, *more, stderr=asyncio.subprocess.PIPE)
        self.processes.append(process)
        assert process.stderr is not None
        said = []
        async with asyncio.timeout(60):
            while readies:
                line = await process.stderr.readline()
                said.append(line.decode())
                assert line, "".join(said)
                readies -= b"dns ready" in line
        return process

    async def ended(self, process: asyncio.subprocess.Process) -> int:
        """By itself; its exit status."""
        async with asyncio.timeout(60):
            assert process.stderr is not None
            said = (await process.stderr.read()).decode()
            status = await process.wait()
        assert "Traceback" not in said, said
        return status

    async def ask(self, transport: str) -> list[str]:
        """One question by a socket of its own; no second try."""
        host, options = "127.0.0.1", {"timeout": LOST_S}
        match transport:
            case "udp":
                return addresses(await dns.asyncquery.udp(question(), host, port=self.port, **options))
            case "tcp":
                return addresses(await dns.asyncquery.tcp(question(), host, port=self.port, **options))
            case "tls":
                context = trusting("dot")
                answer = await dns.asyncquery.tls(question(), host, port=self.tls, ssl_context=context, **options)
                return addresses(answer)
            case "https":
                url = f"https://{host}:{self.https}/dns-query"
                return addresses(await dns.asyncquery.https(question(), url, verify=False, **options))
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.get(f"http://{host}:{self.health}/readyz") as response:
                return [await response.text()]

    async def ask_on(self, transport: str, expected: str) -> None:
        self.asked[transport] = 0
        try:
            while not self.stop.is_set():
                assert await self.ask(transport) == [expected], transport
                self.asked[transport] += 1
        finally:
            self.stop.set()

    @contextlib.asynccontextmanager
    async def clients(self, until: Any) -> AsyncIterator[None]:
        """Any question lost or wrong fails the block, at its end at the latest."""
        async with asyncio.TaskGroup() as group:
            for transport in ("udp", "udp", "tcp", "tls", "https"):
                group.create_task(self.ask_on(transport, ADDRESS))
            group.create_task(self.ask_on("health", "ok\n"))
            await self.some_more(until)
            yield
            await self.some_more(until)
            self.stop.set()

    async def some_more(self, until: Any) -> None:
        """Each has asked since."""
        before = dict(self.asked)

        async def asked() -> bool:
            return len(self.asked) == 5 and all(self.asked[t] > before.get(t, 0) + 1 for t in self.asked)

        await until(asked, deadline_s=60)

    async def end(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.terminate()
                await self.ended(process)


@pytest.fixture
async def command(tmp_path: Path) -> AsyncIterator[Callable[..., Command]]:
    made: list[Command] = []
    async with api_server() as api:
        await api.client.create(service("web", ADDRESS))

        def make(*more: str) -> Command:
            made.append(Command(api.kubeconfig_path, tmp_path, *more))
            made[-1].client = api.client  # type: ignore[attr-defined]
            return made[-1]

        yield make
        for each in made:
            await each.end()


async def test_the_next_process_takes_over_and_no_question_is_lost(command: Any, until: Any) -> None:
    dns = command()
    first = await dns.start()
    async with dns.clients(until):
        second = await dns.start()
        assert await dns.ended(first) == 0, "the old one has ended by itself"
        await dns.some_more(until)
        await dns.start()
        assert await dns.ended(second) == 0


async def test_workers_hand_over_one_by_one(command: Any, until: Any) -> None:
    dns = command("--workers", "2")
    first = await dns.start(readies=2)
    async with dns.clients(until):
        await dns.start(readies=2)
        assert await dns.ended(first) == 0, "all of them were relieved"

    async def one_for_each_worker() -> bool:
        leases = await dns.client.list(Lease, namespace="kube-system")
        return {"watermark-dns-1-n1", "watermark-dns-2-n1"} <= {lease.metadata.name for lease in leases.items}

    await until(one_for_each_worker)


@pytest.mark.parametrize(
    ("served", "number", "message"),
    [
        pytest.param("", "2", "without workers is in service", id="several after one"),
        pytest.param(".1", "1", "give as many --workers", id="one after several"),
        pytest.param(".3", "2", "more than 2 workers", id="fewer than before"),
    ],
)
async def test_processes_that_cannot_take_over_say_so_and_what_to_do(
    command: Any, served: str, number: str, message: str
) -> None:
    dns = command("--workers", number)
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), f"{dns.socket}{served}")
    process = await asyncio.create_subprocess_exec(*dns.words, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    server.close()
    assert process.returncode not in (0, None)
    assert message in said.decode()


# ── what is open when the next process comes ────────────────────────────────────────────────────────────────────────


class Pair:
    """One server in service and what is needed to start the next, in this process."""

    def __init__(self, folder: Path) -> None:
        health = f"127.0.0.1:{free_port()}"
        self.options = {"handover": str(folder / "handover"), "health": health, **write_certificate(folder)}
        self.tasks: Any = None
        self.ended = asyncio.Event()

    async def first(self) -> Server:
        server = Server(Config(listen=("127.0.0.1:0",), listen_tls=("127.0.0.1:0",), **self.options))
        await self._run(server, self.ended)
        return server

    async def second(self, first: Server) -> Server:
        """When it answers and the first has stopped to accept."""
        (host, tls), (address,) = first.secure.tls[0], first.addresses
        config = Config(listen=(str(address),), listen_tls=(f"{host}:{tls}",), **self.options)
        server = await asyncio.to_thread(Server, config)
        await self._run(server, asyncio.Event())
        return server

    async def _run(self, server: Server, ended: asyncio.Event) -> None:
        ready = asyncio.Event()

        async def run() -> None:
            await server.run(None, ready.set)
            ended.set()

        self.tasks.start(run())
        async with asyncio.timeout(20):
            await ready.wait()
        fill(server.table, [service("web", ADDRESS)])
        while not await asyncio.to_thread(is_served, self.options["handover"]):
            await asyncio.sleep(0.01)


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setattr("pilotage.dns.server.DRAIN_S", 60.0)  # what ends within that ends by itself
    monkeypatch.setattr("pilotage.dns.accepting.HANDSHAKE_TIMEOUT_S", 60.0)
    made = Pair(tmp_path)
    async with task_set() as made.tasks:
        yield made


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int = 1) -> None:
    """That many questions at once, and their answers."""
    wire = question().to_wire()
    writer.write((len(wire).to_bytes(2, "big") + wire) * count)
    async with asyncio.timeout(LOST_S):
        for _ in range(count):
            reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            assert addresses(dns.message.from_wire(reply)) == [ADDRESS]


async def test_an_open_connection_is_answered_once_more_and_then_ended(pair: Pair) -> None:
    server = await pair.first()
    port = server.addresses[0].port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await converse(reader, writer)
    await pair.second(server)
    assert not pair.ended.is_set(), "a connection is open"
    await converse(reader, writer, count=20)
    async with asyncio.timeout(LOST_S):
        assert await reader.read() == b""
        await pair.ended.wait()
    writer.close()


async def test_a_handshake_that_was_begun_is_finished(pair: Pair) -> None:
    server = await pair.first()
    host, port = server.secure.tls[0]
    with socket.create_connection((host, port)) as early:
        reader, writer = await asyncio.open_connection(host, port, ssl=trusting("dot"))
        await converse(reader, writer)  # so the earlier one is accepted, too
        writer.close()
        await pair.second(server)
        assert not pair.ended.is_set(), "a handshake is under way"
        reader, writer = await asyncio.open_connection(sock=early, ssl=trusting("dot"), server_hostname="")
        await converse(reader, writer)
        async with asyncio.timeout(LOST_S):
            assert await reader.read() == b""
            await pair.ended.wait()
        writer.close()


async def test_a_process_that_asks_and_does_not_come_changes_nothing(
    pair: Pair, until: Callable[..., Awaitable[Any]]
) -> None:
    server = await pair.first()
    assert await asyncio.to_thread(is_served, pair.options["handover"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as rude:
        rude.connect(pair.options["handover"])  # and leaves with the sockets unread
    reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses[0].port)
    await converse(reader, writer)
    writer.close()
    await pair.second(server)
    async with asyncio.timeout(LOST_S):
        await pair.ended.wait()


async def test_what_the_first_told_the_second_knows(pair: Pair) -> None:
    server = await pair.first()
    for _ in range(3):  # an answer that was asked for before is kept ready
        reply = await dns.asyncquery.udp(question(), "127.0.0.1", port=server.addresses[0].port, timeout=LOST_S)
        assert addresses(reply) == [ADDRESS]
    assert server.table.leases is not None
    server.table.leases.adopt({bytes(4): 3600.0})  # as if it had taken over itself
    ttl = server.table.leases.remaining()[socket.inet_aton(ADDRESS)]
    second = await pair.second(server)
    assert second.table.leases is not None
    known = second.table.leases.remaining()
    assert set(known) == {bytes(4), socket.inet_aton(ADDRESS)}
    assert known[socket.inet_aton(ADDRESS)] > ttl, "it may be told once more while the first finishes"
    assert 3500 < known[bytes(4)] < 3600
