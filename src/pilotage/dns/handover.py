"""Passing the listening sockets to the next process, so that an upgrade loses no question.

The process in service listens on a Unix socket. The next one connects, receives the sockets (SCM_RIGHTS), loads its
view of the cluster, starts to answer from the same queues, and says so; then the old one stops reading, says which
addresses it told and until when that may be believed, answers what it has begun and ends. Whichever of the two reads a
packet answers it, so there is no moment without anybody.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pilotage.dns.sockets import Key
from pilotage.telemetry import get_logger

SOCKETS_MAX = 64
TAKE_TIMEOUT_S = 5.0
READY = b"ready"
LEASES_BYTES_MAX = 16 * 1024 * 1024
"""Of what the process before told; 100,000 IPv6 addresses take 6 MB."""
_log = get_logger()


class _Offer(msgspec.Struct):
    """In the order of the file descriptors."""

    sockets: list[Key]


class Told(msgspec.Struct):
    """As /leases shows it, too."""

    seconds: dict[str, float]


@dataclass(slots=True)
class Taken:
    """What another process gave."""

    sockets: dict[Key, socket.socket]
    connection: socket.socket

    async def confirm(self) -> dict[bytes, float]:
        """Tell it that we answer; returns when it has stopped reading, or is gone.

        What it told: packed address → the seconds for which that may be believed. Nothing from a process that was lost.
        """
        loop = asyncio.get_running_loop()
        self.connection.setblocking(False)
        told = bytearray()
        try:
            async with asyncio.timeout(TAKE_TIMEOUT_S):
                await loop.sock_sendall(self.connection, READY)
                while chunk := await loop.sock_recv(self.connection, 65_536):
                    told += chunk
                    if len(told) > LEASES_BYTES_MAX:
                        raise ValueError("more than could be told")
            seconds = msgspec.json.decode(told, type=Told).seconds if told else {}
            return {ipaddress.ip_address(address).packed: left for address, left in seconds.items()}
        except (OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            _log.warning("leases could not be taken over", error=str(error)[:300])
            return {}
        finally:
            self.connection.close()


def take_over(path: str) -> Taken | None:
    """The sockets of the process that listens at `path`; None when there is none. Blocks briefly."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(TAKE_TIMEOUT_S)
    try:
        connection.connect(path)
        message, descriptors, _, _ = socket.recv_fds(connection, 65_536, SOCKETS_MAX)
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        keys = msgspec.json.decode(message, type=_Offer).sockets
        if len(sockets) != len(keys):
            raise ValueError("not as many sockets as were announced")
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        connection.close()
        if not isinstance(error, FileNotFoundError | ConnectionRefusedError):
            _log.warning("sockets could not be taken over", path=path, error=str(error)[:300])
        return None
    for taken in sockets:
        taken.setblocking(False)
    return Taken(sockets=dict(zip(keys, sockets, strict=True)), connection=connection)


def is_served(path: str) -> bool:
    """Whether a process waits at `path` for the next one; it goes on waiting. Blocks briefly."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TAKE_TIMEOUT_S)
        try:
            connection.connect(path)
        except OSError:
            return False
        with contextlib.suppress(OSError):
            connection.recv(65_536)  # its offer: left unread it would look like a failure to the other end
    return True


class HandoverListener:
    """Waits for the next process."""

    def __init__(self, path: str, sockets: Mapping[Key, socket.socket]) -> None:
        """Raises `OSError`."""
        self._sockets = sockets
        Path(path).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        before = os.umask(0o177)  # the sockets are the right to answer for the cluster
        try:
            self._listener.bind(path)
        finally:
            os.umask(before)
        self._listener.listen(1)

    async def wait(self) -> socket.socket:
        """Until another process answers by our sockets; it waits on the connection until `leave`."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            connection.setblocking(False)
            try:
                if _peer_uid(connection) not in (0, os.geteuid()):
                    raise PermissionError("another user")
                offer = _Offer(sockets=list(self._sockets))
                descriptors = [each.fileno() for each in self._sockets.values()]
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
                connection.sendmsg([msgspec.json.encode(offer)], rights)
                if await loop.sock_recv(connection, len(READY)) == READY:
                    return connection
            except OSError as error:
                _log.warning("handover failed, going on", error=str(error))
            connection.close()

    def close(self) -> None:
        self._listener.close()


async def leave(relief: socket.socket, told: bytes) -> None:
    """We have stopped reading, and told this."""
    with contextlib.suppress(OSError, TimeoutError):  # it has what it needs to answer
        async with asyncio.timeout(TAKE_TIMEOUT_S):
            await asyncio.get_running_loop().sock_sendall(relief, told)
    relief.close()


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)
