"""Accepting connections, by TLS or plain, in a way that can end without forgetting any.

Apart from the listeners because all that speak streams share it. `asyncio.start_server` would do, if it told how many
connections it has accepted and not yet handed over: those in their handshake are somebody's question, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Protocol
from weakref import WeakKeyDictionary

from pilotage.dns.tls import HANDSHAKE_TIMEOUT_S
from pilotage.kit.tasks import TaskSet

BACKLOG = 512
ACCEPT_TURNS = 10
"""Turns of the loop in which asyncio makes a protocol of what it has accepted; it needs two."""


class Listener(Protocol):
    """What is done with connections."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection until it ends."""

    def leave(self) -> None:
        """End connections as soon as their peers lose nothing by it."""


class Acceptor:
    """Hands the connections of some sockets to one listener."""

    def __init__(self, listener: Listener, tasks: TaskSet) -> None:
        self._listener = listener
        self._tasks = tasks
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._arriving: WeakKeyDictionary[_Arriving, float] = WeakKeyDictionary()  # → when it was accepted
        self._serving = 0

    async def start(self, bound: socket.socket, *, limit: int, context: ssl.SSLContext | None = None) -> None:
        """Accept until `stop` or `close`; `limit` is the reader's, in bytes."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Arriving(self, limit),
            sock=bound,
            backlog=BACKLOG,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if context else None,
        )
        self._sockets.append(bound)
        self._servers.append(server)

    @property
    def busy(self) -> int:
        """Connections, those in their handshake included."""
        latest = asyncio.get_running_loop().time() - HANDSHAKE_TIMEOUT_S
        return self._serving + sum(accepted > latest for accepted in self._arriving.values())

    async def stop(self) -> None:
        """Accept no more, and let what is open come to its end."""
        loop = asyncio.get_running_loop()
        for bound in self._sockets:
            with contextlib.suppress(RuntimeError):  # uvloop accepts and makes the protocol in one turn
                loop.remove_reader(bound.fileno())
        for _ in range(ACCEPT_TURNS):  # asyncio forgets what has no protocol yet when it is closed
            await asyncio.sleep(0)
        self.close()
        self._listener.leave()

    def close(self) -> None:
        """Accept no more."""
        for server in self._servers:
            server.close()

    def arrived(self, protocol: _Arriving) -> None:
        self._arriving[protocol] = asyncio.get_running_loop().time()

    def connected(self, protocol: _Arriving) -> None:
        self._arriving.pop(protocol, None)

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving += 1
        self._tasks.start(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._listener.serve(reader, writer)
        finally:
            self._serving -= 1


class _Arriving(asyncio.StreamReaderProtocol):
    """A connection, known from the moment that it is accepted; `connection_made` comes after the handshake."""

    def __init__(self, acceptor: Acceptor, limit: int) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(asyncio.StreamReader(limit=limit, loop=loop), acceptor.serve, loop=loop)
        self._acceptor = acceptor
        acceptor.arrived(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._acceptor.connected(self)
        super().connection_made(transport)
