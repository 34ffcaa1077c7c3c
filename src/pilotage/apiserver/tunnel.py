"""Upgraded connections through the server: WebSocket and SPDY between a client and an agent or a pod.

Stands apart because after the 101 nothing is understood here: the server has authorised, found the peer and passes
bytes on, so that what the two say (KEP-4006's channels, SPDY, anything a pod serves) is between them alone. Each side's
pace is the other's; nothing piles up. Called by `streams` and `proxy`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from pilotage.apiserver.core.targets import parse_response_head
from pilotage.kit.tasks import wait_any
from pilotage.kit.upgrade import UpgradedConnection, switch_protocols

CONNECT_TIMEOUT_S = 10.0
# An agent answers at once; a pod may think about an upgrade.
ANSWER_TIMEOUT_S = 60.0
# Nothing either way for so long: the kubelet's streamingConnectionIdleTimeout. A WebSocket's pings keep it alive.
IDLE_TIMEOUT_S = 4 * 3600.0
HEAD_BYTES_MAX = 64 * 1024
REFUSAL_BYTES_MAX = 64 * 1024  # of an answer that is not 101
CHUNK_BYTES = 64 * 1024


class PeerError(OSError):
    """The peer could not be reached, or answered nonsense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where a tunnel ends."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None  # None: plain TCP

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The peer did not switch protocols; its answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes  # the beginning of it


def upgrade_of(request: web.BaseRequest) -> str:
    """The protocol a request wants to change to; "" for an ordinary request."""
    tokens = {item.strip().lower() for item in request.headers.get("Connection", "").split(",")}
    return request.headers.get("Upgrade", "") if "upgrade" in tokens else ""


async def tunnel(
    request: web.BaseRequest, peer: Peer, path: str, headers: Iterable[tuple[str, str]]
) -> web.StreamResponse | Refused:
    """Ask the peer for the same upgrade, and carry bytes until either side ends. Raises PeerError before that.

    `headers` go along beside Host and the upgrade itself.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(peer.host, peer.port, ssl=peer.tls, limit=HEAD_BYTES_MAX)
            stack.callback(writer.close)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                writer.write(_head(request, peer, path, headers))
                status, answered = parse_response_head(await reader.readuntil(b"\r\n\r\n"))
                if status != 101:
                    return Refused(status=status, headers=answered, body=await _body(reader, answered))
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            number = error.errno if isinstance(error, OSError) else None
            raise PeerError(number, str(error) or "timed out") from error
        client = await switch_protocols(request, {key: value for key, value in answered if key.lower() != "connection"})
        try:
            async with asyncio.timeout(IDLE_TIMEOUT_S) as idle:
                await wait_any(_up(client, writer, idle), _down(reader, client, idle))
        except* (ConnectionError, TimeoutError, ssl.SSLError):
            pass  # either side may vanish; the other is closed now
        return client.response


def _head(request: web.BaseRequest, peer: Peer, path: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"{request.method} {path} HTTP/1.1", f"Host: {peer.authority}"]
    lines += [f"{key}: {value}" for key, value in headers]
    lines += ["Connection: Upgrade", f"Upgrade: {upgrade_of(request)}", "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


async def _body(reader: asyncio.StreamReader, headers: list[tuple[str, str]]) -> bytes:
    length = next((value for key, value in headers if key.lower() == "content-length"), "")
    if length.isdigit():
        return await reader.readexactly(min(int(length), REFUSAL_BYTES_MAX))
    return b""


async def _up(client: UpgradedConnection, writer: asyncio.StreamWriter, idle: asyncio.Timeout) -> None:
    while data := await client.read():
        writer.write(data)
        await writer.drain()
        idle.reschedule(asyncio.get_running_loop().time() + IDLE_TIMEOUT_S)


async def _down(reader: asyncio.StreamReader, client: UpgradedConnection, idle: asyncio.Timeout) -> None:
    while data := await reader.read(CHUNK_BYTES):
        await client.write(data)
        idle.reschedule(asyncio.get_running_loop().time() + IDLE_TIMEOUT_S)
