"""Streams of a process in a container: one that we start (exec), or the first one (attach).

Stands apart from `oci` because it is about bytes and terminals, not about the life of containers. A terminal is a
pty pair of our own around `runc exec`, which passes window sizes on when it gets SIGWINCH. Attach speaks conmon's
socket: sequenced packets whose first byte names the stream.
"""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import tty as terminals
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from pilotage.agent.runtime import RuntimeFailure

CHUNK_BYTES = 32768  # conmon's own packet size; also what one WebSocket message carries
CHUNKS_MAX = 32  # of output waiting for a slow reader: 2 MB at most
RUNTIME_FAILED = 255  # runc's and crun's exit code for what they could not do
LOG_BYTES_MAX = 64 * 1024  # of what a runtime says about one command
_STREAM_OF_PACKET = {1: 1, 2: 1, 3: 2}  # 1: terminal output, 2: stdout, 3: stderr


class _LogEntry(msgspec.Struct, frozen=True):
    level: str = ""
    msg: str = ""


class _Pipes(asyncio.SubprocessProtocol):
    """Collects a child's output without a task; stops reading while nobody takes it."""

    def __init__(self) -> None:
        self.exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.chunks: deque[tuple[int, bytes]] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._open = {1, 2}
        self._transport: asyncio.SubprocessTransport | None = None
        self._paused = False
        self.writable = asyncio.Event()  # clear while the child does not read its standard input
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.chunks.append((fd, data))
        if len(self.chunks) >= CHUNKS_MAX and not self._paused:
            self._pause(True)
        self._wake()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        self._wake()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def process_exited(self) -> None:
        self.writable.set()
        assert self._transport is not None
        if not self.exit_code.done():
            self.exit_code.set_result(self._transport.get_returncode() or 0)
        self._wake()

    async def next_chunk(self) -> tuple[int, bytes] | None:
        """The next piece of output; None when both streams are closed."""
        while not self.chunks:
            if not self._open:
                return None
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        chunk = self.chunks.popleft()
        if self._paused and not self.chunks:
            self._pause(False)
        return chunk

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        assert self._transport is not None
        for fd in self._open:
            pipe = self._transport.get_pipe_transport(fd)
            if isinstance(pipe, asyncio.ReadTransport) and not pipe.is_closing():
                pipe.pause_reading() if paused else pipe.resume_reading()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class ProcessSession:
    """`ExecSession` around a child process."""

    def __init__(self, transport: asyncio.SubprocessTransport, pipes: _Pipes, master: int, spec: Path) -> None:
        self._transport = transport
        self._pipes = pipes
        self._master = master  # of the terminal; -1 without one
        self._spec = spec

    @classmethod
    async def open(
        cls,
        command: Callable[[str], Sequence[str]],
        process_document: bytes,
        directory: Path,
        *,
        stdin: bool,
        tty: bool,
    ) -> "ProcessSession":
        """Start `command(path of the process document)`; the document is kept in `directory` while it runs.

        It holds the container's environment, so it belongs into a directory that goes with the container.
        """
        fd, name = tempfile.mkstemp(prefix="exec-", suffix=".json", dir=directory)
        master = -1
        try:
            os.write(fd, process_document)
            loop = asyncio.get_running_loop()
            if not tty:
                transport, pipes = await loop.subprocess_exec(
                    _Pipes, *command(name), stdin=subprocess.PIPE if stdin else subprocess.DEVNULL
                )
                return cls(transport, pipes, -1, Path(name))
            master, slave = pty.openpty()
            try:
                # runc makes the real terminal inside; ours in front of it must not interpret anything twice.
                terminals.setraw(slave)
                transport, pipes = await loop.subprocess_exec(
                    _Pipes, *command(name), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
                )
            finally:
                os.close(slave)
            os.set_blocking(master, False)
            return cls(transport, pipes, master, Path(name))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            if master >= 0:
                os.close(master)
            raise
        finally:
            os.close(fd)

    async def write(self, data: bytes) -> None:
        if self._master >= 0:
            await _write_fd(self._master, data)
            return
        pipe = self._transport.get_pipe_transport(0)
        if isinstance(pipe, asyncio.WriteTransport) and not pipe.is_closing():
            pipe.write(data)
            await self._pipes.writable.wait()

    def close_stdin(self) -> None:
        pipe = self._transport.get_pipe_transport(0)
        if isinstance(pipe, asyncio.WriteTransport):
            pipe.close()

    def resize(self, columns: int, rows: int) -> None:
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            with contextlib.suppress(ProcessLookupError):
                self._transport.send_signal(signal.SIGWINCH)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        if self._master >= 0:
            while chunk := await _read_fd(self._master):
                yield 1, chunk
            return
        while (found := await self._pipes.next_chunk()) is not None:
            yield found

    async def wait(self) -> int:
        exit_code = await asyncio.shield(self._pipes.exit_code)
        if exit_code == RUNTIME_FAILED:
            # The command's own code, or the runtime's for a command that never ran: only its log knows.
            failure = _logged_failure(Path(log_of(str(self._spec))))
            if failure:
                raise RuntimeFailure(failure)
        return exit_code

    async def aclose(self) -> None:
        if self._transport.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()
            await self.wait()
        self._transport.close()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
        for path in (self._spec, self._spec.with_name(log_of(self._spec.name))):
            path.unlink(missing_ok=True)


def log_of(process_document: str) -> str:
    """Where the runtime writes its own errors, beside the document of the process it starts."""
    return f"{process_document}.log"


def _logged_failure(log: Path) -> str:
    """What stopped the runtime, from its log in JSON lines; empty if nothing did."""
    try:
        with open(log, "rb") as file:
            lines = file.read(LOG_BYTES_MAX).splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        with contextlib.suppress(msgspec.DecodeError):
            entry = msgspec.json.decode(line, type=_LogEntry)
            if entry.level in ("error", "fatal"):
                return entry.msg
    return ""


class AttachSession:
    """`ExecSession` on conmon's attach socket."""

    def __init__(self, connection: socket.socket, directory: Path, exit_code: Callable[[], int]) -> None:
        self._connection = connection
        self._directory = directory
        self._exit_code = exit_code
        self._ended = asyncio.Event()

    @classmethod
    async def open(cls, directory: Path, exit_code: Callable[[], int]) -> "AttachSession":
        """Connect to the socket `attach` in a container's directory."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        # The path may be longer than sun_path allows: go through a descriptor of the directory.
        handle = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            await asyncio.get_running_loop().sock_connect(connection, f"/proc/self/fd/{handle}/attach")
        except OSError as error:
            connection.close()
            raise RuntimeFailure(f"cannot attach: {error.strerror}") from error
        finally:
            os.close(handle)
        return cls(connection, directory, exit_code)

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), CHUNK_BYTES):
            await asyncio.get_running_loop().sock_sendall(self._connection, data[start : start + CHUNK_BYTES])

    def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def resize(self, columns: int, rows: int) -> None:
        with contextlib.suppress(OSError), open(self._directory / "ctl", "wb", buffering=0) as control:
            control.write(f"1 {rows} {columns}\n".encode())

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                packet = await loop.sock_recv(self._connection, CHUNK_BYTES + 1)
            except OSError:
                packet = b""
            if not packet:
                self._ended.set()
                return
            yield _STREAM_OF_PACKET.get(packet[0], 1), packet[1:]

    async def wait(self) -> int:
        await self._ended.wait()
        return self._exit_code()

    async def aclose(self) -> None:
        self._ended.set()
        self._connection.close()


async def _read_fd(fd: int) -> bytes:
    """Some bytes of a non-blocking terminal; empty at the end (EIO once its other side is closed)."""
    while True:
        try:
            return os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            await _ready(fd, reading=True)
        except OSError:
            return b""


async def _write_fd(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _ready(fd, reading=False)
        except OSError:
            return


async def _ready(fd: int, *, reading: bool) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_reader, loop.remove_reader) if reading else (loop.add_writer, loop.remove_writer)
    add(fd, settle, future)
    try:
        await future
    finally:
        remove(fd)


def settle(future: asyncio.Future[None]) -> None:
    """Wake whoever waits; for callbacks that may fire more than once."""
    if not future.done():
        future.set_result(None)
