"""Port-forward: connections of a client, carried to ports of a pod.

Stands apart from the server's routes because it speaks two dialects: SPDY, which kubectl uses (a pair of streams for
each connection, opened at any time), and the numbered channels of a WebSocket (one connection for each port of the
query). Both end at a connection that `Dial` makes. Source: the kubelet's portforward package; KEP-4006.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from pilotage.agent.core import channel
from pilotage.agent.remote import payload_of
from pilotage.agent.spdy_session import SpdySession, SpdyStream
from pilotage.kit.errors import PilotageError
from pilotage.kit.tasks import task_set, wait_any

PROTOCOL = "portforward.k8s.io"
CHUNK_BYTES = 32768
PORTS_MAX = 16  # of one request on a WebSocket; two channels each must fit into one byte
# The second stream of a pair must follow the first; the kubelet's streamCreationTimeout.
PAIR_TIMEOUT_S = 30.0
# Nothing forwarded for so long ends the session; the kubelet's streamingConnectionIdleTimeout.
IDLE_TIMEOUT_S = 4 * 3600.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[int], Awaitable[Connection]]
DIAL_ERRORS = (OSError, TimeoutError, PilotageError)


@dataclass(slots=True)
class _Pair:
    """The two streams of one connection: its bytes, and how it failed."""

    streams: dict[str, SpdyStream] = field(default_factory=dict)  # by stream type, error or data
    complete: asyncio.Event = field(default_factory=asyncio.Event)


class Forwarder:
    """Pairs the streams of one SPDY session and forwards each pair."""

    def __init__(self, dial: Dial, pod: str) -> None:
        self._dial = dial
        self._pod = pod
        self._pairs: dict[str, _Pair] = {}
        self._fresh: asyncio.Queue[str] = asyncio.Queue()  # bounded by the session's streams

    def accept(self, stream: SpdyStream) -> bool:
        """A new stream of the session."""
        kind = stream.headers.get("streamtype", "")
        # Clients older than the request identifier open the error stream, then the data stream.
        request = stream.headers.get("requestid") or str(stream.number - (2 if kind == "data" else 0))
        pair = self._pairs.get(request)
        if kind not in ("error", "data") or _port(stream) is None or (pair is not None and kind in pair.streams):
            return False
        if pair is None:
            pair = self._pairs[request] = _Pair()
            self._fresh.put_nowait(request)
        pair.streams[kind] = stream
        if len(pair.streams) == 2:
            pair.complete.set()
        return True

    async def run(self, session: SpdySession) -> None:
        """Until the session ends; then every connection is cut."""
        async with task_set() as tasks:

            async def start_each() -> None:
                while True:
                    tasks.start(self._forward(session, await self._fresh.get()))

            tasks.start(start_each())
            await wait_any(session.run(), session.until_idle(IDLE_TIMEOUT_S))

    async def _forward(self, session: SpdySession, request: str) -> None:
        pair = self._pairs[request]
        try:
            async with asyncio.timeout(PAIR_TIMEOUT_S):
                await pair.complete.wait()
            with contextlib.suppress(ConnectionError):
                await self._connect(pair.streams["data"], pair.streams["error"])
        except TimeoutError:
            for stream in pair.streams.values():
                await session.refuse(stream)
        finally:
            del self._pairs[request]
            for stream in pair.streams.values():
                session.forget(stream)

    async def _connect(self, data: SpdyStream, error: SpdyStream) -> None:
        port = _port(data) or 0
        try:
            reader, writer = await self._dial(port)
        except DIAL_ERRORS as failure:
            await error.write(self.refusal(port, failure), end=True)
            await data.end()
            return
        try:
            await wait_any(_to_client(reader, data), _to_pod(data, writer))
        except* ConnectionError:
            pass  # either side is closed; kubectl resets, then waits for the end of errors
        finally:
            writer.close()
            for stream in (data, error):
                with contextlib.suppress(ConnectionError):
                    await stream.end()

    def refusal(self, port: int, failure: Exception) -> bytes:
        """Why a port cannot be reached, for the user."""
        return f"error forwarding port {port} to pod {self._pod}: {failure or 'timed out'}".encode()


def _port(stream: SpdyStream) -> int | None:
    text = stream.headers.get("port", "")
    return int(text) if text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536 else None


async def _to_client(reader: asyncio.StreamReader, data: SpdyStream) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        await data.write(chunk)


async def _to_pod(data: SpdyStream, writer: asyncio.StreamWriter) -> None:
    """Until the client resets: the end of its bytes is not the end of the answer."""
    while chunk := await data.read():
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()
    await data.until_reset()


# ── numbered channels on a WebSocket ────────────────────────────────────────────────────────────────────────────


async def forward_channels(
    socket: web.WebSocketResponse, ports: Sequence[int], forwarder: Forwarder, dial: Dial
) -> None:
    """One connection for each port: of the i-th, channel 2i carries bytes and 2i+1 an error.

    Every channel begins with its port number, two bytes, little-endian (the kubelet's portforward.go).
    """
    for index, port in enumerate(ports):
        number = port.to_bytes(2, "little")
        await socket.send_bytes(channel.encode(2 * index, number))
        await socket.send_bytes(channel.encode(2 * index + 1, number))
    connections: dict[int, Connection] = {}
    try:
        for index, port in enumerate(ports):
            try:
                connections[index] = await dial(port)
            except DIAL_ERRORS as failure:
                await socket.send_bytes(channel.encode(2 * index + 1, forwarder.refusal(port, failure)))
        if connections:
            writers = {index: writer for index, (_, writer) in connections.items()}
            await wait_any(_channels_out(socket, connections), _channels_in(socket, writers))
    finally:
        for _, writer in connections.values():
            writer.close()


async def _channels_out(socket: web.WebSocketResponse, connections: Mapping[int, Connection]) -> None:
    """Until the pod has closed every connection."""

    async def one(index: int, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await socket.send_bytes(channel.encode(2 * index, data))

    async with asyncio.TaskGroup() as group:
        for index, (reader, _) in connections.items():
            group.create_task(one(index, reader))


async def _channels_in(socket: web.WebSocketResponse, writers: Mapping[int, asyncio.StreamWriter]) -> None:
    """Until the client closes."""
    async for message in socket:
        payload = payload_of(message)
        if len(payload) < 2:
            continue
        index, is_error = divmod(payload[0], 2)
        writer = writers.get(index)
        if writer is not None and not is_error:
            writer.write(payload[1:])
            await writer.drain()
