"""The UDP listener: the hot path.

A reader callback rather than a thread or a datagram transport: it takes what the kernel has, up to a batch, and answers
most of it with one dict lookup between two system calls. A thread would save the call that finds the queue empty, but
then wait for the interpreter's lock whenever the event loop is busy with updates.

What the table cannot answer at once becomes a task; their number is bounded, and beyond it the client hears SERVFAIL,
which makes resolvers try elsewhere at once instead of waiting.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from pilotage.dns.chain import Gate
from pilotage.dns.core.wire import Rotation, echo_case
from pilotage.dns.metrics import DROPPED, QUERIES
from pilotage.dns.resolver import Pending, Resolver
from pilotage.kit.tasks import TaskSet

BATCH = 64
"""Datagrams per wakeup: at ten microseconds each, updates and streams wait less than a millisecond."""
DATAGRAM_BYTES_MAX = 4096
"""A query is a question and a few options; the rest of a longer one is cut and then malformed."""
PENDING_MAX = 2_000
"""Questions waiting for upstreams, about 10 kB each with their sockets."""


class DatagramListener:
    """One bound socket."""

    def __init__(self, bound: socket.socket, resolver: Resolver, tasks: TaskSet) -> None:
        self._socket = bound
        self._resolver = resolver
        self._tasks = tasks
        self._pending = 0
        self._fast, self._cluster, self._upstream, self._refused = (
            QUERIES.labels("udp", by) for by in ("fast", "cluster", "upstream", "refused")
        )
        self._gate: Gate | None = None

    def start(self) -> None:
        """Read, or go on reading by the rules that have changed."""
        self._gate = self._resolver.chain.gate
        self._read = self._reader()
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    @property
    def pending(self) -> int:
        """Questions under way."""
        return self._pending

    def pause(self) -> None:
        """Read no more, but answer what was begun."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())

    def close(self) -> None:
        """Stop reading and close the socket; waiting questions end with their task set."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _reader(self) -> Callable[[], None]:
        """The callback, as a closure: local names are what makes it fast."""
        receive: Callable[[int], tuple[bytes, Any]] = self._socket.recvfrom
        send: Callable[[bytes, Any], object] = self._socket.sendto
        if self._gate is not None:
            receive, send = self._gate.receiver(self._socket), self._gate.sender(self._socket)
        look_up, miss, count = self._resolver.table.fast.get, self._miss, self._fast.inc

        def read() -> None:
            hits = 0
            try:
                for _ in range(BATCH):
                    data, address = receive(DATAGRAM_BYTES_MAX)
                    body = data[2:]
                    key = body.lower()
                    found = look_up(key)
                    if found is None:
                        miss(data, address)
                        continue
                    reply = found() if found.__class__ is Rotation else found
                    if body == key:
                        hits += 1
                        send(data[:2] + reply, address)  # type: ignore[operator]  # bytes: not a Rotation
                        continue
                    mixed = echo_case(data, body, key, reply)  # type: ignore[arg-type]
                    if mixed is None:
                        miss(data, address)
                    else:
                        hits += 1
                        send(mixed, address)
            except BlockingIOError:
                pass  # nothing left to read, or no room to send: a resolver asks again
            except OSError:
                DROPPED.inc()  # one client cannot be reached; the next batch goes on
            if hits:
                count(hits)

        return read

    def _miss(self, data: bytes, address: tuple[str, int]) -> None:
        result = self._resolver.now(data, client=address[0])
        if isinstance(result, bytes):
            self._cluster.inc()
            self._send(result, address)
        elif result is None:
            DROPPED.inc()
        elif self._pending >= PENDING_MAX:
            self._refused.inc()
            self._send(self._resolver.refuse(result), address)
        else:
            self._upstream.inc()
            self._pending += 1
            self._tasks.start(self._later(result, address))

    async def _later(self, pending: Pending, address: tuple[str, int]) -> None:
        try:
            self._send(await self._resolver.later(pending), address)
        finally:
            self._pending -= 1

    def _send(self, reply: bytes, address: tuple[str, int]) -> None:
        if self._gate is not None:
            self._gate.sent(address, reply, transport="udp")
        try:
            self._socket.sendto(reply, address)
        except OSError:
            DROPPED.inc()
