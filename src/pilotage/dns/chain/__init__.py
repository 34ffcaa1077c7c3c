"""The slow path: what happens to a question that the table may not answer, as an ordered chain of steps.

A step answers, or asks the next one and may look at what comes back; after the last one the name is nobody's. One file
a step, which also reads the step's part of the configuration file; `registry` names them, `build` joins them.

Two kinds of step never see the chain, because what they do concerns every packet: a `Guard` decides before a packet is
looked at whether its sender is served, a `Tap` sees packets pass. Listeners have no code for them unless one is
configured.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Protocol

from pilotage.dns.core.name import Name
from pilotage.dns.core.record import CLASS_IN, Rcode
from pilotage.dns.core.upstream import Reply, failure
from pilotage.dns.core.wire import Query, error_reply, question_section


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question and who asks it."""

    query: Query
    client: str = ""
    """The asker's address; empty for the server's own questions."""

    def about(self, name: Name, rtype: int) -> Request:
        """The same asker's question about another name, for CNAMEs and rewritten names."""
        query = replace(self.query, name=name, rtype=rtype, rclass=CLASS_IN, question=question_section(name, rtype))
        return replace(self, query=query)


Handler = Callable[[Request], Awaitable[Reply]]


class Step:
    """One link. Never raises for what the network does: a failure is a `Reply` too."""

    async def resolve(self, request: Request, following: Handler) -> Reply:
        return await following(request)

    def claims(self, query: Query) -> bool:
        """Whether this question must come here although the table has an answer. Asked once per compiled answer."""
        return False

    async def run(self) -> None:
        """What the step does beside answering, for as long as it is in service: health checks, reading files."""


class Verdict(Enum):
    """What a guard says about a packet."""

    SERVE = auto()
    REFUSE = auto()
    DROP = auto()
    TRUNCATE = auto()
    """Say "ask by TCP", which a forged address cannot."""


class Guard(Protocol):
    """Decides about every packet, so it must cost about a microsecond."""

    def admit(self, client: str, data: bytes) -> Verdict: ...


class Tap(Protocol):
    """Sees packets and must not change them."""

    def received(self, client: tuple[Any, ...], data: bytes) -> None: ...
    def sent(self, client: tuple[Any, ...], reply: bytes, *, transport: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Gate:
    """All guards and taps; listeners hold none when there are none."""

    guards: tuple[Guard, ...] = ()
    taps: tuple[Tap, ...] = ()

    def check(self, client: tuple[Any, ...], data: bytes, *, transport: str) -> bytes | None:
        """None to serve; else the reply, which is empty for a packet that deserves none."""
        for tap in self.taps:
            tap.received(client, data)
        for guard in self.guards:
            verdict = guard.admit(client[0], data)
            if verdict is Verdict.SERVE or (verdict is Verdict.TRUNCATE and transport != "udp"):
                continue
            reply = b"" if verdict is Verdict.DROP or len(data) < 12 or data[2] & 0x80 else _refusal(data, verdict)
            if reply:
                self.sent(client, reply, transport=transport)
            return reply
        return None

    def sent(self, client: tuple[Any, ...], reply: bytes, *, transport: str) -> None:
        for tap in self.taps:
            tap.sent(client, reply, transport=transport)

    def receiver(self, bound: socket.socket) -> Callable[[int], tuple[bytes, Any]]:
        """`bound.recvfrom` that returns only packets to be served."""

        def receive(size: int) -> tuple[bytes, Any]:
            while True:
                data, client = bound.recvfrom(size)
                reply = self.check(client, data, transport="udp")
                if reply is None:
                    return data, client
                if reply:
                    bound.sendto(reply, client)

        return receive

    def sender(self, bound: socket.socket) -> Callable[[bytes, Any], object]:
        """`bound.sendto` that the taps see."""

        def send(reply: bytes, client: Any) -> object:
            self.sent(client, reply, transport="udp")
            return bound.sendto(reply, client)

        return send if self.taps else bound.sendto


def _refusal(data: bytes, verdict: Verdict) -> bytes:
    """REFUSED, or an empty truncated answer; with the question where there is one, so that clients recognise it."""
    if verdict is Verdict.REFUSE:
        return error_reply(data, Rcode.REFUSED)
    end = data.find(b"\0", 12) + 5
    if end < 17 or end > len(data):
        return error_reply(data, Rcode.REFUSED)
    return data[:2] + bytes((0x82 | data[2] & 0x01, 0)) + b"\0\1\0\0\0\0\0\0" + data[12:end]


def link(steps: Sequence[Step], last: Handler) -> Handler:
    """The handler that runs `steps` in order and ends at `last`."""
    handler = last
    for step in reversed(steps):
        handler = _bind(step, handler)
    return handler


def _bind(step: Step, following: Handler) -> Handler:
    async def handle(request: Request) -> Reply:
        return await step.resolve(request, following)

    return handle


async def nobody(request: Request) -> Reply:
    """The end of every chain: a name that no step answers is not served here."""
    return failure(request.query, Rcode.REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What a configuration file makes: everything that is exchanged at once when the file changes."""

    handler: Handler = nobody
    steps: tuple[Step, ...] = ()
    """In order, for `run`."""
    claiming: tuple[Step, ...] = ()
    """Those whose `claims` may be true."""
    gate: Gate | None = None
    recursive: bool = False
    """Whether any name outside can be answered: the RA bit."""
    depends_on_cluster: bool = False
    """Whether answers of the chain may become wrong by a change of the cluster."""

    def claims(self, query: Query) -> bool:
        return any(step.claims(query) for step in self.claiming)
