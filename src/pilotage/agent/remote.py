"""Exec and attach: a process's streams, carried to a client.

Stands apart from the server's routes because a process does not care how its streams travel: `Wire` is what it needs,
kept by the channels of a WebSocket (v5 and v4, KEP-4006) and by SPDY streams (v4), which clients use that were given
no leave to GET, or that are old. Source: the kubelet's remotecommand package.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from aiohttp import WSMessage, WSMsgType, web

from pilotage.agent.core import channel
from pilotage.agent.core.channel import Channel, Input, InputClosed, Resized
from pilotage.agent.runtime import ExecSession, RuntimeFailure
from pilotage.agent.spdy_session import SpdySession, SpdyStream, StreamReset
from pilotage.kit.tasks import task_set, wait_any

SPDY_PROTOCOLS = ("v4.channel.k8s.io",)
# A client opens its streams at once; the kubelet's streamCreationTimeout.
OPEN_TIMEOUT_S = 30.0
# Nothing typed and nothing printed for so long ends the session; the kubelet's streamingConnectionIdleTimeout.
IDLE_TIMEOUT_S = 4 * 3600.0
# How long a client may take to close after it was told the end.
CLOSE_TIMEOUT_S = 10.0
_SIZE_BYTES_MAX = 4096  # of terminal sizes that arrived in pieces

OpenSession = Callable[[], Awaitable[ExecSession]]


class Wire(Protocol):
    """A client that watches a process."""

    def input(self) -> AsyncIterator[Input | InputClosed | Resized]:
        """What it sends, until it goes away."""
        ...

    async def send(self, stream: int, data: bytes) -> None:
        """Output of the process: stream 1 or 2."""
        ...

    async def finish(self, status: bytes) -> None:
        """The last message, a channel message of `core.channel`."""
        ...


async def run_session(wire: Wire, open_session: OpenSession, *, exit_code: bool = True) -> None:
    """Run a process with its streams on the wire, until it ends or the client goes.

    Without `exit_code` the end is always a success: whoever is attached learns the code from the pod's status.
    """
    try:
        session = await open_session()
    except (RuntimeFailure, OSError) as error:
        what = "error executing command in container" if exit_code else "error attaching to container"
        await wire.finish(channel.failure(f"{what}: {error}"))
        return
    try:
        async with asyncio.timeout(IDLE_TIMEOUT_S) as idle:

            def active() -> None:
                idle.reschedule(asyncio.get_running_loop().time() + IDLE_TIMEOUT_S)

            await wait_any(
                _send_output(wire, session, active, exit_code=exit_code), _receive_input(wire, session, active)
            )
    except* (ConnectionError, TimeoutError):
        pass  # the client has gone, or nothing has happened for hours
    finally:
        await session.aclose()


async def _send_output(wire: Wire, session: ExecSession, active: Callable[[], None], *, exit_code: bool) -> None:
    async for stream, data in session.output():
        await wire.send(stream, data)
        active()
    try:
        ended_with = await session.wait()
    except RuntimeFailure as error:
        await wire.finish(channel.failure(f"error executing command in container: {error}"))
        return
    await wire.finish(channel.final_status(ended_with if exit_code else 0))


async def _receive_input(wire: Wire, session: ExecSession, active: Callable[[], None]) -> None:
    async for message in wire.input():
        active()
        match message:
            case Input(data=data):
                await session.write(data)
            case InputClosed():
                session.close_stdin()
            case Resized(columns=columns, rows=rows):
                session.resize(columns, rows)


def payload_of(message: WSMessage) -> bytes:
    """What a message carries. Some clients (kubernetes for Python) send text as text, and mean the same bytes."""
    match message.type:
        case WSMsgType.BINARY:
            return bytes(message.data)
        case WSMsgType.TEXT:
            return str(message.data).encode()
        case _:
            return b""


class WebSocketWire:
    """Channels in the messages of a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def input(self) -> AsyncIterator[Input | InputClosed | Resized]:
        async for message in self._socket:
            decoded = channel.decode(payload_of(message))
            if decoded is not None:
                yield decoded

    async def send(self, stream: int, data: bytes) -> None:
        await self._socket.send_bytes(channel.encode(stream, data))

    async def finish(self, status: bytes) -> None:
        await self._socket.send_bytes(status)


class SpdyWire:
    """One SPDY stream for each channel, chosen by its header `streamType`."""

    def __init__(self, *, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> None:
        wanted = {"error": True, "stdin": stdin, "stdout": stdout, "stderr": stderr and not tty, "resize": tty}
        self._wanted = {name for name, is_wanted in wanted.items() if is_wanted}
        self._streams: dict[str, SpdyStream] = {}
        self._complete = asyncio.Event()
        self._input: asyncio.Queue[Input | InputClosed | Resized] = asyncio.Queue(1)

    def accept(self, stream: SpdyStream) -> bool:
        """A new stream of the session."""
        kind = stream.headers.get("streamtype", "")
        if kind not in self._wanted or kind in self._streams:
            return False
        self._streams[kind] = stream
        if len(self._streams) == len(self._wanted):
            self._complete.set()
        return True

    async def run(self, session: SpdySession, open_session: OpenSession, *, exit_code: bool = True) -> None:
        """The whole of a session: the client's streams, the process, its end."""

        async def serve() -> None:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._complete.wait()
            await run_session(self, open_session, exit_code=exit_code)

        try:
            await wait_any(session.run(), serve(), self._read())
        except* (ConnectionError, TimeoutError):
            pass

    async def _read(self) -> None:
        await self._complete.wait()
        async with task_set() as tasks:
            if "stdin" in self._streams:
                tasks.start(_read_stdin(self._streams["stdin"], self._input))
            if "resize" in self._streams:
                tasks.start(_read_sizes(self._streams["resize"], self._input))
            await tasks.wait()

    async def input(self) -> AsyncIterator[Input | InputClosed | Resized]:
        while True:
            yield await self._input.get()

    async def send(self, stream: int, data: bytes) -> None:
        sink = self._streams.get("stdout" if stream == Channel.STDOUT else "stderr")
        if sink is not None:
            await sink.write(data)

    async def finish(self, status: bytes) -> None:
        for kind in ("stdin", "resize"):
            if kind in self._streams:
                self._streams[kind].discard()  # else what nobody will read would hold up the client's farewell
        for kind in ("stdout", "stderr"):
            if kind in self._streams:
                await self._streams[kind].end()
        error = self._streams["error"]
        await error.write(status[1:], end=True)
        # The connection's end could overtake what the client has not read: it closes when it has read everything.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await error.until_reset()


async def _read_stdin(stream: SpdyStream, queue: "asyncio.Queue[Input | InputClosed | Resized]") -> None:
    with contextlib.suppress(StreamReset):
        while data := await stream.read():
            await queue.put(Input(data=data))
    await queue.put(InputClosed())


async def _read_sizes(stream: SpdyStream, queue: "asyncio.Queue[Input | InputClosed | Resized]") -> None:
    """JSON values one after the other, each on a line."""
    rest = b""
    with contextlib.suppress(StreamReset):
        while data := await stream.read():
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-_SIZE_BYTES_MAX:]
            for line in lines:
                size = channel.decode(channel.encode(Channel.RESIZE, line))
                if isinstance(size, Resized):
                    await queue.put(size)
