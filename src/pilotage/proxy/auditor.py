"""Keeps the kernel as planned, whoever else changes it: looks at what others touched, and at the rest in turn.

Apart from the proxier, which follows the API: this follows the kernel. The kernel tells which sets others changed; only
those are looked at, at once. Besides, one part after another is compared though nobody seems to have touched it, all of
them within `round_s`. A part is one set's elements, or the rules of a family. It is listed beside the proxier's changes
and then judged with the kernel held, so a change waits for one comparison at most: 50 ms where a set has 100,000
elements (10,000 Services, 10 endpoints each), microseconds for most.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping

from pilotage.kit.clock import Clock
from pilotage.nft.core.objects import ElementValue
from pilotage.proxy import metrics
from pilotage.proxy.backends import Backend
from pilotage.proxy.blocking import in_thread
from pilotage.proxy.core.drift import Drift, Part
from pilotage.proxy.errors import BackendError
from pilotage.telemetry import get_logger

_log = get_logger()


class Auditor:
    """`run` it beside the proxier; whoever holds `kernel` is alone with the backend, listings excepted."""

    def __init__(
        self,
        backend: Backend,
        kernel: asyncio.Lock,
        wanted: Callable[[Part], Mapping[bytes, ElementValue]],
        report: Callable[[tuple[Drift, ...]], None],
        *,
        interval_s: float,
        round_s: float,
        clock: Clock,
    ) -> None:
        """`wanted` is called with the kernel held and on a thread; `report` learns what was repaired."""
        self._backend, self._kernel, self._wanted, self._report = backend, kernel, wanted, report
        self._interval_s, self._round_s, self._clock = interval_s, round_s, clock
        self._waiting: dict[Part, None] = {}  # in order; what could not be looked at stays

    async def run(self) -> None:
        """Until cancelled."""
        pace_s = self._round_s / len(self._backend.parts)
        next_at = self._clock.monotonic() + pace_s
        in_turn = itertools.cycle(self._backend.parts)
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                async with self._kernel:
                    self._waiting |= dict.fromkeys(self._backend.disturbed())
                if not self._waiting and self._clock.monotonic() >= next_at:
                    next_at = self._clock.monotonic() + pace_s
                    self._waiting[next(in_turn)] = None
                await self._examine_waiting()
            except BackendError as error:
                metrics.FAILURES.labels(kind="audit").inc()
                _log.error("audit failed", error=str(error))
                self._waiting = dict.fromkeys(self._backend.parts)  # whatever it was, it may not have been repaired

    async def _examine_waiting(self) -> None:
        found: list[Drift] = []
        differed: set[Part] = set()
        try:
            while self._waiting:
                part = next(iter(self._waiting))
                drift = await self._examine(part)
                found += drift
                del self._waiting[part]
                if drift and part not in differed:
                    differed.add(part)
                    self._waiting |= dict.fromkeys(self._backend.after(part))
        finally:
            if found:
                self._report(tuple(found))

    async def _examine(self, part: Part) -> tuple[Drift, ...]:
        seen = await in_thread(self._backend.look, part)
        async with self._kernel:  # so that the plan is the one in force
            return await in_thread(self._judge, part, seen)

    def _judge(self, part: Part, seen: Mapping[bytes, ElementValue]) -> tuple[Drift, ...]:
        return self._backend.judge(part, seen, self._wanted(part))
