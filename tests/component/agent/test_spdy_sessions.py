"""Port-forward and exec over SPDY, on a carrier in memory: pairs, refusals, slow readers, sudden ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pilotage.agent import port_forward
from pilotage.agent.core.spdy import SpdyError
from pilotage.agent.port_forward import Forwarder
from pilotage.agent.remote import SpdyWire
from pilotage.agent.runtime import RuntimeFailure
from pilotage.agent.spdy_session import STREAM_BYTES_MAX, SpdySession
from pilotage.kit.tasks import task_set
from pilotage.testing.spdy import RST_STREAM, SYN_REPLY, Frame, SpdyClient


class Carrier:
    """A connection in memory; the client's end is `send` and `next`."""

    def __init__(self) -> None:
        self.client = SpdyClient()
        self._to_server: asyncio.Queue[bytes] = asyncio.Queue()
        self._to_client: asyncio.Queue[Frame] = asyncio.Queue(64)
        self.seen: list[Frame] = []

    async def read(self) -> bytes:
        return await self._to_server.get()

    async def write(self, data: bytes) -> None:
        for frame in self.client.read(data):
            await self._to_client.put(frame)

    def send(self, data: bytes) -> None:
        self._to_server.put_nowait(data)

    def hang_up(self) -> None:
        self._to_server.put_nowait(b"")

    async def next(self) -> Frame:
        async with asyncio.timeout(10):
            return await self._to_client.get()

    async def text(self, stream: int) -> bytes:
        """All of a stream, to its end; what else comes is kept in `seen`."""
        found = b""
        while True:
            frame = await self.next()
            if (frame.kind, frame.number) != (0, stream):
                self.seen.append(frame)
                continue
            found += frame.data
            if frame.ended:
                return found

    def open_pair(self, request: int, port: int) -> tuple[int, int]:
        """Error and data streams, as kubectl opens them."""
        first = 4 * request + 1
        headers = {"port": str(port), "requestID": str(request)}
        self.send(self.client.open(first, streamType="error", **headers))
        self.send(self.client.data(first, b"", end=True))
        self.send(self.client.open(first + 2, streamType="data", **headers))
        return first, first + 2


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A program that answers in capitals, once its peer has said everything; b"flood" makes it talk without end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            asked = await reader.read(5)
            if asked == b"flood":
                while True:
                    writer.write(b"x" * 65536)
                    await writer.drain()
            writer.write((asked + await reader.read()).upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def dial(port: int) -> port_forward.Connection:
    return await asyncio.open_connection("127.0.0.1", port)


@asynccontextmanager
async def forwarding() -> AsyncIterator[Carrier]:
    carrier = Carrier()
    forwarder = Forwarder(dial, "web")
    async with task_set() as tasks:
        tasks.start(forwarder.run(SpdySession(carrier, forwarder.accept)))
        yield carrier


async def test_many_connections_share_a_session() -> None:
    async with echo() as port, forwarding() as carrier:
        pairs = [carrier.open_pair(number, port) for number in range(50)]
        for _, data in pairs:
            carrier.send(carrier.client.data(data, b"hello from %d" % data, end=True))
        ended: dict[int, bytes] = {}
        while len(ended) < 100:
            frame = await carrier.next()
            if frame.kind == 0 and frame.ended:
                ended[frame.number] = b"".join(
                    one.data for one in (*carrier.seen, frame) if (one.kind, one.number) == (0, frame.number)
                )
            carrier.seen.append(frame)
        assert all(ended[data] == b"HELLO FROM %d" % data and ended[error] == b"" for error, data in pairs)
        assert sum(frame.kind == SYN_REPLY for frame in carrier.seen) == 100


async def test_a_closed_port_is_told_and_the_session_goes_on() -> None:
    async with echo() as port, forwarding() as carrier:
        error, data = carrier.open_pair(0, 1)
        told = await carrier.text(error)
        assert told.startswith(b"error forwarding port 1 to pod web: ")
        assert await carrier.text(data) == b""
        _, data = carrier.open_pair(1, port)
        carrier.send(carrier.client.data(data, b"still here", end=True))
        assert await carrier.text(data) == b"STILL HERE"


async def test_a_reset_ends_a_connection_that_would_never_end() -> None:
    async with echo() as port, forwarding() as carrier:
        error, data = carrier.open_pair(0, port)
        carrier.send(carrier.client.data(data, b"flood"))
        while (await carrier.next()).kind != 0:
            pass
        carrier.send(carrier.client.reset(data))
        assert await carrier.text(error) == b""  # kubectl waits for this


async def test_streams_that_are_no_pair_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_forward, "PAIR_TIMEOUT_S", 0.05)
    async with forwarding() as carrier:
        for headers in ({"streamType": "odd", "port": "80"}, {"streamType": "data", "port": "99999"}, {}):
            carrier.send(carrier.client.open(**headers))
            assert (await carrier.next()).kind == RST_STREAM
        carrier.send(carrier.client.open(streamType="data", port="80", requestID="1"))
        assert (await carrier.next()).kind == SYN_REPLY
        assert (await carrier.next()).kind == RST_STREAM  # the other one never came


async def test_a_client_that_hangs_up_takes_its_connections_along() -> None:
    carrier, forwarder = Carrier(), Forwarder(dial, "web")
    async with echo() as port, task_set() as tasks:
        tasks.start(forwarder.run(SpdySession(carrier, forwarder.accept)), key="session")
        _, data = carrier.open_pair(0, port)
        carrier.send(carrier.client.data(data, b"flood"))
        while (await carrier.next()).kind != 0:
            pass
        carrier.hang_up()
        async with asyncio.timeout(10):
            while "session" in tasks:
                await asyncio.sleep(0)


async def test_a_broken_client_ends_its_session() -> None:
    carrier, forwarder = Carrier(), Forwarder(dial, "web")
    carrier.send(b"\x80\x02 this is not SPDY/3")
    with pytest.raises(SpdyError):
        await forwarder.run(SpdySession(carrier, forwarder.accept))


class Process:
    """A process that reads nothing and ends when it is told to."""

    def __init__(self, *, fails: str = "") -> None:
        self.may_end = asyncio.Event()
        self.closed = False
        self._fails = fails

    async def write(self, data: bytes) -> None:
        await asyncio.Event().wait()

    def close_stdin(self) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        yield 1, b"out"
        yield 2, b"err"
        await self.may_end.wait()

    async def wait(self) -> int:
        if self._fails:
            raise RuntimeFailure(self._fails)
        return 3

    async def aclose(self) -> None:
        self.closed = True


async def execute(carrier: Carrier, process: Process) -> None:
    wire = SpdyWire(stdin=True, stdout=True, stderr=True, tty=False)

    async def opened() -> Process:
        return process

    for kind in ("error", "stdin", "stdout", "stderr"):
        carrier.send(carrier.client.open(streamType=kind))
    await wire.run(SpdySession(carrier, wire.accept), opened)


@pytest.mark.parametrize(
    ("fails", "words"), [("", b'"reason":"NonZeroExitCode"'), ("no such program", b"no such program")]
)
async def test_input_that_nobody_reads_does_not_hold_up_the_end(fails: str, words: bytes) -> None:
    carrier, process = Carrier(), Process(fails=fails)
    async with task_set() as tasks:
        tasks.start(execute(carrier, process), key="exec")
        for _ in range(3):
            carrier.send(carrier.client.data(3, bytes(STREAM_BYTES_MAX)))
        assert [(await carrier.next()).kind for _ in range(4)] == [SYN_REPLY] * 4
        process.may_end.set()
        assert words in await carrier.text(1)
        said = {frame.number: frame.data for frame in carrier.seen if frame.data}
        assert said == {5: b"out", 7: b"err"}
        carrier.hang_up()
        async with asyncio.timeout(5):
            while "exec" in tasks:
                await asyncio.sleep(0)
    assert process.closed


async def test_a_client_that_vanishes_leaves_no_process() -> None:
    carrier, process = Carrier(), Process()
    async with asyncio.timeout(10), task_set() as tasks:
        tasks.start(execute(carrier, process), key="exec")
        while (await carrier.next()).data != b"err":
            pass
        carrier.hang_up()
        while "exec" in tasks:
            await asyncio.sleep(0)
    assert process.closed
