"""A component's own small HTTP endpoint: /metrics, /livez, /readyz.

Plain HTTP on a loopback or in-fabric address; carries no secrets. Readiness is a callback so that the component
decides; its reason is shown to whoever asks.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pilotage.telemetry.metrics import exposition


@asynccontextmanager
async def serve_health(host: str, port: int, ready: Callable[[], str]) -> AsyncIterator[int]:
    """Serve until the block ends; yields the port. `ready` returns "" when ready, else the reason why not."""
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
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
