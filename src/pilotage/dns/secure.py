"""The listeners that speak TLS: DNS over TLS (RFC 7858) and over HTTPS (RFC 8484).

Apart from `server` because most servers have none. Binds at once, so that a taken port is known at the start; hands
connections to the same listeners as TCP has, after the handshake.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from pilotage.dns.config import Config
from pilotage.dns.doh import HEAD_BYTES_MAX, HttpsListener
from pilotage.dns.resolver import Resolver
from pilotage.dns.tcp import StreamListener
from pilotage.dns.tls import HANDSHAKE_TIMEOUT_S, Certificate
from pilotage.dns.transfer import Transfers
from pilotage.kit.tasks import TaskSet

TLS_PORT = 853
HTTPS_PORT = 443
BACKLOG = 512
SocketAddress = tuple[str, int]
_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class SecureListeners:
    """All of them; `tls` and `https` are the addresses with the ports really taken."""

    def __init__(self, config: Config, tls: Sequence[SocketAddress], https: Sequence[SocketAddress]) -> None:
        """Binds and reads the certificate. Raises `OSError`, `UsageError`."""
        self._certificate: Certificate | None = None
        self._tls: list[socket.socket] = []
        self._https: list[socket.socket] = []
        try:
            for addresses, sockets in ((tls, self._tls), (https, self._https)):
                for host, port in addresses:
                    sockets.append(_bind(host, port, reuse_port=config.reuse_port))
            if self._tls or self._https:
                self._certificate = Certificate(config.certificate, config.key)
                self._tls_context = self._certificate.context("dot")
                self._https_context = self._certificate.context("h2", "http/1.1")
        except BaseException:
            self.close()
            raise
        self.tls: tuple[SocketAddress, ...] = tuple(bound.getsockname()[:2] for bound in self._tls)
        self.https: tuple[SocketAddress, ...] = tuple(bound.getsockname()[:2] for bound in self._https)

    async def start(
        self, stack: AsyncExitStack, tasks: TaskSet, resolver: Resolver, transfers: Transfers | None
    ) -> None:
        """Accept until `stack` ends."""
        if self._certificate is None:
            return
        tasks.start(self._certificate.run(), name="certificate")
        streams = StreamListener(resolver, transport="tls", transfers=transfers)
        https = HttpsListener(resolver)
        for sockets, context, serve in (
            (self._tls, self._tls_context, streams.serve),
            (self._https, self._https_context, https.serve),
        ):
            for bound in sockets:
                server = await asyncio.start_server(
                    _starter(tasks, serve),
                    sock=bound,
                    backlog=BACKLOG,
                    limit=HEAD_BYTES_MAX,
                    ssl=context,
                    ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                )
                stack.callback(server.close)

    def look(self) -> None:
        """Read the certificate again now, if it changed."""
        if self._certificate is not None:
            self._certificate.look()

    def close(self) -> None:
        for bound in (*self._tls, *self._https):
            bound.close()


def _starter(tasks: TaskSet, serve: _Serve) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.start(one(reader, writer))

    return accept


def _bind(host: str, port: int, *, reuse_port: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if bound.family is socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
