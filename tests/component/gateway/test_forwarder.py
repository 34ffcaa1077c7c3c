"""The relay between real sockets on the loopback."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from pilotage.gateway import Forward, forward
from pilotage.gateway import forwarder as module
from pilotage.kit.tasks import task_set
from pilotage.testing.etcd import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def listening_socket() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    return listener


@asynccontextmanager
async def relay_to(target: tuple[str, int]) -> AsyncIterator[int]:
    listener = listening_socket()
    port: int = listener.getsockname()[1]
    async with task_set() as tasks:
        tasks.start(forward([Forward(listener=listener, target=target)]))
        yield port


@asynccontextmanager
async def relayed(handler: Handler) -> AsyncIterator[int]:
    """`handler` behind a relay; yields the relay's port."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)  # type: ignore[arg-type]
    try:
        async with relay_to(server.sockets[0].getsockname()) as port:
            yield port
    finally:
        server.close()


async def test_answer_after_the_client_said_it_is_done() -> None:
    async def sum_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        writer.write(b"%d bytes" % len(data))
        writer.close()

    async with relayed(sum_up) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 1_000_000)
        writer.write_eof()
        assert await reader.read() == b"1000000 bytes"
        writer.close()
        await writer.wait_closed()


async def test_nothing_said_before_the_target_answered_is_lost() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async with relayed(echo) as port:
        for number in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"%d\n" % number)
            async with asyncio.timeout(5):
                assert await reader.readline() == b"%d\n" % number
            writer.close()
            await writer.wait_closed()


async def test_server_that_speaks_first_is_heard() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome\n")
        await reader.read()
        writer.close()

    async with relayed(greet) as port:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.readline() == b"welcome\n"
            writer.close()
            await writer.wait_closed()


async def test_slow_receiver_holds_back_its_sender() -> None:
    go_on = asyncio.Event()
    size = 32 * 1024 * 1024

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        total = 0
        while data := await reader.read(1 << 20):
            total += len(data)
        writer.write(str(total).encode())
        writer.close()

    async with relayed(read_late) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(b"x" * size)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.3)
        # Kernel buffers and ours hold some megabytes; the rest waits at the sender.
        assert writer.transport.get_write_buffer_size() > size // 2
        go_on.set()
        writer.write_eof()
        assert await reader.read() == str(size).encode()
        writer.close()
        await writer.wait_closed()


async def test_client_waits_for_a_target_that_is_being_started() -> None:
    target = ("127.0.0.1", free_port())

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async with relay_to(target) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"early\n")
        server = await asyncio.start_server(answer, *target)
        assert await asyncio.wait_for(reader.read(), 10) == b"early\n"
        writer.close()
        await writer.wait_closed()
        server.close()


async def test_client_of_a_dead_target_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.1)
    target = ("127.0.0.1", free_port())
    async with relay_to(target) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await writer.wait_closed()


async def test_connections_beyond_the_bound_are_closed_and_places_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 2)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    opened: list[asyncio.StreamWriter] = []

    async def works(port: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        opened.append(writer)
        writer.write(b"x")
        try:
            return await asyncio.wait_for(reader.read(1), 10) == b"x"
        except ConnectionResetError:
            return False

    async def close(writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()

    async with relayed(echo) as port:
        assert [await works(port) for _ in range(3)] == [True, True, False]
        await close(opened[0])
        async with asyncio.timeout(10):
            while not await works(port):
                await asyncio.sleep(0.01)
        for writer in opened:
            await close(writer)
