"""A DNS server on loopback, an upstream it can ask, and dnspython as the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from pilotage.dns import Config, Server
from pilotage.kit.tasks import task_set
from pilotage.testing.dns import fill, part, service

SOA = "ns.example.test. host.example.test. 1 2 3 4 30"


class Upstream(asyncio.DatagramProtocol):
    """A server for example.test by UDP and TCP on one port, which counts, and misbehaves when told."""

    def __init__(self) -> None:
        self.port = 0
        self.datagrams = 0
        self.streams = 0
        self.seen: list[tuple[bytes, tuple[str, int]]] = []
        """Datagrams and who sent them."""
        self.overtake: Callable[[bytes, tuple[str, int]], None] | None = None
        """Called with the honest reply and its receiver before it is sent."""
        self.silent = False
        self.rcode = dns.rcode.NOERROR
        self.forge: Callable[[bytes], list[bytes]] | None = None
        self.hold: asyncio.Event | None = None
        self.waiting: list[asyncio.Task[None]] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagrams += 1
        self.seen.append((data, addr))
        if self.silent:
            return
        reply = self.answer(data).to_wire(max_size=65535)
        if self.overtake is not None:
            self.overtake(reply, addr)
        for packet in [*(self.forge(reply) if self.forge else []), reply]:
            if len(packet) > 1232:
                cut = dns.message.make_response(dns.message.from_wire(data))
                cut.flags |= dns.flags.TC
                packet = cut.to_wire()
            if self.hold is None:
                self.transport.sendto(packet, addr)
            else:
                self.waiting = asyncio.get_running_loop().create_task(self._later(packet, addr))

    async def _later(self, packet: bytes, addr: Any) -> None:
        assert self.hold is not None
        await self.hold.wait()
        self.transport.sendto(packet, addr)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.streams += 1
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        reply = self.answer(data).to_wire(max_size=65535)
        writer.write(len(reply).to_bytes(2, "big") + reply)
        await writer.drain()
        writer.close()

    def answer(self, data: bytes) -> dns.message.Message:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query, recursion_available=True)
        name, rtype = query.question[0].name, query.question[0].rdtype
        response.set_rcode(self.rcode)
        if self.rcode != dns.rcode.NOERROR:
            return response
        text = name.to_text().lower()
        if text == "legacy.example.test." and rtype == 1:
            response.answer.append(dns.rrset.from_text(name, 300, "IN", "CNAME", "real.example.test."))
            response.answer.append(dns.rrset.from_text("real.example.test.", 60, "IN", "A", "192.0.2.7"))
        elif text == "large.example.test.":
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *(f"192.0.2.{i}" for i in range(1, 120))))
        elif text.startswith("nodata."):
            response.authority.append(dns.rrset.from_text("example.test.", 300, "IN", "SOA", SOA))
        elif text.startswith("short."):
            response.answer.append(dns.rrset.from_text(name, 1, "IN", "A", "192.0.2.9"))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
            response.authority.append(dns.rrset.from_text("example.test.", 300, "IN", "SOA", SOA))
        return response


@asynccontextmanager
async def upstream_server() -> AsyncIterator[Upstream]:
    loop = asyncio.get_running_loop()
    for _ in range(20):
        upstream = Upstream()
        server = await asyncio.start_server(upstream.stream, "127.0.0.1", 0)
        upstream.port = server.sockets[0].getsockname()[1]
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: upstream,  # noqa: B023 - used at once
                local_addr=("127.0.0.1", upstream.port),
            )
        except OSError:
            server.close()
            continue
        try:
            yield upstream
        finally:
            transport.close()
            server.close()
        return
    raise RuntimeError("no port is free for both UDP and TCP")


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with upstream_server() as made:
        yield made


class Running:
    """A running server and questions to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address = server.addresses[0]

    async def ask(self, name: str, rtype: str = "A", *, tcp: bool = False, **options: Any) -> dns.message.Message:
        full = name if name.endswith(".") else f"{name}.cluster.local."
        query = dns.message.make_query(full, rtype, **options)
        send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        # Compares id and question, case included.
        return await send(query, self.address.host, timeout=10, port=self.address.port)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Running]:
    """A server without an API behind it: a cluster of a few Services, filled by hand."""
    server = Server(Config(**{"listen": ("127.0.0.1:0",), "reverse_cidrs": ("10.96.0.0/16",), **options}))
    ready = asyncio.Event()
    async with task_set() as tasks:
        tasks.start(server.run(None, ready.set))
        async with asyncio.timeout(10):
            await ready.wait()
        fill(
            server.table,
            [
                service("web", "10.96.0.20"),
                service("big"),
                part("big", *(f"10.244.0.{i + 1}" for i in range(100))),
                service("legacy", external="legacy.example.test"),
                service("gone", external="nothing.example.test"),
            ],
        )
        yield Running(server)


@pytest.fixture
def start() -> Any:
    """`async with start(**config) as dns`"""
    return running


@pytest.fixture
def start_upstream() -> Any:
    return upstream_server


@pytest.fixture
def until() -> Any:
    async def wait(condition: Callable[[], Awaitable[Any]], *, deadline_s: float = 10.0) -> Any:
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            if result := await condition():
                return result
            await asyncio.sleep(0.002)
        raise AssertionError("the condition did not come true in time")

    return wait
