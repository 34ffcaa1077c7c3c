"""How long an answer may be believed: short while its object changes, longer the longer it has been quiet.

The heuristic is that of HTTP caches (RFC 9111 §4.2.2): a tenth of the time since the last change, in steps that double,
between bounds that the user sets. Only objects that changed lately are remembered; what is unknown has been quiet for
longer than matters. Driven by `table`, timed by the shell.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

FRACTION = 10
"""An answer is believed for this part of its object's age."""
RECENT_MAX = 20_000
"""Objects remembered, about 200 bytes each; beyond that the one quiet longest counts as quiet for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TtlBounds:
    """Seconds; 0 ≤ least ≤ most."""

    least: int
    most: int
    negative: int
    """For names that may appear any moment."""


class Ages:
    """When objects changed last."""

    def __init__(self, bounds: TtlBounds, now: Callable[[], float]) -> None:
        """`now` in monotonic seconds."""
        self.bounds = bounds
        self._now = now
        self._changed: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()  # time, TTL told since

    def __len__(self) -> int:
        return len(self._changed)

    def changed(self, key: Hashable) -> None:
        """The object is different from now on."""
        self._changed[key] = (self._now(), self.bounds.least)
        self._changed.move_to_end(key)
        if len(self._changed) > RECENT_MAX:
            self._changed.popitem(last=False)

    def ttl(self, key: Hashable) -> int:
        """What answers about the object say at present."""
        known = self._changed.get(key)
        return self.bounds.most if known is None else known[1]

    def due(self, now: float) -> list[Hashable]:
        """The objects whose TTL has grown since the last call; their compiled answers say the old one."""
        grown = []
        for key, (since, told) in list(self._changed.items()):
            ttl = step((now - since) / FRACTION, self.bounds)
            if ttl > told:
                grown.append(key)
                if ttl >= self.bounds.most:
                    del self._changed[key]
                else:
                    self._changed[key] = (since, ttl)
        return grown


def step(seconds: float, bounds: TtlBounds) -> int:
    """`least` doubled (from 1 when it is 0) as often as stays at most `seconds`; `most` once that is reached."""
    if seconds >= bounds.most:
        return bounds.most
    ttl = max(bounds.least, 1)
    if seconds < ttl:
        return min(bounds.least, bounds.most)
    while ttl * 2 <= seconds:
        ttl *= 2
    return ttl
