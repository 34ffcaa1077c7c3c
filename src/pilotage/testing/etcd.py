"""A real etcd with a directory of its own, for tests and benchmarks.

Stands apart because storage tests, API server tests and benchmarks start the same program. It is Debian's
`etcd-server`; a machine without it fails the test and says what to install. Killed, not asked, when the block ends:
what it acknowledged is on disk, and the directory goes anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

START_S = 20.0
# Between the ports that well-known servers have and those of Kubernetes' node ports, which end where the kernel begins.
_PORT_MIN, _PORT_COUNT = 11_000, 19_000


class Etcd:
    """One member, running or not."""

    def __init__(self, directory: Path, program: str) -> None:
        self._directory = directory
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0  # chosen at the first start, kept afterwards

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start and wait until it serves clients."""
        self._port = self._port or free_port()
        self._process = await asyncio.create_subprocess_exec(
            self._program,
            *("--name", "member"),
            *("--data-dir", str(self._directory)),
            *("--listen-client-urls", self.url),
            *("--advertise-client-urls", self.url),
            # Nobody joins; the address is only compared with itself.
            *("--listen-peer-urls", "http://127.0.0.1:0"),
            *("--log-level", "error"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(START_S):
            while not await self._serves():
                if self._process.returncode is not None:
                    raise AssertionError(f"etcd ended with status {self._process.returncode}")
                await asyncio.sleep(0.02)

    async def _serves(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        try:
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            return b'"true"' in await reader.read()
        except OSError:
            return False
        finally:
            writer.close()

    def forget(self) -> None:
        """Lose the disk; while it is down."""
        shutil.rmtree(self._directory)

    async def kill(self) -> None:
        """End it at once; `start` brings it back with what it had on disk."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def etcd(directory: Path) -> AsyncIterator[Etcd]:
    """A fresh etcd that keeps its data in `directory`."""
    program = shutil.which("etcd")
    assert program is not None, "this needs etcd: install Debian's etcd-server (see tools/system-packages)"
    server = Etcd(directory, program)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def free_port() -> int:
    """A port of the loopback that nobody has, for TCP and for UDP.

    Not one that the kernel gives to whoever connects somewhere: until it is taken, and while its server is away,
    somebody's connection could have it, the one that looks for the server included.
    """
    while True:
        port = _PORT_MIN + secrets.randbelow(_PORT_COUNT)
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            with contextlib.suppress(OSError):
                for probe in (stream, datagrams):
                    probe.bind(("127.0.0.1", port))
                return port
