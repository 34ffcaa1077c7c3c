"""Relays TCP from listening sockets that were opened elsewhere to addresses that only this process can reach.

The cluster's gateway listens inside the fabric's network namespace; the user's browser is outside. A socket keeps the
namespace it was created in, so sockets opened on the host's loopback and handed to a process of the fabric join the
two. Stands apart from the gateway: it knows bytes only. Called by the composition root. Leaves out the client's
address (every client is the host itself) and any look at the content.
"""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from pilotage.gateway.metrics import FORWARD_REFUSED, FORWARDED
from pilotage.kit import Backoff
from pilotage.kit.tasks import TaskSet, task_set

CONNECTIONS_MAX = 4096  # relayed at once by one process; beyond it new ones are closed at once
BUFFER_BYTES = 256 * 1024  # held for a receiver that is slower than its sender, in each direction
CONNECT_TIMEOUT_S = 5.0  # a client is kept waiting this long for a target that is just being restarted
_RETRY = Backoff(initial_s=0.02, max_s=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Connections accepted on `listener` (bound, owned by the forwarder from here on) go to `target`."""

    listener: socket.socket
    target: tuple[str, int]


async def forward(forwards: Sequence[Forward]) -> None:
    """Relay until cancelled; then every connection is dropped and every listener closed."""
    loop = asyncio.get_running_loop()
    servers: list[asyncio.Server] = []
    relays: set[_Client] = set()
    try:
        async with task_set() as tasks:
            for item in forwards:
                item.listener.setblocking(False)
                factory = partial(_Client, item.target, tasks, relays)
                servers.append(await loop.create_server(factory, sock=item.listener, backlog=1024))
            await asyncio.Event().wait()
    finally:
        for server in servers:
            server.close()
        for relay in tuple(relays):
            relay.abort()


class _End(asyncio.Protocol):
    """One side of a relayed connection; whatever arrives here goes to `peer`."""

    def __init__(self, peer: "_End | None" = None) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer = peer
        self.ended = False  # it will send no more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        """The sender is done; its receiver learns it and may still answer (half-close)."""
        self.ended = True
        if self.transport is not None and self.peer is not None and self.peer.transport is not None:
            with contextlib.suppress(OSError):  # the receiver left in this very moment
                self.peer.transport.write_eof()
            if self.peer.ended:  # both are done: close, which flushes
                self.peer.transport.close()
                self.transport.close()
        return True

    def pause_writing(self) -> None:
        """Our receiver is slow: stop reading from its sender."""
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        transport = self.peer.transport if self.peer is not None else None
        if transport is not None:
            if error is None:
                transport.close()  # flushes what is buffered
            else:
                transport.abort()  # a reset stays a reset


class _Client(_End):
    """The side that was accepted; what it says before the target answered is kept.

    It is asked to wait, but an event loop may have read once by then (uvloop starts reading after `connection_made`).
    """

    def __init__(self, target: tuple[str, int], tasks: TaskSet, relays: "set[_Client]") -> None:
        super().__init__()
        self._target = target
        self._tasks = tasks
        self._relays = relays
        self._early: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            super().data_received(data)
            return
        self._early.append(data)
        if self.transport is not None:
            self.transport.pause_reading()  # bounds what is kept to one read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        if len(self._relays) >= CONNECTIONS_MAX:
            FORWARD_REFUSED.labels(reason="limit").inc()
            self.transport.abort()
            return
        self._relays.add(self)
        FORWARDED.set(len(self._relays))
        self.transport.pause_reading()
        self._tasks.start(self._connect(), key=self)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._tasks.cancel(self)  # it may still be connecting
        self._relays.discard(self)
        FORWARDED.set(len(self._relays))

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.abort()

    async def _connect(self) -> None:
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        failures = 0
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                while True:
                    try:
                        # It knows its peer from the start: an HTTP/2 server speaks before it is spoken to.
                        _, end = await loop.create_connection(partial(_End, self), *self._target)
                        break
                    except OSError:
                        failures += 1
                        await asyncio.sleep(_RETRY.delay_s(failures))
        except TimeoutError:
            FORWARD_REFUSED.labels(reason="target").inc()
            self.transport.abort()
            return
        self.peer = end
        if self.transport.is_closing():
            self.abort()
            return
        if self._early and end.transport is not None:
            end.transport.write(b"".join(self._early))
            self._early.clear()
        if self.ended:
            self.eof_received()
        self.transport.resume_reading()
