"""The API server's composition and life: open the store, load the cache, serve, drain, close.

Stands apart as the only module that knows all the parts. Sockets are handed in already listening, because `up` opens
some of them in another network namespace; standing alone it opens its own. `run` returns when it is cancelled, after
watches have ended and the store is closed; a restart finds everything as it was acknowledged.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from pilotage.apiserver.bootstrap import bootstrap
from pilotage.apiserver.cache import Cache
from pilotage.apiserver.front import Front
from pilotage.apiserver.gate import Gate
from pilotage.apiserver.pipeline import Pipeline
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.resources import Resources
from pilotage.apiserver.root import Root
from pilotage.apiserver.store import ObjectStore
from pilotage.apiserver.watches import tick_bookmarks
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.tasks import task_set
from pilotage.storage import open_backend

BOOKMARK_INTERVAL_S = 1.0
QUIET_BOOKMARK_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the server is told from outside."""

    data_dir: Path  # pki/, admin.kubeconfig
    storage: str = "memory:"  # or sqlite:PATH
    listen: tuple[str, int] | None = None  # None: only the sockets handed to `run`
    advertise: tuple[str, int] | None = None  # where pods reach the server; None: the first listening address
    clock: Clock = SYSTEM_CLOCK


async def run(
    config: Config, *, sockets: Sequence[socket.socket] = (), on_ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until cancelled. `sockets` are listening TCP sockets; they are closed at the end."""
    sockets = list(sockets)
    if config.listen is not None:
        sockets.append(socket.create_server(config.listen, backlog=1024))
    backend = await open_backend(config.storage)
    try:
        cache = Cache(backend)
        await cache.load()
        resources = Resources()
        registry = Registry(ObjectStore(backend, cache), Pipeline())
        root = Root(resources, f"{sockets[0].getsockname()[0]}", {"ping": lambda: None})
        gate = Gate()
        front = Front(
            gate=gate,
            resources=resources,
            registry=registry,
            root=root,
            subresources={},
            virtual={},
            clock=config.clock,
        )
        async with task_set() as tasks:
            tasks.start(cache.run(), name="cache")
            tasks.start(tick_bookmarks(cache, BOOKMARK_INTERVAL_S, QUIET_BOOKMARK_INTERVAL_S), name="bookmarks")
            await bootstrap(registry, config.clock, gate.authenticate(None, config.clock.wall()))  # type: ignore[arg-type]
            server = web.Server(front.handle, handler_cancellation=True, access_log=None)
            runner = web.ServerRunner(server, handle_signals=False)
            await runner.setup()
            try:
                for each in sockets:
                    await web.SockSite(runner, each, shutdown_timeout=2.0).start()
                _write_kubeconfig(config, sockets[0])
                on_ready()
                await asyncio.Event().wait()
            finally:
                front.drain()
                await runner.cleanup()
    finally:
        await backend.close()


def _write_kubeconfig(config: Config, first: socket.socket) -> None:
    import json

    host, port = first.getsockname()[:2]
    config.data_dir.mkdir(parents=True, exist_ok=True)
    (config.data_dir / "admin.kubeconfig").write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "pilotage",
                "clusters": [{"name": "pilotage", "cluster": {"server": f"http://{host}:{port}"}}],
                "contexts": [{"name": "pilotage", "context": {"cluster": "pilotage", "user": "kubernetes-admin"}}],
                "users": [{"name": "kubernetes-admin", "user": {}}],
            }
        )
    )
