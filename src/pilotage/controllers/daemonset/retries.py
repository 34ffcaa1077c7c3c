"""When a daemon pod that has failed on a node is replaced: at once, then after pauses that double.

Stands apart because it remembers between reconciles, which the plan does not. A node that refuses its daemon would
otherwise be asked again as fast as pods can be created. Pure; the time is an argument. The pauses are
kube-controller-manager's.
"""

from dataclasses import dataclass

from pilotage.kit.backoff import Backoff

PAUSE = Backoff(initial_s=1.0, max_s=900.0)
FORGET_S = 2 * PAUSE.max_s  # without a failure for this long a node begins again
REMEMBERED_MAX = 10_000  # daemon and node pairs; beyond this those that are due are swept out

Place = tuple[str, str]  # uid of the set, node


@dataclass(slots=True)
class _Failures:
    pod: str  # uid of the last that failed
    count: int
    due: float  # when it is replaced
    at: float


class Retries:
    """The failures of all daemons on all nodes."""

    def __init__(self) -> None:
        self._failures: dict[Place, _Failures] = {}

    def failed(self, place: Place, pod: str, now: float) -> bool:
        """A pod has failed; True if that is news. May be repeated."""
        known = self._failures.get(place)
        if known is not None and known.pod == pod:
            return False
        count = known.count + 1 if known is not None and now - known.at < FORGET_S else 0
        if len(self._failures) >= REMEMBERED_MAX:
            self._failures = {key: value for key, value in self._failures.items() if value.due > now}
        self._failures[place] = _Failures(pod, count, now + PAUSE.delay_s(count), now)
        return True

    def left_s(self, place: Place, now: float) -> float:
        """Seconds until the last that failed is replaced."""
        known = self._failures.get(place)
        return max(known.due - now, 0.0) if known is not None else 0.0
