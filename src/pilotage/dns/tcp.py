"""The TCP listener (RFC 7766): many questions per connection, answered as they come ready, in any order.

Everything a peer can hold is bounded: connections, questions under way per connection, the time between questions, the
time one question may trickle in, and the time the answer may take to be taken.
"""

from __future__ import annotations

import asyncio
from contextlib import closing

from pilotage.dns.metrics import CONNECTIONS, DROPPED, QUERIES
from pilotage.dns.resolver import Pending, Resolver
from pilotage.dns.transfer import Transfers
from pilotage.kit.tasks import TaskSet, task_set

CONNECTIONS_MAX = 1_000
"""About 20 kB each. A further one takes the place of the one that has been idle longest, so that a thousand silent
connections keep nobody out (RFC 7766 §6.2.3); when none is idle it is closed at once."""
QUESTIONS_MAX = 32
"""Under way per connection; further ones wait unread, which slows the peer down."""
IDLE_TIMEOUT_S = 30.0
MESSAGE_TIMEOUT_S = 5.0
"""For the rest of a message once its length is known, and for the peer to take an answer."""
MESSAGE_BYTES_MAX = 4_096
"""A query is a question and a few options; a longer one closes the connection."""


class StreamListener:
    """Serves accepted connections, plain ones and those that TLS protects (RFC 7858)."""

    def __init__(self, resolver: Resolver, *, transport: str = "tcp", transfers: Transfers | None = None) -> None:
        """`transport` is what metrics and taps call it; without `transfers` nobody may copy the zone."""
        self._resolver = resolver
        self._transport = transport
        self._transfers = transfers
        self._open = 0
        self._leaving = False
        self._idle: dict[asyncio.StreamWriter, None] = {}  # waiting for a question, longest first
        self._cluster, self._upstream = (QUERIES.labels(transport, by) for by in ("cluster", "upstream"))

    def leave(self) -> None:
        """Connections end after their next answer, unless another question is there already."""
        self._leaving = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends, is idle, or breaks a rule."""
        if self._open >= CONNECTIONS_MAX and not self._evict():
            writer.close()
            return
        self._open += 1
        CONNECTIONS.set(self._open)
        try:
            async with task_set() as tasks:
                await self._read(reader, writer, tasks)
        except* (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the peer left or is too slow, perhaps several answers at once: there is nobody to tell
        finally:
            self._open -= 1
            CONNECTIONS.set(self._open)
            self._idle.pop(writer, None)
            writer.close()

    def _evict(self) -> bool:
        """Close the connection that has been idle longest; False if none is."""
        writer = next(iter(self._idle), None)
        if writer is None:
            return False
        del self._idle[writer]
        writer.transport.abort()
        return True

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tasks: TaskSet) -> None:
        slots = asyncio.Semaphore(QUESTIONS_MAX)
        asked = False
        while True:
            try:
                async with asyncio.timeout(0 if asked and self._leaving else IDLE_TIMEOUT_S):
                    self._idle[writer] = None
                    prefix = await reader.read(2)
                    self._idle.pop(writer, None)
                    if len(prefix) == 1:
                        prefix += await reader.readexactly(1)
            except TimeoutError:
                if self._leaving:
                    break
                raise
            asked = True
            if not prefix:
                break  # the peer has asked everything, and may still be listening
            length = int.from_bytes(prefix, "big")
            if not 12 <= length <= MESSAGE_BYTES_MAX:
                DROPPED.inc()
                break
            async with asyncio.timeout(MESSAGE_TIMEOUT_S):
                data = await reader.readexactly(length)
            client = writer.get_extra_info("peername") or ("", 0)
            gate = self._resolver.chain.gate
            if gate is not None and (refusal := gate.check(client, data, transport=self._transport)) is not None:
                if not refusal:
                    break
                await _send(writer, refusal)  # the gate has told the taps
                continue
            if self._transfers is not None and (messages := self._transfers.answer(data, client[0])) is not None:
                with closing(messages):
                    for message in messages:
                        await _send(writer, message)
                        await asyncio.sleep(0)  # others have their turn between two messages
                continue
            result = self._resolver.now(data, stream=True, client=client[0])
            if isinstance(result, Pending):
                self._upstream.inc()
                await slots.acquire()
                tasks.start(self._later(result, writer, slots))
            elif result is None:
                DROPPED.inc()
                break
            else:
                self._cluster.inc()
                await self._reply(writer, result)
        for _ in range(QUESTIONS_MAX):
            await slots.acquire()  # let what is under way be answered

    async def _later(self, pending: Pending, writer: asyncio.StreamWriter, slots: asyncio.Semaphore) -> None:
        try:
            await self._reply(writer, await self._resolver.later(pending, stream=True))
        finally:
            slots.release()

    async def _reply(self, writer: asyncio.StreamWriter, reply: bytes) -> None:
        gate = self._resolver.chain.gate
        if gate is not None:
            gate.sent(writer.get_extra_info("peername") or ("", 0), reply, transport=self._transport)
        await _send(writer, reply)


async def _send(writer: asyncio.StreamWriter, reply: bytes) -> None:
    writer.write(len(reply).to_bytes(2, "big") + reply)
    async with asyncio.timeout(MESSAGE_TIMEOUT_S):
        await writer.drain()
