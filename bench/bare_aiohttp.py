"""Peer of the API server: aiohttp's low-level server over the same TLS, answering from memory. Prints its port.

Usage: python -m bench.bare_aiohttp DATA_DIR SIZE, where DATA_DIR is an API server's (for its keys) and SIZE the bytes
of every answer. What is sent to it goes as it is, a line, to everyone who has asked for a watch: it parses, checks and
keeps nothing, so that its delay is what the protocol costs.
"""

import asyncio
import socket
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from pilotage.apiserver.certificates import Authority
from pilotage.apiserver.tls import server_context


async def main(data_dir: Path, size: int) -> None:
    body = b'"' + b"x" * (size - 2) + b'"'

    watchers: list[web.StreamResponse] = []
    latest = b""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal latest
        if "watch" in request.query:
            watcher = web.StreamResponse()
            await watcher.prepare(request)
            await watcher.write(latest)
            watchers.append(watcher)
            await asyncio.Event().wait()
        if request.method != "GET":
            latest = await request.read() + b"\n"
            for watcher in watchers:
                await watcher.write(latest)
        return web.Response(body=body, content_type="application/json")

    pki = data_dir / "pki"
    context = server_context(Authority.load_or_create(pki), pki, "cluster.local", ["127.0.0.1"], ())
    runner = web.ServerRunner(web.Server(answer, access_log=None), handle_signals=False)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    await web.SockSite(runner, listening, ssl_context=context).start()
    print(listening.getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2])))
