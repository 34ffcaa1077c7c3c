"""How many questions one client may ask: a token bucket each, before anything else is spent on it."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from pilotage.dns.chain import Verdict
from pilotage.dns.chain.clients import ClientSet, parse_network
from pilotage.dns.chain.environment import Environment
from pilotage.dns.document import Section
from pilotage.dns.metrics import GUARDED
from pilotage.kit.clock import Clock

CLIENTS_MAX = 20_000
"""Buckets, about 200 bytes each; when full, that of the client unheard of longest goes."""
ACTIONS = {"drop": Verdict.DROP, "refuse": Verdict.REFUSE, "truncate": Verdict.TRUNCATE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much, per what, and what happens beyond."""

    per_second: float
    burst: float
    prefix_v4: int = 32
    prefix_v6: int = 64
    """Clients of one prefix share a bucket: whoever has one IPv6 address has 2⁶⁴."""
    verdict: Verdict = Verdict.REFUSE
    exempt: ClientSet


class RateLimit:
    """One bucket per client or prefix."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()  # tokens, time of the last question
        self._whole = options.prefix_v4 == 32
        self._limited = GUARDED.labels("ratelimit")

    def __len__(self) -> int:
        return len(self._buckets)

    def admit(self, client: str, data: bytes) -> Verdict:
        options = self._options
        if options.exempt and client in options.exempt:
            return Verdict.SERVE
        key = client if self._whole and ":" not in client else self._prefix(client)
        now = self._clock.monotonic()
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= CLIENTS_MAX:
                self._buckets.popitem(last=False)
            self._buckets[key] = [options.burst - 1, now]
            return Verdict.SERVE
        self._buckets.move_to_end(key)
        tokens = min(options.burst, bucket[0] + (now - bucket[1]) * options.per_second)
        bucket[1] = now
        if tokens < 1:
            bucket[0] = tokens
            self._limited.inc()
            return options.verdict
        bucket[0] = tokens - 1
        return Verdict.SERVE

    def _prefix(self, client: str) -> str:
        bits = self._options.prefix_v6 if ":" in client else self._options.prefix_v4
        return str(ipaddress.ip_network(f"{client.partition('%')[0]}/{bits}", strict=False))


def configure(section: Section) -> Callable[[Environment], RateLimit]:
    """`ratelimit: {per_second, burst, prefix_v4, prefix_v6, action, exempt}`"""
    per_second = section.number("per_second", 0.0, most=1e7)
    if not per_second:
        section.problem("per_second is missing or 0")
    options = Options(
        per_second=per_second,
        burst=section.number("burst", max(2 * per_second, 1.0), least=1, most=1e7),
        prefix_v4=section.integer("prefix_v4", 32, least=1, most=32),
        prefix_v6=section.integer("prefix_v6", 64, least=1, most=128),
        verdict=ACTIONS[section.text("action", "refuse", choices=ACTIONS)],
        exempt=ClientSet(section.convert_all("exempt", parse_network)),
    )
    section.end()
    return lambda environment: RateLimit(options, environment.clock)
