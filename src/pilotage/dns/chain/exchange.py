"""One query to one upstream and its answer, by UDP, TCP or TLS (RFC 7858).

Apart from `forward`, which chooses whom to ask. Connections are kept for further queries, one query at a time on each:
matching answers that come out of order would save a handshake in a burst and cost the simplicity of this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from pilotage.dns.core.upstream import judge
from pilotage.kit.errors import UsageError

PORTS = {"udp": 53, "tcp": 53, "tls": 853}
KEPT_MAX = 8
"""Idle connections per server."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An upstream and how it is spoken to."""

    address: Address
    transport: str = "udp"
    """udp (with TCP for large answers), tcp or tls."""
    server_name: str = ""
    """What its certificate must say; empty: its address."""
    ca_file: str = ""
    """Authorities that may have signed it; empty: the machine's."""

    def __str__(self) -> str:
        return str(self.address) if self.transport == "udp" else f"{self.transport}://{self.address}"


def parse_address(text: str, *, default_port: int = 53) -> Address:
    """`10.0.0.1`, `10.0.0.1:53`, `[::1]:53` or `::1`. Raises `UsageError`."""
    host, port = text, str(default_port)
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        port = (rest.removeprefix(":") or port) if closed else "missing ]"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ipaddress.ip_address(host)
        number = int(port)
        if not 0 <= number <= 65535:
            raise ValueError(port)
    except ValueError as error:
        raise UsageError(f"{text!r} is not ADDRESS or ADDRESS:PORT") from error
    return Address(host, number)


def read_nameservers(path: str) -> tuple[Address, ...]:
    """The servers of a resolv.conf(5), in order. Raises `UsageError`."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    words = [line.split() for line in lines]
    return tuple(parse_address(w[1].partition("%")[0]) for w in words if len(w) >= 2 and w[0] == "nameserver")


def parse_endpoint(text: str, server_name: str = "", ca_file: str = "") -> Endpoint:
    """`[udp://|dns://|tcp://|tls://]ADDRESS[:PORT][%SERVER_NAME]`. Raises `UsageError`."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "udp", text
    scheme = "udp" if scheme == "dns" else scheme
    if scheme not in PORTS:
        raise UsageError(f"{text!r}: {scheme} is not udp, tcp or tls")
    rest, _, own_name = rest.partition("%")
    endpoint = Endpoint(parse_address(rest, default_port=PORTS[scheme]), scheme, own_name or server_name, ca_file)
    if scheme == "tls":
        _context(ca_file)
    return endpoint


@lru_cache(maxsize=16)
def _context(ca_file: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise UsageError(f"{ca_file}: {error.strerror or error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


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


async def ask_by_datagram(address: Address, sent: bytes) -> bytes | None:
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


class StreamPool:
    """Idle connections to one server."""

    def __init__(self) -> None:
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """One that seems open; None when there is none."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    def keep(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._idle) < KEPT_MAX:
            self._idle.append((reader, writer))
        else:
            writer.close()

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def ask_by_stream(endpoint: Endpoint, pool: StreamPool, sent: bytes) -> bytes:
    """The answer. A kept connection that turns out closed is replaced once. Raises OSError, EOFError, ValueError."""
    kept = pool.take()
    if kept is not None:
        with contextlib.suppress(OSError, EOFError):
            return await _converse(kept, pool, sent)
    if endpoint.transport == "tls":
        name = endpoint.server_name or endpoint.address.host
        opening = asyncio.open_connection(
            endpoint.address.host, endpoint.address.port, ssl=_context(endpoint.ca_file), server_hostname=name
        )
    else:
        opening = asyncio.open_connection(endpoint.address.host, endpoint.address.port)
    return await _converse(await opening, pool, sent)


async def _converse(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], pool: StreamPool, sent: bytes
) -> bytes:
    reader, writer = connection
    try:
        writer.write(len(sent).to_bytes(2, "big") + sent)
        length = int.from_bytes(await reader.readexactly(2), "big")
        received = await reader.readexactly(length)
        if not judge(sent, received).ours:
            raise ValueError("the answer is to another question")
    except BaseException:
        writer.close()
        raise
    pool.keep(reader, writer)
    return received
