"""How often one request writes: at once after a quiet time, then at most once an interval.

Stands apart because the controllers of endpoints share it: a thousand pods that become ready in a second are ten
versions of an object then, not a thousand, each of which every node would have to read. Pure; the time is an argument.
Whether a write may wait at all says the caller: one that takes an address away never does.
"""

from pilotage.reconcile.request import Request

INTERVAL_S = 0.1
"""Below what anybody notices, and ten times what a consumer needs to apply a change."""

REMEMBERED_MAX = 4096  # requests whose last write is remembered before old ones are swept out


class Pace:
    """The last writes of one controller."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._written: dict[Request, float] = {}

    def left_s(self, request: Request, now: float) -> float:
        """Seconds until a write that may wait should go; 0 for now."""
        return max(self._written.get(request, now - self._interval_s) + self._interval_s - now, 0.0)

    def wrote(self, request: Request, now: float) -> None:
        """Something was written for `request`."""
        if len(self._written) >= REMEMBERED_MAX:
            self._written = {key: at for key, at in self._written.items() if at + self._interval_s > now}
        self._written[request] = now
