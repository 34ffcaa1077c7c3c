"""The listeners that speak TLS: DNS over TLS (RFC 7858) and over HTTPS (RFC 8484).

Apart from `server` because most servers have none. Binds at once, so that a taken port is known at the start; hands
connections to the same listeners as TCP has, after the handshake.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from pilotage.dns.accepting import Acceptor
from pilotage.dns.chain.exchange import Address, parse_address
from pilotage.dns.config import Config
from pilotage.dns.doh import HEAD_BYTES_MAX, HttpsListener
from pilotage.dns.resolver import Resolver
from pilotage.dns.sockets import Sockets
from pilotage.dns.tcp import StreamListener
from pilotage.dns.tls import Certificate
from pilotage.dns.transfer import Transfers
from pilotage.kit.tasks import TaskSet

TLS_PORT = 853
HTTPS_PORT = 443
SocketAddress = tuple[str, int]


class SecureListeners:
    """All of them; `tls` and `https` are the addresses with the ports really taken."""

    def __init__(self, config: Config, sockets: Sockets) -> None:
        """Opens sockets and reads the certificate. Raises `OSError`, `UsageError`."""
        self._certificate: Certificate | None = None
        self._tls = [sockets.open("tls", address) for address in _addresses(config.listen_tls, TLS_PORT)]
        self._https = [sockets.open("https", address) for address in _addresses(config.listen_https, HTTPS_PORT)]
        if self._tls or self._https:
            self._certificate = Certificate(config.certificate, config.key)
            self._tls_context = self._certificate.context("dot")
            self._https_context = self._certificate.context("h2", "http/1.1")
        self.tls: tuple[SocketAddress, ...] = tuple(bound.getsockname()[:2] for bound in self._tls)
        self.https: tuple[SocketAddress, ...] = tuple(bound.getsockname()[:2] for bound in self._https)

    async def start(
        self, stack: AsyncExitStack, tasks: TaskSet, resolver: Resolver, transfers: Transfers | None
    ) -> Sequence[Acceptor]:
        """Accept until `stack` ends."""
        if self._certificate is None:
            return ()
        tasks.start(self._certificate.run(), name="certificate")
        tls = Acceptor(StreamListener(resolver, transport="tls", transfers=transfers), tasks)
        https = Acceptor(HttpsListener(resolver), tasks)
        for acceptor, sockets, context in (
            (tls, self._tls, self._tls_context),
            (https, self._https, self._https_context),
        ):
            stack.callback(acceptor.close)
            for bound in sockets:
                await acceptor.start(bound, limit=HEAD_BYTES_MAX, context=context)
        return tls, https

    def look(self) -> None:
        """Read the certificate again now, if it changed."""
        if self._certificate is not None:
            self._certificate.look()


def _addresses(texts: Sequence[str], port: int) -> list[Address]:
    return [parse_address(text, default_port=port) for text in texts]
