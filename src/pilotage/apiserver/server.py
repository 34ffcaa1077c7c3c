"""The API server's composition and life: open the store, load the cache, serve, drain, close.

Stands apart as the only module that knows all the parts. Sockets are handed in already listening, because `up` opens
some of them in another network namespace; standing alone it opens its own. `run` returns when it is cancelled, after
watches have ended and the store is closed; a restart finds everything as it was acknowledged.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from pilotage.apiserver.admission.service_addresses import NODE_PORTS
from pilotage.apiserver.assembly import assemble
from pilotage.apiserver.bootstrap import Place, bootstrap
from pilotage.apiserver.cache import Cache
from pilotage.apiserver.certificates import Authority, load_or_create_signing_key, write_kubeconfig
from pilotage.apiserver.expiry import expire_events
from pilotage.apiserver.quota_status import publish_quotas
from pilotage.apiserver.tls import agent_context, server_context
from pilotage.apiserver.watches import tick_bookmarks
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.tasks import task_set
from pilotage.storage import Backend, open_backend

BOOKMARK_INTERVAL_S = 1.0
QUIET_BOOKMARK_INTERVAL_S = 60.0
# How long open requests may finish after watches have been ended.
SHUTDOWN_S = 2.0
# Connections that wait to be accepted: a cluster that reconnects at once is a few hundred.
BACKLOG = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the server is told from outside."""

    data_dir: Path  # pki/, admin.kubeconfig
    storage: str = "memory:"  # or sqlite:PATH, or etcd:URL
    listen: tuple[str, int] | None = None  # None: only the sockets handed to `run`
    advertise: tuple[str, int] | None = None  # where nodes and pods reach the server; None: the first socket
    service_cidr: str = "10.96.0.0/16"  # or IPV4,IPV6 or IPV6,IPV4; the very first address is that of `kubernetes`
    node_ports: tuple[int, int] = NODE_PORTS  # first and last
    cluster_domain: str = "cluster.local"
    names: tuple[str, ...] = ()  # further DNS names of the serving certificate
    clock: Clock = SYSTEM_CLOCK

    @property
    def service_cidrs(self) -> tuple[str, ...]:
        """The ranges of Services, the primary family's first."""
        return tuple(part.strip() for part in self.service_cidr.split(","))


async def run(
    config: Config, *, sockets: Sequence[socket.socket] = (), on_ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until cancelled. `sockets` are listening TCP sockets; they are closed at the end."""
    listening = list(sockets)
    try:
        if config.listen is not None:
            family = socket.AF_INET6 if ":" in config.listen[0] else socket.AF_INET
            listening.append(socket.create_server(config.listen, family=family, backlog=BACKLOG))
        if not listening:
            raise ValueError("the API server needs an address to listen on or a socket")
        backend = await open_backend(config.storage)
        try:
            with _rare_collections():
                await _serve(config, listening, backend, on_ready)
        finally:
            await backend.close()
    finally:
        for each in listening:
            each.close()


async def _serve(
    config: Config, sockets: Sequence[socket.socket], backend: Backend, on_ready: Callable[[], None]
) -> None:
    pki = config.data_dir / "pki"
    authority = Authority.load_or_create(pki, clock=config.clock)
    tls = server_context(authority, pki, config.cluster_domain, _addresses(config, sockets), config.names)
    cache = Cache(backend)
    await cache.load()
    parts = assemble(
        backend=backend,
        cache=cache,
        authority=authority,
        signing_key=load_or_create_signing_key(pki / "sa.key"),
        agent_tls=lambda: agent_context(authority, pki),
        service_cidrs=config.service_cidrs,
        node_ports=config.node_ports,
        address=_url(sockets[0]).removeprefix("https://"),
        clock=config.clock,
    )
    async with parts.streams, parts.proxy, task_set() as tasks:
        tasks.start(cache.run(), name="cache")
        tasks.start(tick_bookmarks(cache, BOOKMARK_INTERVAL_S, QUIET_BOOKMARK_INTERVAL_S), name="bookmarks")
        await bootstrap(parts.registry, config.clock, _place(config, sockets[0]))
        tasks.start(parts.definitions.run(), name="definitions")
        tasks.start(parts.signer.run(), name="certificates")
        tasks.start(parts.ranges.run(), name="service ranges")
        if not backend.leases:
            tasks.start(expire_events(parts.registry, config.clock), name="events")
        tasks.start(publish_quotas(parts.registry, parts.quotas, config.clock), name="quotas")
        server = web.Server(parts.front.handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            for each in sockets:
                await web.SockSite(runner, each, ssl_context=tls).start()
            _write_kubeconfig(config, authority, _url(sockets[0]))
            tasks.start(parts.api_services.run(), name="API services")  # not before clients: they need none of them
            on_ready()
            await asyncio.Event().wait()
        finally:
            parts.front.drain()
            await runner.cleanup()
            await parts.dynamic.close()


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let the cycle collector run rarely: it walks every object in memory, and documents, being trees, hold no cycles.

    With ten thousand pods this spares a quarter of the processor time of every request.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _url(first: socket.socket) -> str:
    """Where a client on this machine reaches the socket."""
    host, port = first.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _place(config: Config, first: socket.socket) -> Place:
    """What the `kubernetes` Service leads to."""
    host, port = config.advertise or first.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return Place(service_cidr=config.service_cidrs[0], host=host, port=port)


def _addresses(config: Config, sockets: Sequence[socket.socket]) -> list[str]:
    """Every address the serving certificate must name."""
    service = ipaddress.ip_network(config.service_cidrs[0])[1]
    hosts = [str(service), *(each.getsockname()[0] for each in sockets)]
    if config.advertise is not None:
        hosts.append(config.advertise[0])
    return [host for host in hosts if not ipaddress.ip_address(host).is_unspecified]


def _write_kubeconfig(config: Config, authority: Authority, url: str) -> None:
    admin = authority.issue_client("kubernetes-admin", ("system:masters",))
    write_kubeconfig(
        config.data_dir / "admin.kubeconfig",
        server=url,
        ca_pem=authority.certificate_pem,
        certificate_pem=admin.certificate_pem,
        key_pem=admin.key_pem,
        user="kubernetes-admin",
    )
