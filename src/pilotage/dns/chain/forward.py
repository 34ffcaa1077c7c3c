"""Asking the upstream servers: UDP first, TCP where UDP cannot be trusted or is too small, the next server on failure.

Every UDP query has a socket of its own, connected to its server, with a port that the kernel chose, an id and a letter
case that chance chose: what a forger has to guess is all of them. A server that failed twice in a row rests for a
while; resting servers are tried last, so there is no state in which nobody is asked. What one exchange looks like on
each transport is `exchange`'s.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pilotage.dns.chain import Handler, Request, Step
from pilotage.dns.chain.environment import Environment
from pilotage.dns.chain.exchange import (
    Address,
    Endpoint,
    StreamPool,
    ask_by_datagram,
    ask_by_stream,
    parse_endpoint,
    read_nameservers,
)
from pilotage.dns.core.name import Name, from_text, is_within
from pilotage.dns.core.record import NS, Rcode
from pilotage.dns.core.upstream import Reply, accept, failure, upstream_query
from pilotage.dns.core.wire import RD, Query, question_section
from pilotage.dns.document import Section
from pilotage.dns.metrics import HEALTHCHECK_FAILURES, UPSTREAM_REJECTS, UPSTREAM_SECONDS
from pilotage.kit.backoff import Backoff
from pilotage.kit.clock import Clock
from pilotage.kit.errors import UsageError

__all__ = ["Address", "Forward", "Options", "Upstream", "configure"]

FAILURES_BEFORE_REST = 2
POLICIES = ("sequential", "random", "round_robin")
UPSTREAMS_MAX = 16
CONCURRENT_MAX = 4_000
WITHOUT_CHECKS_S = 3600.0
"""The task also owns the kept connections, so it lives on when there is nothing to check."""
_REST = Backoff(initial_s=0.5, max_s=15.0)
_UNHELPFUL = (Rcode.SERVFAIL, Rcode.REFUSED, Rcode.NOTIMP)


@dataclass(slots=True)
class Upstream:
    """A server with its health and its kept connections."""

    endpoint: Endpoint
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0
    streams: StreamPool = field(default_factory=StreamPool)

    def succeeded(self) -> None:
        self.failures = 0
        self.rests_until = 0.0

    def failed(self, now: float) -> None:
        self.failures += 1
        if self.failures >= FAILURES_BEFORE_REST:
            self.rests_until = now + _REST.delay_s(self.failures - FAILURES_BEFORE_REST + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to use the servers."""

    zones: tuple[Name, ...] = ((),)
    except_zones: tuple[Name, ...] = ()
    policy: str = "sequential"
    attempts: int = UPSTREAMS_MAX
    """Servers asked for one question at most."""
    attempt_timeout_s: float = 2.0
    race: int = 1
    """Servers asked at the same time; the first useful answer counts."""
    health_interval_s: float = 0.0
    """Between questions of our own to servers that rest; 0: only clients' questions tell."""
    health_name: Name = ()
    concurrent_max: int = CONCURRENT_MAX
    """Further questions are SERVFAIL at once."""
    force_tcp: bool = False


class Forward(Step):
    """One set of servers for some zones."""

    def __init__(self, endpoints: Sequence[Endpoint], clock: Clock, options: Options) -> None:
        self.upstreams = [Upstream(endpoint) for endpoint in endpoints]
        self.options = options
        self._clock = clock
        self._turn = 0
        self._under_way = 0

    def serves(self, name: Name) -> bool:
        options = self.options
        return any(is_within(name, zone) for zone in options.zones) and not any(
            is_within(name, zone) for zone in options.except_zones
        )

    async def resolve(self, request: Request, following: Handler) -> Reply:
        """The first useful answer; without one the first refusal, SERVFAIL when nobody answered."""
        if not self.upstreams or not self.serves(request.query.name):
            return await following(request)
        if self._under_way >= self.options.concurrent_max:
            UPSTREAM_REJECTS.inc()
            return failure(request.query, Rcode.SERVFAIL)
        self._under_way += 1
        try:
            return await self._ask_in_turn(request.query)
        finally:
            self._under_way -= 1

    def order(self) -> list[Upstream]:
        """By policy, healthy ones first."""
        order = list(self.upstreams)
        if self.options.policy == "random":
            random.shuffle(order)
        elif self.options.policy == "round_robin":
            self._turn = (self._turn + 1) % len(order)
            order = order[self._turn :] + order[: self._turn]
        now = self._clock.monotonic()
        order.sort(key=lambda upstream: upstream.rests_until > now)  # stable
        return order[: self.options.attempts]

    async def _ask_in_turn(self, query: Query) -> Reply:
        order = self.order()
        refusal: Reply | None = None
        while order:
            group, order = order[: self.options.race], order[self.options.race :]
            reply = await self._attempt(group[0], query) if len(group) == 1 else await self._race(group, query)
            if reply is not None and reply.rcode not in _UNHELPFUL:
                return reply
            refusal = refusal or reply  # alive, but of no help: another may know
        return refusal or failure(query, Rcode.SERVFAIL)

    async def _race(self, group: Iterable[Upstream], query: Query) -> Reply | None:
        """Ask all at once; the first useful answer ends the others."""
        refusal: Reply | None = None
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._attempt(upstream, query)) for upstream in group]
            for finished in asyncio.as_completed(asked):
                reply = await finished
                if reply is not None and reply.rcode not in _UNHELPFUL:
                    for task in asked:
                        task.cancel()
                    return reply
                refusal = refusal or reply
        return refusal

    async def _attempt(self, upstream: Upstream, query: Query) -> Reply | None:
        """One question to one server; None when it does not answer, or not properly."""
        started = self._clock.monotonic()
        try:
            reply = await self._ask(upstream, query)
        except (OSError, TimeoutError, ValueError, EOFError):
            upstream.failed(self._clock.monotonic())
            self._observe(upstream, "failed", started)
            return None
        upstream.succeeded()
        self._observe(upstream, "answered", started)
        return reply

    def _observe(self, upstream: Upstream, result: str, started: float) -> None:
        UPSTREAM_SECONDS.labels(str(upstream.endpoint), result).observe(self._clock.monotonic() - started)

    async def _ask(self, upstream: Upstream, query: Query) -> Reply:
        sent = upstream_query(query, secrets.randbits(16), secrets.randbits(256))
        endpoint = upstream.endpoint
        async with asyncio.timeout(self.options.attempt_timeout_s):
            received = None
            if endpoint.transport == "udp" and not self.options.force_tcp:
                received = await ask_by_datagram(endpoint.address, sent)
            if received is None:
                received = await ask_by_stream(endpoint, upstream.streams, sent)
        return accept(sent, received)

    async def run(self) -> None:
        """Ask servers that rest whether they are back, so that no client's question has to find out."""
        try:
            name = self.options.health_name
            probe = Query(id=0, flags=RD, name=name, rtype=NS, rclass=1, question=question_section(name, NS))
            while True:
                await asyncio.sleep(self.options.health_interval_s or WITHOUT_CHECKS_S)
                if not self.options.health_interval_s:
                    continue
                for upstream in self.upstreams:
                    if upstream.failures and await self._attempt(upstream, probe) is None:
                        HEALTHCHECK_FAILURES.labels(str(upstream.endpoint)).inc()
        finally:
            self.close()

    def close(self) -> None:
        for upstream in self.upstreams:
            upstream.streams.close()


def configure(section: Section) -> Callable[[Environment], Forward]:
    """`forward: {zones, except, to, policy, attempts, timeout_s, race, health_interval_s, …}`"""
    server_name, ca_file = section.text("tls_server_name"), section.text("tls_ca")
    groups = section.convert_all("to", lambda text: _servers(text, server_name, ca_file))
    endpoints = list(dict.fromkeys(endpoint for group in groups for endpoint in group))
    if not 1 <= len(section.texts("to")) <= UPSTREAMS_MAX or len(endpoints) > UPSTREAMS_MAX:
        section.problem(f"to: one to {UPSTREAMS_MAX} servers", "to")
    options = Options(
        zones=section.convert_all("zones", from_text, ((),)),
        except_zones=section.convert_all("except", from_text),
        policy=section.text("policy", "random", choices=POLICIES),
        attempts=section.integer("attempts", UPSTREAMS_MAX, least=1, most=UPSTREAMS_MAX),
        attempt_timeout_s=section.number("timeout_s", 2.0, least=0.01, most=30),
        race=section.integer("race", 1, least=1, most=UPSTREAMS_MAX),
        health_interval_s=section.number("health_interval_s", 0.5, most=3600),
        health_name=section.convert("health_name", from_text, ()),
        concurrent_max=section.integer("concurrent_max", CONCURRENT_MAX, least=1, most=100_000),
        force_tcp=section.flag("force_tcp"),
    )
    section.end()
    return lambda environment: Forward(endpoints, environment.clock, options)


def _servers(text: str, server_name: str, ca_file: str) -> tuple[Endpoint, ...]:
    """One server, or those that a resolv.conf(5) names. Raises `UsageError`."""
    if not text.startswith("/"):
        return (parse_endpoint(text, server_name, ca_file),)
    found = tuple(Endpoint(address) for address in read_nameservers(text))
    if not found:
        raise UsageError(f"{text} names no server")
    return found
