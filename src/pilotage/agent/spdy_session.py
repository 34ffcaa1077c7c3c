"""SPDY streams over a connection: the shell around `core.spdy`.

Stands apart from what the streams are for (`remote`, `port_forward`) and from what carries them: a connection after
an `Upgrade: SPDY/3.1`, or the messages of a WebSocket whose subprotocol is `SPDY/3.1+…` (KEP-4006). Each stream has a
bounded buffer; a stream whose reader is slow holds up the connection, as in client-go, because SPDY's windows are not
used there.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from aiohttp import WSMsgType, web

from pilotage.agent.core.spdy import GoneAway, Opened, Received, ResetCode, ServerConnection, SpdyError, WasReset
from pilotage.kit.upgrade import UpgradedConnection, switch_protocols

# Of one stream, waiting for its reader.
STREAM_BYTES_MAX = 256 * 1024
TUNNEL_PREFIX = "SPDY/3.1+"
# kubectl writes at most 32 KiB at a time, behind a frame's header.
MESSAGE_BYTES_MAX = 1 << 20
PING_S = 30.0


class StreamReset(ConnectionError):
    """The peer has ended the stream before its end."""


class Carrier(Protocol):
    """What carries a session's bytes."""

    async def read(self) -> bytes:
        """Some bytes; none at the end."""
        ...

    async def write(self, data: bytes) -> None: ...


class SpdyStream:
    """One stream. At most one reader and one writer."""

    def __init__(self, session: "SpdySession", number: int, headers: Mapping[str, str]) -> None:
        self.headers = headers  # names in lower case
        self.number = number
        self._session = session
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._reset = asyncio.Event()
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def read(self) -> bytes:
        """Some bytes; none at the end. Raises StreamReset."""
        while not self._chunks:
            if self._reset.is_set():
                raise StreamReset("the stream was reset")
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._has_room.set()
        return data

    async def until_reset(self) -> None:
        """Until the peer wants nothing more of it, or the connection has gone."""
        await self._reset.wait()

    async def write(self, data: bytes, *, end: bool = False) -> None:
        """Waits while the peer is slow. Raises StreamReset, or ConnectionError when the peer has gone."""
        if self._reset.is_set():
            raise StreamReset("the stream was reset")
        await self._session.send(self.number, data, end=end)

    async def end(self) -> None:
        """Nothing more will be sent on it; what still arrives is dropped."""
        self.discard()
        if not self._reset.is_set():
            await self._session.send(self.number, b"", end=True)

    def discard(self) -> None:
        """Nobody reads it any more: what has arrived is dropped, and so is what still comes."""
        self._ended = True
        self._chunks.clear()
        self._size = 0
        self._has_room.set()

    # For the session.

    async def feed(self, data: bytes, *, ended: bool) -> None:
        """What has arrived; waits while its reader is behind."""
        if data and not self._ended:
            self._chunks.append(data)
            self._size += len(data)
        self._ended = self._ended or ended
        self._changed.set()
        if self._size >= STREAM_BYTES_MAX:
            self._has_room.clear()
            await self._has_room.wait()

    def was_reset(self) -> None:
        """The peer has ended it, or has gone."""
        self._reset.set()
        self._changed.set()
        self._has_room.set()


class SpdySession:
    """All streams of one connection. `accept` sees each new stream and says whether it is wanted."""

    def __init__(self, carrier: Carrier, accept: Callable[[SpdyStream], bool]) -> None:
        self._carrier = carrier
        self._accept = accept
        self._core = ServerConnection()
        self._streams: dict[int, SpdyStream] = {}
        self._sending = asyncio.Lock()
        self._last_data_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Serve until the peer has gone. Raises SpdyError if it does not keep to the protocol."""
        try:
            while data := await self._carrier.read():
                self._core.receive(data)
                while (event := self._core.next_event()) is not None:
                    await self._handle(event)
                await self._flush()
        finally:
            for stream in self._streams.values():
                stream.was_reset()

    async def until_idle(self, idle_s: float) -> None:
        """Until no stream has carried anything for so long."""
        loop = asyncio.get_running_loop()
        while (left := self._last_data_at + idle_s - loop.time()) > 0:  # noqa: ASYNC110 (an event a chunk costs more)
            await asyncio.sleep(left)

    async def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Bytes of one stream."""
        self._touch()
        self._core.send(stream, data, end=end)
        await self._flush()

    async def _handle(self, event: Opened | Received | WasReset | GoneAway) -> None:
        match event:
            case Opened(stream=number, headers=headers, ended=ended):
                stream = SpdyStream(self, number, headers)
                if not self._accept(stream):
                    self._core.reset(number, ResetCode.REFUSED_STREAM)
                    return
                self._core.reply(number)
                if not ended:
                    self._streams[number] = stream
                else:
                    await stream.feed(b"", ended=True)
            case Received(stream=number, data=data, ended=ended):
                self._touch()
                found = self._streams.get(number)
                if found is not None:
                    # What is owed to the peer goes out first: a reader that is behind may wait for the peer.
                    await self._flush()
                    await found.feed(data, ended=ended)
            case WasReset(stream=number):
                found = self._streams.pop(number, None)
                if found is not None:
                    found.was_reset()
            case GoneAway():
                pass  # open streams go on to their end

    def forget(self, stream: SpdyStream) -> None:
        """Nobody will use the stream any more. It is not reset: client-go would drop what it has not read yet."""
        self._streams.pop(stream.number, None)
        stream.was_reset()

    async def refuse(self, stream: SpdyStream) -> None:
        """End a stream at once, both ways."""
        self._core.reset(stream.number)
        self.forget(stream)
        await self._flush()

    async def _flush(self) -> None:
        async with self._sending:
            data = self._core.data_to_send()
            if data:
                await self._carrier.write(data)

    def _touch(self) -> None:
        self._last_data_at = asyncio.get_running_loop().time()


class WebSocketCarrier:
    """SPDY in the binary messages of a WebSocket; where one message ends means nothing."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.response = socket

    async def read(self) -> bytes:
        while True:
            message = await self.response.receive()
            if message.type is WSMsgType.BINARY:
                if message.data:
                    return bytes(message.data)
            elif message.type is not WSMsgType.TEXT:
                return b""

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), MESSAGE_BYTES_MAX):
            await self.response.send_bytes(data[start : start + MESSAGE_BYTES_MAX])


async def open_carrier(request: web.Request, protocols: tuple[str, ...]) -> UpgradedConnection | WebSocketCarrier:
    """Accept the first protocol both sides know, over whichever of the two carriers the client asked for.

    Raises HTTPBadRequest if there is none.
    """
    if request.headers.get("Upgrade", "").lower() == "websocket":
        tunnelled = tuple(TUNNEL_PREFIX + protocol for protocol in protocols)
        socket = web.WebSocketResponse(protocols=tunnelled, heartbeat=PING_S, max_msg_size=MESSAGE_BYTES_MAX)
        await socket.prepare(request)
        return WebSocketCarrier(socket)
    offered = [
        item.strip() for value in request.headers.getall("X-Stream-Protocol-Version", ()) for item in value.split(",")
    ]
    chosen = next((protocol for protocol in protocols if protocol in offered), None)
    if chosen is None:
        raise web.HTTPBadRequest(text=f"none of the stream protocols {offered[:8]} is supported: use {protocols[0]}")
    headers = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": chosen}
    return await switch_protocols(request, headers)


def wants_spdy(request: web.Request) -> bool:
    """Whether the client asks for SPDY, bare or inside a WebSocket."""
    if request.headers.get("Upgrade", "").lower() == "spdy/3.1":
        return True
    return any(
        item.strip().startswith(TUNNEL_PREFIX)
        for value in request.headers.getall("Sec-WebSocket-Protocol", ())
        for item in value.split(",")
    )


__all__ = ["SpdyError", "SpdySession", "SpdyStream", "StreamReset", "open_carrier", "wants_spdy"]
