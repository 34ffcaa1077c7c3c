"""Asking the upstream servers: UDP first, TCP where UDP cannot be trusted or is too small, the next server on failure.

The last link of the chain. Every query has a socket of its own, connected to its server, with a port that the kernel
chose, an id and a letter case that chance chose: what a forger has to guess is all of them. A server that failed twice
in a row rests for a while; resting servers are tried last, so there is no state in which nobody is asked.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from pilotage.dns.core.record import Rcode
from pilotage.dns.core.upstream import Reply, accept, failure, judge, upstream_query
from pilotage.dns.core.wire import Query
from pilotage.dns.metrics import UPSTREAM_SECONDS
from pilotage.kit.backoff import Backoff
from pilotage.kit.clock import Clock

FAILURES_BEFORE_REST = 2
_REST = Backoff(initial_s=0.5, max_s=15.0)


@dataclass(frozen=True, slots=True)
class Address:
    """One upstream."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(slots=True)
class Upstream:
    """An address with its health."""

    address: Address
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0

    def succeeded(self) -> None:
        self.failures = 0
        self.rests_until = 0.0

    def failed(self, now: float) -> None:
        self.failures += 1
        if self.failures >= FAILURES_BEFORE_REST:
            self.rests_until = now + _REST.delay_s(self.failures - FAILURES_BEFORE_REST + 1)


class Forward:
    """Ask in the order given, healthy ones first, each once, until one answers."""

    def __init__(self, addresses: Sequence[Address], clock: Clock, *, attempt_timeout_s: float) -> None:
        self.upstreams = [Upstream(address) for address in addresses]
        self._clock = clock
        self._attempt_timeout_s = attempt_timeout_s

    async def __call__(self, query: Query) -> Reply:
        """The first upstream's answer; REFUSED without any upstream, SERVFAIL when none answered."""
        if not self.upstreams:
            return failure(query, Rcode.REFUSED)
        now = self._clock.monotonic()
        refusal: Reply | None = None
        for upstream in sorted(self.upstreams, key=lambda u: u.rests_until > now):  # stable: keeps the order given
            started = self._clock.monotonic()
            try:
                reply = await self._ask(upstream.address, query)
            except (OSError, TimeoutError, ValueError, EOFError):
                upstream.failed(self._clock.monotonic())
                UPSTREAM_SECONDS.labels(str(upstream.address), "failed").observe(self._clock.monotonic() - started)
                continue
            upstream.succeeded()
            UPSTREAM_SECONDS.labels(str(upstream.address), "answered").observe(self._clock.monotonic() - started)
            if reply.rcode in (Rcode.SERVFAIL, Rcode.REFUSED, Rcode.NOTIMP):
                refusal = refusal or reply  # alive, but of no help: another may know
                continue
            return reply
        return refusal or failure(query, Rcode.SERVFAIL)

    async def _ask(self, address: Address, query: Query) -> Reply:
        sent = upstream_query(query, secrets.randbits(16), secrets.randbits(256))
        async with asyncio.timeout(self._attempt_timeout_s):
            received = await _by_datagram(address, sent)
            if received is None:
                received = await _by_stream(address, sent)
        return accept(sent, received)


class _Exchange(asyncio.DatagramProtocol):
    """Waits for the one packet that answers `sent`; others are ignored."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent
        self.answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.DatagramTransport, transport).sendto(self._sent)

    def datagram_received(self, data: bytes, addr: object) -> None:
        verdict = judge(self._sent, data)
        if verdict.ours and not self.answer.done():
            self.answer.set_result(None if verdict.retry_by_stream else data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError("socket closed"))


async def _by_datagram(address: Address, sent: bytes) -> bytes | None:
    """The answer; None when it must be asked for by stream."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Exchange(sent), remote_addr=(address.host, address.port)
    )
    try:
        return await protocol.answer
    finally:
        protocol.answer.cancel()
        transport.close()


async def _by_stream(address: Address, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(len(sent).to_bytes(2, "big") + sent)
        length = int.from_bytes(await reader.readexactly(2), "big")
        received = await reader.readexactly(length)
    finally:
        writer.close()
    if not judge(sent, received).ours:
        raise ValueError("the answer is to another question")
    return received
