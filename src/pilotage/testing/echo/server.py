"""The echo server: four listeners, probes, and an orderly end.

Fed by `Config` from `command`. One asyncio loop; connections are counted so that the end can wait for them.

The end, in order: readiness (HTTP and gRPC) turns off and answers ask clients to reconnect elsewhere; for `drain_s`
the listeners still accept, because endpoints travel to proxies slower than a signal to a process; then listeners
close, idle connections close, open requests get `grace_s`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from pilotage.testing.echo import plain
from pilotage.testing.echo.http import HEAD_BYTES_MAX, HttpError, Request, encode_response, read_request
from pilotage.testing.echo.identity import Identity, Json
from pilotage.testing.echo.upstream import Call, format_address, perform

if TYPE_CHECKING:
    from pilotage.testing.echo.grpc_echo import GrpcEcho

DEPTH_HEADER = "x-echo-depth"
DEPTH_MAX = 8
"""Upstreams that call each other in a circle stop here."""
PASSED_HEADERS = ("x-request-id", "traceparent", "tracestate")
IDLE_TIMEOUT_S = 300.0
CONNECTIONS_MAX = 4096
"""Further connections are closed at once; the demo's load generators stay far below."""
DELAY_MS_MAX = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What to listen on (None: not at all; 0: any free port) and whom to call."""

    identity: Identity
    address: str = ""
    """The address to listen on; empty: all, of both families."""
    http_port: int | None = None
    grpc_port: int | None = None
    tcp_port: int | None = None
    udp_port: int | None = None
    upstreams: tuple[str, ...] = ()
    upstream_timeout_s: float = 2.0
    drain_s: float = 0.0
    grace_s: float = 10.0
    log_requests: bool = True


@dataclass(slots=True)
class _Listeners:
    servers: list[asyncio.Server] = field(default_factory=list)
    datagrams: list[asyncio.DatagramTransport] = field(default_factory=list)
    grpc: GrpcEcho | None = None
    ports: dict[str, int] = field(default_factory=dict)


class EchoServer:
    """One server. `start`, then `run` until a signal, `/exit` or `stop`."""

    def __init__(self, config: Config, *, log: Callable[[Json], None] | None = None) -> None:
        self._config = config
        self._log = log or _print_line
        self._listeners = _Listeners()
        self._connections: dict[asyncio.StreamWriter, bool] = {}  # open connections; True while a request is open
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._draining = False

    @property
    def ports(self) -> dict[str, int]:
        """The ports really listened on, by protocol."""
        return self._listeners.ports

    async def start(self) -> None:
        """Open every listener. Raises `OSError` when a port is taken."""
        config, ports = self._config, self._listeners.ports
        if config.http_port is not None:
            ports["http"] = await self._listen(config.http_port, self._serve_http)
        if config.tcp_port is not None:
            ports["tcp"] = await self._listen(config.tcp_port, self._serve_tcp)
        if config.udp_port is not None:
            bound = _bind(config.address, config.udp_port, socket.SOCK_DGRAM)
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: plain.DatagramEcho(config.identity), sock=bound
            )
            self._listeners.datagrams.append(transport)
            ports["udp"] = bound.getsockname()[1]
        if config.grpc_port is not None:
            from pilotage.testing.echo.grpc_echo import GrpcEcho

            self._listeners.grpc = GrpcEcho(config.identity)
            host = f"[{config.address}]" if ":" in config.address else config.address or "[::]"
            ports["grpc"] = await self._listeners.grpc.start(f"{host}:{config.grpc_port}")

    async def run(self) -> int:
        """Serve until told to stop, then end in order; returns the exit code. A second signal ends it at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        self._log({"listening": self._listeners.ports, **self._config.identity.as_json()})
        code = await self._end
        if code:
            return code  # a crash, as asked for: nobody is waited for
        await self.stop()
        return 0

    def _signalled(self) -> None:
        if self._end.done():
            os._exit(1)
        self._end.set_result(0)

    async def stop(self) -> None:
        """End in the order the module describes. Returns when nothing is open, at most `drain_s + grace_s` later."""
        config, listeners = self._config, self._listeners
        self._draining = True
        if listeners.grpc is not None:
            await listeners.grpc.drain()
        if config.drain_s:
            await asyncio.sleep(config.drain_s)
        for server in listeners.servers:
            server.close()
        for writer, busy in list(self._connections.items()):
            if not busy:
                writer.close()
        closing: list[Awaitable[object]] = [self._quiet.wait()]
        if listeners.grpc is not None:
            closing.append(listeners.grpc.stop(config.grace_s))
        try:
            async with asyncio.timeout(config.grace_s):
                await asyncio.gather(*closing)
        except TimeoutError:
            self._log({"gave_up_on": len(self._connections)})
        for transport in listeners.datagrams:
            transport.close()
        for writer in self._connections:
            writer.close()

    async def _listen(self, port: int, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]) -> int:
        bound = _bind(self._config.address, port, socket.SOCK_STREAM)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._connections) >= CONNECTIONS_MAX:
                writer.close()
                return
            self._connections[writer] = False
            self._quiet.clear()
            try:
                result = serve(reader, writer)
                assert asyncio.iscoroutine(result)
                await result
            except (ConnectionError, TimeoutError):
                pass  # the peer left, or fell asleep: nobody is there to be told
            finally:
                del self._connections[writer]
                if not self._connections:
                    self._quiet.set()
                writer.close()

        server = await asyncio.start_server(accept, sock=bound, limit=HEAD_BYTES_MAX, backlog=1024)
        self._listeners.servers.append(server)
        port_bound: int = bound.getsockname()[1]
        return port_bound

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        remote = format_address(writer.get_extra_info("peername"))
        await plain.serve_lines(reader, writer, self._config.identity, remote)

    async def _serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        remote = format_address(writer.get_extra_info("peername"))
        while True:
            try:
                async with asyncio.timeout(IDLE_TIMEOUT_S):
                    request = await read_request(reader, writer)
            except HttpError as error:
                body = _encode({"error": str(error)})
                writer.write(encode_response(error.status, body, {"connection": "close"}))
                await writer.drain()
                return
            if request is None:
                return
            self._connections[writer] = True
            status, answer = await self._answer(request, remote)
            keep = request.keep_alive and not self._draining
            headers = {"content-type": "application/json", "connection": "keep-alive" if keep else "close"}
            head_only = request.method == "HEAD"
            writer.write(encode_response(status, _encode(answer), headers, head_only=head_only))
            await writer.drain()
            self._connections[writer] = False
            if request.path == "/exit" and not self._end.done():
                self._end.set_result(int(request.query.get("code", "1")))
            if not keep:
                return

    async def _answer(self, request: Request, remote: str) -> tuple[int, Json]:
        match request.path:
            case "/healthz":
                return HTTPStatus.OK, {"status": "ok"}
            case "/readyz":
                if self._draining:
                    return HTTPStatus.SERVICE_UNAVAILABLE, {"status": "draining"}
                return HTTPStatus.OK, {"status": "ready"}
            case "/exit":
                if not request.query.get("code", "1").isdecimal():
                    return HTTPStatus.BAD_REQUEST, {"error": "code is a number"}
                return HTTPStatus.OK, {"exiting": self._config.identity.as_json()}
        started = time.perf_counter()
        status, answer = await self._echo(request, remote)
        if self._config.log_requests:
            self._log(
                {
                    "method": request.method,
                    "path": request.path,
                    "host": request.headers.get("host", ""),
                    "remote": remote,
                    "status": status,
                    "duration_ms": round((time.perf_counter() - started) * 1000, 3),
                }
            )
        return status, answer

    async def _echo(self, request: Request, remote: str) -> tuple[int, Json]:
        try:
            status = int(request.query.get("status", "200"))
            delay_ms = min(int(request.query.get("delay_ms", "0")), DELAY_MS_MAX)
        except ValueError:
            return HTTPStatus.BAD_REQUEST, {"error": "status and delay_ms are numbers"}
        if not 200 <= status <= 599:
            return HTTPStatus.BAD_REQUEST, {"error": "status is between 200 and 599"}
        if delay_ms > 0:
            await asyncio.sleep(delay_ms / 1000)
        answer: Json = {
            "answered_by": self._config.identity.as_json(),
            "protocol": "http",
            "request": {
                "method": request.method,
                "host": request.headers.get("host", ""),
                "path": request.path,
                "query": request.query,
                "headers": request.headers,
                "remote": remote,
                "body_bytes": len(request.body),
            },
        }
        if self._config.upstreams and request.query.get("upstreams") != "off":
            answer["upstreams"] = await self._ask_upstreams(request)
        return status, answer

    async def _ask_upstreams(self, request: Request) -> list[Json]:
        """Every upstream at the same time, their outcomes in the order of the configuration."""
        depth_text = request.headers.get(DEPTH_HEADER, "0")
        depth = int(depth_text) if depth_text.isdecimal() else 0
        if depth >= DEPTH_MAX:
            return [{"error": f"deeper than {DEPTH_MAX} calls: do the servers call each other in a circle?"}]
        headers = {name: request.headers[name] for name in PASSED_HEADERS if name in request.headers}
        headers[DEPTH_HEADER] = str(depth + 1)
        calls = (
            Call(url=url, headers=headers, timeout_s=self._config.upstream_timeout_s) for url in self._config.upstreams
        )
        return list(await asyncio.gather(*(perform(call) for call in calls)))


def _encode(answer: Json) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _print_line(line: Json) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _bind(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A bound socket: on `address`, else on every address of both families, or of IPv4 alone where IPv6 is off."""
    if address:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return _bound_socket(family, address, port, kind)
    try:
        return _bound_socket(socket.AF_INET6, "::", port, kind)
    except OSError:
        return _bound_socket(socket.AF_INET, "0.0.0.0", port, kind)  # noqa: S104 - a pod serves whoever reaches it


def _bound_socket(family: socket.AddressFamily, address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    bound = socket.socket(family, kind)
    try:
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.setblocking(False)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound
