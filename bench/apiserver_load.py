"""Load on an API server from a process of its own, so that only the server's work counts as the server's.

Raw HTTP/1.1 over TLS with requests made beforehand: the generator must be cheaper than what it measures. Every mode
does a fixed amount of work and ends by itself. Prints one JSON object. Called by `bench.apiserver`.
"""

import argparse
import asyncio
import json
import re
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


class Watcher(asyncio.Protocol):
    """One watch; notes when what arrives. How old it was is worked out afterwards: others' events wait behind this."""

    def __init__(self, request: bytes, seen: Callable[[int], None]) -> None:
        self._request, self._seen = request, seen
        self._arrived: list[tuple[float, bytes]] = []
        self._last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._arrived.append((time.perf_counter(), data))
        self._seen((self._last + data).count(b"}\n"))  # the end of an event, be it cut in two
        self._last = data[-1:]

    def ages(self) -> list[float]:
        """How old each event's stamp was when it arrived."""
        found, rest = [], b""
        for now, data in self._arrived:
            *lines, rest = (rest + data).split(b"\n")
            found += [now - float(stamp[1]) for line in lines if (stamp := _STAMP.search(line))]
        return found


class Deaf(asyncio.Protocol):
    """A connection whose answers nobody reads."""


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
    missing = watchers  # each begins with the present state
    complete = asyncio.Event()

    def seen(events: int) -> None:
        nonlocal missing
        missing -= events
        if missing <= 0:
            complete.set()

    follow = target.request("GET", f"{CONFIG_MAPS}?watch=true")
    followers: list[Watcher] = []

    def follower() -> Watcher:
        followers.append(Watcher(follow, seen))
        return followers[-1]

    open_ = [await target.connect(follower) for _ in range(watchers)]
    async with asyncio.timeout(DEADLINE_S):
        await complete.wait()
    missing = watchers * updates
    complete.clear()
    writer = await target.connect(Deaf)
    loop = asyncio.get_running_loop()
    started = loop.time()
    for number in range(updates):
        await asyncio.sleep(max(0.0, started + number / rate - loop.time()))
        body = b'{"data":{"stamp":"%.6f"}}' % time.perf_counter()
        writer.write(target.request("PATCH", f"{CONFIG_MAPS}/watched", body, "application/merge-patch+json"))
    async with asyncio.timeout(DEADLINE_S):
        await complete.wait()
    for transport in (*open_, writer):
        transport.close()
    return [age for each in followers for age in each.ages()[1:]]


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
    arguments = parser.parse_args()
    print(json.dumps({"seconds": uvloop.run(run(arguments))}))


if __name__ == "__main__":
    main()
