"""The Agent API: logs, exec, attach and port-forward for the API server, and nobody else.

Stands apart as the only way into this process from the network. TLS with a client certificate of the API server is
required for everything but /healthz. Paths and query parameters are the kubelet's. Leaves out stats.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pilotage.agent import port_forward
from pilotage.agent.config import Config
from pilotage.agent.core import channel, timestamps
from pilotage.agent.core.pod_spec import container_named
from pilotage.agent.logs import LogOptions, read_log
from pilotage.agent.port_forward import PORTS_MAX, Connection, Forwarder, forward_channels
from pilotage.agent.remote import SPDY_PROTOCOLS, OpenSession, SpdyWire, WebSocketWire, run_session
from pilotage.agent.spdy_session import SpdyError, SpdySession, open_carrier, wants_spdy
from pilotage.agent.worker import PodWorker
from pilotage.kit.clock import SYSTEM_CLOCK
from pilotage.network.namespaces import run_in

if TYPE_CHECKING:
    from pilotage.agent.agent import Agent

CLIENT_NAME = "kube-apiserver-kubelet-client"
PING_S = 30.0  # a client that vanished without a word is noticed after two of these
DIAL_TIMEOUT_S = 10.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serve(config: Config, agent: "Agent") -> AsyncIterator[None]:
    """Serve on the node's addresses until the block ends; nothing without a serving certificate."""
    if config.serving_cert is None or config.serving_key is None or config.client_ca is None:
        yield
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.serving_cert, config.serving_key)
    context.load_verify_locations(config.client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL  # /healthz needs none; everything else is refused without one
    runner = web.AppRunner(application(agent), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        for address in config.node_ips:
            await web.TCPSite(runner, address, config.port, ssl_context=context, reuse_address=True).start()
        yield
    finally:
        await runner.cleanup()


def application(agent: "Agent") -> web.Application:
    """The routes."""
    api = _Api(agent)
    app = web.Application(middlewares=[_require_api_server])
    app.add_routes(
        [
            web.get("/healthz", api.healthz),
            web.get("/containerLogs/{namespace}/{pod}/{container}", api.logs),
            *(
                route(path, handler)
                for path, handler in (
                    ("/exec/{namespace}/{pod}/{container}", api.execute),
                    ("/attach/{namespace}/{pod}/{container}", api.attach),
                    ("/portForward/{namespace}/{pod}", api.port_forward),
                )
                for route in (web.get, web.post)  # WebSocket begins with a GET, SPDY with a POST
            ),
        ]
    )
    return app


@web.middleware
async def _require_api_server(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path != "/healthz":
        certificate: Mapping[str, Any] | None = (
            request.transport.get_extra_info("peercert") if request.transport is not None else None
        )
        if _common_name(certificate) != CLIENT_NAME:
            raise web.HTTPUnauthorized(text="Unauthorized\n")
    return await handler(request)


def _common_name(certificate: Mapping[str, Any] | None) -> str:
    """The subject's common name of a verified certificate; empty without one."""
    if not certificate:
        return ""
    for relative_name in certificate.get("subject", ()):
        for key, value in relative_name:
            if key == "commonName":
                return str(value)
    return ""


class _Api:
    """The handlers."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent

    async def healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    # ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def logs(self, request: web.Request) -> web.StreamResponse:
        worker, name = self._container(request)
        query = request.query
        options = LogOptions(
            follow=_flag(query, "follow"),
            tail_lines=_number(query, "tailLines"),
            since=_since(query),
            timestamps=_flag(query, "timestamps"),
            limit_bytes=_number(query, "limitBytes"),
        )
        path = worker.log_path(name, previous=_flag(query, "previous"))
        if path is None:
            status = worker.waiting_reason(name)
            if _flag(query, "previous"):
                pod = worker.pod.metadata.name
                raise web.HTTPBadRequest(text=f'previous terminated container "{name}" in pod "{pod}" not found')
            raise web.HTTPBadRequest(
                text=f'container "{name}" in pod "{worker.pod.metadata.name}" is waiting to start: {status}'
            )
        container_id = worker.container_id(name)

        def ended() -> bool:
            found = self._agent.runtime.find(container_id)
            return found is None or not found.running

        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for piece in read_log(path, options, ended=ended):
                await response.write(piece)
            await response.write_eof()
        return response

    # ── streams ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def execute(self, request: web.Request) -> web.StreamResponse:
        worker, name = self._container(request)
        command = request.query.getall("command", [])
        if not command:
            raise web.HTTPBadRequest(text="you must specify at least 1 container, and 1 command")
        query = request.query
        return await _process(
            request,
            lambda: self._agent.runtime.execute(
                worker.container_id(name), command, stdin=_flag(query, "stdin"), tty=_flag(query, "tty")
            ),
        )

    async def attach(self, request: web.Request) -> web.StreamResponse:
        worker, name = self._container(request)
        return await _process(request, lambda: self._agent.runtime.attach(worker.container_id(name)), exit_code=False)

    async def port_forward(self, request: web.Request) -> web.StreamResponse:
        worker = self._pod(request)

        async def dial(port: int) -> Connection:
            return await self._dial(worker, port)

        forwarder = Forwarder(dial, worker.pod.metadata.name)
        if wants_spdy(request):
            carrier = await open_carrier(request, (port_forward.PROTOCOL,))
            with contextlib.suppress(ConnectionError, SpdyError):
                await forwarder.run(SpdySession(carrier, forwarder.accept))
            return await _closed(carrier.response)
        try:
            ports = [int(text) for text in request.query.getall("port", [])]
        except ValueError:
            ports = []
        if not 0 < len(ports) <= PORTS_MAX or not all(0 < port < 65536 for port in ports):
            raise web.HTTPBadRequest(text=f"1 to {PORTS_MAX} ports are needed, each between 1 and 65535")
        socket_ = await _web_socket(request)
        try:
            await forward_channels(socket_, ports, forwarder, dial)
        except* ConnectionError:
            pass
        return await _closed(socket_)

    async def _dial(self, worker: PodWorker, port: int) -> Connection:
        """A connection to the pod's own loopback, where kubectl port-forward ends too: by IPv4, else by IPv6."""
        namespace = None if worker.pod.spec.host_network else self._agent.network.path(worker.uid)
        try:
            return await _connect(namespace, socket.AF_INET, "127.0.0.1", port)
        except OSError as first:
            try:
                return await _connect(namespace, socket.AF_INET6, "::1", port)
            except OSError:  # the pod may have no IPv6: the first says what is wrong
                raise first from None

    # ── finding ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _pod(self, request: web.Request) -> PodWorker:
        namespace, pod = request.match_info["namespace"], request.match_info["pod"]
        worker = self._agent.worker(namespace, pod)
        if worker is None:
            raise web.HTTPNotFound(text=f'pod "{namespace}/{pod}" does not exist')
        return worker

    def _container(self, request: web.Request) -> tuple[PodWorker, str]:
        worker, name = self._pod(request), request.match_info["container"]
        try:
            container_named(worker.pod, name)
        except KeyError:
            raise web.HTTPBadRequest(text=f"container {name} is not valid for pod {worker.pod.metadata.name}") from None
        return worker, name


async def _connect(namespace: Path | None, family: socket.AddressFamily, host: str, port: int) -> Connection:
    """A connection made in a network namespace; None: in our own."""

    def make() -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        made.setblocking(False)
        return made

    connection = run_in(namespace, make) if namespace else make()
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            await asyncio.get_running_loop().sock_connect(connection, (host, port))
            return await asyncio.open_connection(sock=connection)
    except BaseException:
        connection.close()
        raise


async def _process(request: web.Request, open_session: OpenSession, *, exit_code: bool = True) -> web.StreamResponse:
    """A process's streams over whichever protocol the client speaks."""
    if wants_spdy(request):
        kinds = {kind: _flag(request.query, kind) for kind in ("stdin", "stdout", "stderr", "tty")}
        wire = SpdyWire(**kinds)
        carrier = await open_carrier(request, SPDY_PROTOCOLS)
        with contextlib.suppress(ConnectionError, SpdyError):
            await wire.run(SpdySession(carrier, wire.accept), open_session, exit_code=exit_code)
        return await _closed(carrier.response)
    socket_ = await _web_socket(request)
    with contextlib.suppress(ConnectionError):
        await run_session(WebSocketWire(socket_), open_session, exit_code=exit_code)
    return await _closed(socket_)


async def _web_socket(request: web.Request) -> web.WebSocketResponse:
    offered = {item.strip() for item in request.headers.get("Sec-WebSocket-Protocol", "").split(",")}
    if request.headers.get("Upgrade", "").lower() != "websocket" or offered.isdisjoint(channel.PROTOCOLS):
        raise web.HTTPBadRequest(text=f"this needs a WebSocket with subprotocol {channel.PROTOCOLS[0]}, or SPDY/3.1")
    opened = web.WebSocketResponse(
        protocols=channel.PROTOCOLS, heartbeat=PING_S, max_msg_size=channel.MESSAGE_BYTES_MAX
    )
    await opened.prepare(request)
    return opened


async def _closed(response: web.StreamResponse) -> web.StreamResponse:
    if isinstance(response, web.WebSocketResponse):
        await response.close()
    return response


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "") in ("true", "1", "True")


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not text.isdigit() or len(text) > 18:
        raise web.HTTPBadRequest(text=f"{name} must be a number, not {text[:40]!r}")
    return int(text)


def _since(query: Mapping[str, str]) -> float | None:
    seconds = _number(query, "sinceSeconds")
    if seconds is not None:
        return SYSTEM_CLOCK.wall().timestamp() - seconds
    text = query.get("sinceTime", "")
    if not text:
        return None
    try:
        return timestamps.from_text(text)
    except ValueError:
        raise web.HTTPBadRequest(text=f"sinceTime is no RFC 3339 time: {text[:40]!r}") from None


__all__ = ["application", "serve"]
