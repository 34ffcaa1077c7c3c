"""A component's own small HTTP endpoint: /metrics, /livez, /readyz.

Plain HTTP on a loopback or in-fabric address; carries no secrets. Readiness is a callback so that the component
decides; its reason is shown to whoever asks.
"""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pilotage.telemetry.metrics import exposition

if TYPE_CHECKING:
    from aiohttp import web


@asynccontextmanager
async def serve_health(
    bound: socket.socket, ready: Callable[[], str], pages: Mapping[str, Callable[[], bytes]] | None = None
) -> AsyncIterator[None]:
    """Serve by a bound socket until the block ends. `ready` returns "" when ready, else the reason why not.

    `pages` are further documents of the component's own, as JSON, by path.
    """
    from aiohttp import web  # here, so that a component without an endpoint does not pay for the import

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = ready()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    application = web.Application()
    application.add_routes(
        [web.get("/metrics", metrics), web.get("/livez", livez), web.get("/healthz", livez), web.get("/readyz", readyz)]
    )
    for path, page in (pages or {}).items():
        application.router.add_get(path, _page(page))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, bound).start()
        yield
    finally:
        await runner.cleanup()


def _page(content: Callable[[], bytes]) -> "Callable[[web.Request], Awaitable[web.Response]]":
    from aiohttp import web

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=content(), content_type="application/json")

    return answer
