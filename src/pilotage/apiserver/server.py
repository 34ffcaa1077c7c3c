"""The API server's composition and life: open the store, load the cache, serve, drain, close.

Stands apart as the only module that knows all the parts. Sockets are handed in already listening, because `up` opens
some of them in another network namespace; standing alone it opens its own. `run` returns when it is cancelled, after
watches have ended and the store is closed; a restart finds everything as it was acknowledged.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from pilotage.apiserver.admission import Admission, ServiceAddresses
from pilotage.apiserver.admission.service_addresses import NODE_PORTS
from pilotage.apiserver.authentication import Authenticator, ServiceAccountTokens
from pilotage.apiserver.authorization import Authorizer
from pilotage.apiserver.bootstrap import Place, bootstrap
from pilotage.apiserver.cache import Cache
from pilotage.apiserver.certificates import Authority, load_or_create_signing_key, write_kubeconfig
from pilotage.apiserver.documents import CachedDocuments
from pilotage.apiserver.front import Front, Handler
from pilotage.apiserver.gate import Gate
from pilotage.apiserver.pipeline import Pipeline
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.resources import Resources
from pilotage.apiserver.reviews import Reviews
from pilotage.apiserver.root import Root
from pilotage.apiserver.store import ObjectStore
from pilotage.apiserver.streams import Streams
from pilotage.apiserver.subresources import Subresources
from pilotage.apiserver.tls import agent_context, server_context
from pilotage.apiserver.watches import tick_bookmarks
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.tasks import task_set
from pilotage.storage import open_backend

BOOKMARK_INTERVAL_S = 1.0
QUIET_BOOKMARK_INTERVAL_S = 60.0
# How long open requests may finish after watches have been ended.
SHUTDOWN_S = 2.0
_SCALED = (
    ("", "replicationcontrollers"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the server is told from outside."""

    data_dir: Path  # pki/, admin.kubeconfig
    storage: str = "memory:"  # or sqlite:PATH
    listen: tuple[str, int] | None = None  # None: only the sockets handed to `run`
    advertise: tuple[str, int] | None = None  # where nodes and pods reach the server; None: the first socket
    service_cidr: str = "10.96.0.0/16"  # the first address belongs to the `kubernetes` Service
    node_ports: tuple[int, int] = NODE_PORTS  # first and last
    cluster_domain: str = "cluster.local"
    names: tuple[str, ...] = ()  # further DNS names of the serving certificate
    clock: Clock = SYSTEM_CLOCK


async def run(
    config: Config, *, sockets: Sequence[socket.socket] = (), on_ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until cancelled. `sockets` are listening TCP sockets; they are closed at the end."""
    sockets = list(sockets)
    if config.listen is not None:
        sockets.append(socket.create_server(config.listen, backlog=1024))
    if not sockets:
        raise ValueError("the API server needs an address to listen on or a socket")
    pki = config.data_dir / "pki"
    authority = Authority.load_or_create(pki, clock=config.clock)
    tls = server_context(authority, pki, config.cluster_domain, _addresses(config, sockets), config.names)
    backend = await open_backend(config.storage)
    try:
        cache = Cache(backend)
        await cache.load()
        resources = Resources()
        root = Root(resources, f"{sockets[0].getsockname()[0]}", {"ping": lambda: None})
        documents = CachedDocuments(cache)
        tokens = ServiceAccountTokens(load_or_create_signing_key(pki / "sa.key"), documents)
        authenticator, authorizer = Authenticator(tokens), Authorizer(documents)
        addresses = ServiceAddresses((config.service_cidr,), config.node_ports, documents)
        admission = Admission(documents, authorizer, addresses)
        registry = Registry(ObjectStore(backend, cache), Pipeline(admission))
        cache.observe("rbac.authorization.k8s.io", None, authorizer.observe)
        cache.observe("", "pods", authorizer.observe)
        cache.observe("", "services", admission.observe)
        gate = Gate(authenticator, authorizer)
        reviews = Reviews(registry, authenticator, authorizer, tokens)
        streams = Streams(registry, lambda: agent_context(authority, pki))
        front = Front(
            gate=gate,
            resources=resources,
            registry=registry,
            root=root,
            subresources=handlers(Subresources(registry), streams, reviews),
            virtual=questions(Subresources(registry), reviews),
            clock=config.clock,
        )
        async with streams, task_set() as tasks:
            tasks.start(cache.run(), name="cache")
            tasks.start(tick_bookmarks(cache, BOOKMARK_INTERVAL_S, QUIET_BOOKMARK_INTERVAL_S), name="bookmarks")
            await bootstrap(registry, config.clock, _place(config, sockets[0]))
            server = web.Server(front.handle, handler_cancellation=True, access_log=None)
            runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=SHUTDOWN_S)
            await runner.setup()
            try:
                for each in sockets:
                    await web.SockSite(runner, each, ssl_context=tls).start()
                _write_kubeconfig(config, authority, _url(sockets[0]))
                on_ready()
                await asyncio.Event().wait()
            finally:
                front.drain()
                await runner.cleanup()
    finally:
        await backend.close()


def handlers(subresources: Subresources, streams: Streams, reviews: Reviews) -> dict[tuple[str, str, str], Handler]:
    """Who answers the subresources that are not plain objects: (group, plural, subresource) → handler."""
    found: dict[tuple[str, str, str], Handler] = {(*kind, "scale"): subresources.scale for kind in _SCALED}
    found |= {
        ("", "pods", "binding"): subresources.binding,
        ("", "pods", "eviction"): subresources.eviction,
        ("", "pods", "log"): streams.log,
        ("", "pods", "exec"): streams.exec,
        ("", "pods", "attach"): streams.attach,
        ("", "pods", "portforward"): streams.port_forward,
        ("", "serviceaccounts", "token"): reviews.token,
    }
    return found


def questions(subresources: Subresources, reviews: Reviews) -> dict[tuple[str, str], Handler]:
    """Who answers the resources that are only asked: (group, plural) → handler."""
    return {
        ("", "bindings"): subresources.binding,
        ("authentication.k8s.io", "tokenreviews"): reviews.token_review,
        ("authentication.k8s.io", "selfsubjectreviews"): reviews.self_review,
        ("authorization.k8s.io", "selfsubjectaccessreviews"): reviews.access_review,
        ("authorization.k8s.io", "subjectaccessreviews"): reviews.access_review,
        ("authorization.k8s.io", "localsubjectaccessreviews"): reviews.access_review,
        ("authorization.k8s.io", "selfsubjectrulesreviews"): reviews.rules_review,
    }


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
    return Place(service_cidr=config.service_cidr, host=host, port=port)


def _addresses(config: Config, sockets: Sequence[socket.socket]) -> list[str]:
    """Every address the serving certificate must name."""
    service = ipaddress.ip_network(config.service_cidr)[1]
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
