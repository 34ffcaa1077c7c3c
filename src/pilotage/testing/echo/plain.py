"""TCP and UDP echo: each line, and each datagram, is answered by one JSON line.

Fed by the sockets that `server` opens. Lines rather than raw bytes, so that the answer can say who gave it; a client
that wants its bytes back finds them under `echo`.
"""

from __future__ import annotations

import asyncio
import json
from typing import cast

from pilotage.testing.echo.identity import Identity, Json

LINE_BYTES_MAX = 64 * 1024
"""A line that reaches this without an end closes the connection."""
IDLE_TIMEOUT_S = 300.0


def answer(identity: Identity, protocol: str, data: bytes, remote: str) -> bytes:
    """The JSON line that answers `data`."""
    seen: Json = {"remote": remote, "bytes": len(data)}
    text = data.decode("utf-8", "replace").rstrip("\r\n")
    body: Json = {"answered_by": identity.as_json(), "protocol": protocol, "request": seen, "echo": text}
    return json.dumps(body).encode() + b"\n"


async def serve_lines(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, identity: Identity, remote: str
) -> None:
    """Answer every line until the peer closes, is idle for too long, or sends an endless line."""
    while True:
        try:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            line = error.partial
            if not line:
                return
        except (asyncio.LimitOverrunError, TimeoutError):
            return
        writer.write(answer(identity, "tcp", line, remote))
        await writer.drain()


class DatagramEcho(asyncio.DatagramProtocol):
    """Answers each datagram to its sender."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio passes a transport that is none by inheritance (before Python 3.12), only by shape.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        # Text is escaped in JSON and may grow: cut it so that the answer is always a legal datagram.
        self._transport.sendto(answer(self._identity, "udp", data[:8192], f"{addr[0]}:{addr[1]}"), addr)
