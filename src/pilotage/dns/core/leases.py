"""Which address was told to somebody, and until when that may be believed: not to be given to another pod before.

Costs the hot path nothing, because it does not see single answers: while an answer with an address is compiled, it may
be given any moment, so the address is in use; when the answer is dropped, the last one given lapses a TTL later. That
is never too early, and too late only by the time nobody asked. Fed by `table`; read by the shell's /leases.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from pilotage.dns.core.record import AAAA, A
from pilotage.dns.core.zone import Answer

LAPSING_MAX = 100_000
"""Addresses whose answers are gone; lapsed ones are swept when this many have gathered."""


class Leases:
    """By packed address."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` in monotonic seconds."""
        self._now = now
        self._held: dict[Hashable, dict[bytes, int]] = {}  # scope → address → the longest TTL told
        self._lapsing: dict[bytes, float] = {}  # address → the end

    def told(self, answer: Answer, *, kept: bool) -> None:
        """An answer was compiled: given once, or (`kept`) from now on until its scope is dropped."""
        for record in (*answer.answers, *answer.additional):
            if record.rtype not in (A, AAAA):
                continue
            (address,) = record.data
            assert isinstance(address, bytes)
            if kept:
                addresses = self._held.setdefault(answer.scope, {})
                addresses[address] = max(record.ttl, addresses.get(address, 0))
            else:
                self._lapse(address, record.ttl)

    def dropped(self, scope: Hashable) -> None:
        """The answers of this scope are given no more."""
        for address, ttl in self._held.pop(scope, {}).items():
            self._lapse(address, ttl)

    def dropped_all(self) -> None:
        """No compiled answer is left."""
        for scope in list(self._held):
            self.dropped(scope)

    def adopt(self, remaining: Mapping[bytes, float]) -> None:
        """Somebody else told these, for so many seconds from now."""
        for address, seconds in remaining.items():
            self._lapse(address, seconds)

    def _lapse(self, address: bytes, ttl: float) -> None:
        now = self._now()
        if len(self._lapsing) >= LAPSING_MAX:
            self._lapsing = {known: end for known, end in self._lapsing.items() if end > now}
        self._lapsing[address] = max(now + ttl, self._lapsing.get(address, 0.0))

    def remaining(self, answering_s: float = 0.0) -> dict[bytes, float]:
        """Seconds for which each address may still be believed; of held ones, as if dropped in `answering_s`."""
        now = self._now()
        found = {address: end - now for address, end in self._lapsing.items() if end > now}
        for addresses in self._held.values():
            for address, ttl in addresses.items():
                found[address] = max(answering_s + ttl, found.get(address, 0.0))
        return found
