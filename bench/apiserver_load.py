"""Load on an API server from a process of its own, so that only the server's work counts as the server's.

Raw HTTP/1.1 over TLS with requests made beforehand: the generator must be cheaper than what it measures. Every mode
does a fixed amount of work and ends by itself. Prints one JSON object. Called by `bench.apiserver`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast
from urllib.parse import urlsplit

import uvloop

from pilotage.client import load_kubeconfig

DEADLINE_S = 120.0
CONNECT_AT_ONCE = 100  # handshakes in flight: fewer than the server's backlog
PODS = "/api/v1/namespaces/default/pods"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
TLS_RECORD_BYTES = 16_384  # RFC 8446, section 5.1: nothing stays behind in the TLS layer when it is read by records
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_STAMP = re.compile(rb'"stamp":"(\d+\.\d+)"')


class Requests(asyncio.Protocol):
    """One connection that sends a request, reads the whole answer, and sends the next."""

    def __init__(self, source: Iterator[bytes], took: list[float], ended: Callable[[], None]) -> None:
        self._source, self._took, self._ended = source, took, ended
        self._buffer = bytearray()
        self._wanted = 0  # bytes of the answer, once its head is there
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._wanted:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if self._buffer[9:10] != b"2":
                raise SystemExit(f"the server answers {bytes(self._buffer[:400])!r}")
            length = _LENGTH.search(self._buffer, 0, end + 2)
            assert length is not None, "answers have a length"
            self._wanted = end + 4 + int(length[1])
        if len(self._buffer) >= self._wanted:
            self._took.append(time.perf_counter() - self._started)
            self._next()

    def _next(self) -> None:
        self._buffer.clear()
        self._wanted = 0
        request = next(self._source, None)
        if request is None:
            self._transport.close()
            self._ended()
            return
        self._started = time.perf_counter()
        self._transport.write(request)


class Watcher:
    """One watch; notes when what arrives. How old it was is worked out afterwards: others' events wait behind this.

    A plain socket, read when it is readable: a transport of asyncio costs more than the server's part of an event.
    """

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.connection = connection
        self._arrived: list[tuple[float, bytes]] = []
        self._last = b""

    def read(self) -> int:
        """Take what has come: one TLS record. How many events have become whole by it."""
        data = _received(self.connection)
        if data is None:
            return 0
        self._arrived.append((time.perf_counter(), data))
        if not data:
            raise SystemExit("the server has ended a watch")
        count = (self._last + data).count(b"}\n")  # the end of an event, be it cut in two
        self._last = data[-1:]
        return count

    def ages(self) -> list[float]:
        """How old each event's stamp was when it arrived."""
        found, rest = [], b""
        for now, data in self._arrived:
            *lines, rest = (rest + data).split(b"\n")
            found += [now - float(stamp[1]) for line in lines if (stamp := _STAMP.search(line))]
        return found


def _received(connection: ssl.SSLSocket) -> bytes | None:
    """The contents of a TLS record; None if it was the protocol's own, such as a session ticket."""
    try:
        return connection.recv(TLS_RECORD_BYTES)
    except ssl.SSLWantReadError:
        return None


class Target:
    """Where the server is, and who asks."""

    def __init__(self, kubeconfig: str, server: str) -> None:
        connection = load_kubeconfig(kubeconfig)
        url = urlsplit(server or connection.server)
        assert url.hostname is not None and url.port is not None
        self.host, self.port = url.hostname, url.port
        self.tls: ssl.SSLContext | None = connection.ssl_context() if url.scheme == "https" else None

    def request(self, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nUser-Agent: load/1\r\nAccept: application/json\r\n"
        if body:
            head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    async def connect(self, make: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(make, self.host, self.port, ssl=self.tls)
        return transport

    def connect_plainly(self) -> ssl.SSLSocket:
        """A connection without an event loop; once it stands it does not block."""
        assert self.tls is not None
        plain = socket.create_connection((self.host, self.port), timeout=DEADLINE_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self.tls.wrap_socket(plain, server_hostname=self.host)
        connection.setblocking(False)
        return connection


async def send(target: Target, requests: Iterator[bytes], connections: int) -> list[float]:
    """Send every request over so many connections; return how long each took."""
    took: list[float] = []
    done = asyncio.Event()
    open_ = connections

    def ended() -> None:
        nonlocal open_
        open_ -= 1
        if not open_:
            done.set()

    for _ in range(connections):
        await target.connect(lambda: Requests(requests, took, ended))
    async with asyncio.timeout(DEADLINE_S):
        await done.wait()
    return took


def pod(name: str) -> bytes:
    """A plain pod with one container: 1.5 KB as it is served, without a token's volume."""
    container = {"name": "main", "image": "registry.example/team/app:1.2.3"}
    metadata = {"name": name, "namespace": "default", "labels": {"app": "app", "pod-template-hash": "5d4f8c7b9"}}
    spec = {"containers": [container], "automountServiceAccountToken": False}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return json.dumps(document, separators=(",", ":")).encode()


def config_map(name: str, stamp: float) -> bytes:
    """A small object that carries the time it was sent at."""
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"stamp": f"{stamp:.6f}"}}
    return json.dumps(document, separators=(",", ":")).encode()


async def get(target: Target, count: int, connections: int, path: str) -> list[float]:
    """Seconds of each GET."""
    request = target.request("GET", path)
    return await send(target, (request for _ in range(count)), connections)


async def create(target: Target, count: int, connections: int, prefix: str) -> list[float]:
    """Seconds of each create of a pod."""
    requests = (target.request("POST", PODS, pod(f"{prefix}-{number:05}")) for number in range(count))
    return await send(target, requests, connections)


async def watch(target: Target, updates: int, watchers: int, rate: float) -> list[float]:
    """Update one object at a steady rate; the age of every event at every watcher."""
    await send(target, iter((target.request("POST", CONFIG_MAPS, config_map("watched", 0.0)),)), 1)
    with contextlib.ExitStack() as connections, select.epoll() as readable:
        open_: dict[int, Watcher] = {}
        for _ in range(watchers):
            connection = connections.enter_context(target.connect_plainly())
            connection.sendall(target.request("GET", f"{CONFIG_MAPS}?watch=true"))
            open_[connection.fileno()] = Watcher(connection)
            readable.register(connection, select.EPOLLIN)
        writer = connections.enter_context(target.connect_plainly())
        readable.register(writer, select.EPOLLIN)

        seen, sent = 0, watchers  # each begins with the present state

        def follow(until: float) -> None:
            """Read what comes until then; while something is to come, without sleeping.

            To wake a reader would be the server's work, which readers on other machines spare it.
            """
            nonlocal seen
            while (left_s := until - time.perf_counter()) > 0:
                for descriptor, _ in readable.poll(0 if seen % watchers else left_s):
                    if descriptor in open_:
                        seen += open_[descriptor].read()
                    else:
                        _received(writer)  # the answers are not looked at

        def follow_all() -> None:
            """Read until everything has come."""
            deadline = time.perf_counter() + DEADLINE_S
            while seen < sent:
                follow(time.perf_counter() + 0.1)
                if time.perf_counter() > deadline:
                    raise SystemExit(f"{seen} events instead of {sent}")

        follow_all()
        started = time.perf_counter()
        for number in range(updates):
            follow(started + number / rate)
            body = b'{"data":{"stamp":"%.6f"}}' % time.perf_counter()
            writer.sendall(target.request("PATCH", f"{CONFIG_MAPS}/watched", body, "application/merge-patch+json"))
            sent += watchers
        follow_all()
    return [age for each in open_.values() for age in each.ages()[1:]]


async def idle(target: Target, watchers: int) -> list[float]:
    """Open watches that nothing happens on, say so, and keep them until standard input ends."""
    opened = 0
    complete = asyncio.Event()

    class Idle(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            cast(asyncio.Transport, transport).write(follow)

        def data_received(self, data: bytes) -> None:
            nonlocal opened
            if data.startswith(b"HTTP/1.1 200"):
                opened += 1
                if opened == watchers:
                    complete.set()

    follow = target.request("GET", "/apis/apps/v1/namespaces/default/daemonsets?watch=true&timeoutSeconds=600")
    for start in range(0, watchers, CONNECT_AT_ONCE):
        batch = range(start, min(start + CONNECT_AT_ONCE, watchers))
        await asyncio.gather(*(target.connect(Idle) for _ in batch))
    async with asyncio.timeout(DEADLINE_S):
        await complete.wait()
    print(json.dumps({"open": opened}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    return []


async def run(arguments: argparse.Namespace) -> list[float]:
    target = Target(arguments.kubeconfig, arguments.server)
    match arguments.mode:
        case "get":
            return await get(target, arguments.count, arguments.connections, arguments.path)
        case "create":
            return await create(target, arguments.count, arguments.connections, arguments.prefix)
        case "watch":
            return await watch(target, arguments.count, arguments.connections, arguments.rate)
    return await idle(target, arguments.connections)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.apiserver_load")
    parser.add_argument("mode", choices=["get", "create", "watch", "idle"])
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--server", default="", help="https://host:port, instead of the kubeconfig's")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--path", default="/")
    parser.add_argument("--prefix", default="load")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--core", type=int, default=-1, help="the only processor to run on")
    arguments = parser.parse_args()
    if arguments.core >= 0:
        os.sched_setaffinity(0, (arguments.core,))
    print(json.dumps({"seconds": uvloop.run(run(arguments))}))


if __name__ == "__main__":
    main()
