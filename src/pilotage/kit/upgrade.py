"""An HTTP connection after `101 Switching Protocols`: bytes both ways, whatever the new protocol is (RFC 9110 §7.8).

Stands apart because aiohttp's server knows one upgrade, WebSocket, and hands out no other; here the one seam it offers
(the parser of what follows a request) is used for any. Called by whoever relays or speaks a protocol after an upgrade.
Leaves out half-closed connections: TLS has none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, cast

from aiohttp import web

# Read ahead of the handler; the connection is not read further while this much waits.
BUFFER_BYTES_MAX = 256 * 1024


class _SwitchingProtocols(web.StreamResponse):
    """A response whose body is a protocol of its own: neither counted nor chunked."""

    _length_check = False


class _Incoming:
    """What aiohttp takes for the parser of a payload: collects what arrives."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._paused = False
        self._waiting: asyncio.Future[None] | None = None

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._chunks.append(bytes(data))
        self._size += len(data)
        if self._size >= BUFFER_BYTES_MAX and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()
        return False, b""

    def feed_eof(self) -> None:
        self._ended = True
        self._wake()

    def set_exception(self, error: BaseException, cause: BaseException | None = None) -> None:
        self.feed_eof()

    async def read(self) -> bytes:
        while not self._chunks:
            if self._ended:
                return b""
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        return data

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class UpgradedConnection:
    """The connection of a request that was answered with 101. One reader, one writer at a time."""

    def __init__(self, response: web.StreamResponse, incoming: _Incoming) -> None:
        self._incoming = incoming
        self.response = response  # what the request's handler must return in the end; the connection closes then

    async def read(self) -> bytes:
        """Some bytes; none at the end of the connection."""
        return await self._incoming.read()

    async def write(self, data: bytes) -> None:
        """Waits while the peer is slow. Raises ConnectionError when it has gone."""
        await self.response.write(data)


async def switch_protocols(request: web.BaseRequest, headers: Mapping[str, str]) -> UpgradedConnection:
    """Answer 101 with these headers (`Upgrade` among them; `Connection` is added) and take the connection over.

    Raises ConnectionResetError when the client has already gone.
    """
    if request.transport is None:
        raise ConnectionResetError("the client has gone")
    response = _SwitchingProtocols(status=101, headers={**headers, "Connection": "Upgrade"})
    response.force_close()
    incoming = _Incoming(request.transport)
    # Before the answer: the client may send as soon as it has it.
    request.protocol.set_parser(cast(Any, incoming))
    await response.prepare(request)
    return UpgradedConnection(response, incoming)
