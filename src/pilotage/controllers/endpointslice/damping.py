"""Which pods that are ready again wait before they get traffic, because they have failed too often of late.

Stands apart from `core`, which turns pods into slices: this remembers what no object says, how often a pod has stopped
being ready. Pure; fed by `reconciler.py` with every change of a pod and with the time. The rules, for users, are in
docs/churn-damping.md, the reasons in ADR 8.

A *flap* is a pod that stops being ready while nobody has asked it to go. From the third flap within half an hour on,
the pod must stay ready for a while before it counts: 10 s, then twice as long with each further flap, at most 120 s.
Only additions ever wait. Leaves out who is told: that is the shell's.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pilotage.api.core_v1 import Pod, Service
from pilotage.kit.backoff import Backoff

WINDOW_S = 1800.0
"""Longer than several of the five minutes for which a crash loop pauses, or the slowest loops would never be seen."""

FLAPS_FREE = 2
"""A rollback and a node that was lost for a moment are no pattern."""

HOLD = Backoff(initial_s=10.0, max_s=120.0)
FLAPS_MAX = 8  # remembered of one pod; the hold does not grow any more before that
PODS_MAX = 10_000  # remembered, those that flapped longest ago are forgotten first

OPT_OUT = "pilotage.dev/churn-damping"
"""On a Service, with the value "disabled": its endpoints never wait."""


@dataclass(slots=True)
class _Record:
    flaps: deque[float] = field(default_factory=lambda: deque(maxlen=FLAPS_MAX))  # times, oldest first
    ready_at: float | None = None  # since when it is ready again; None: it is not, or has been let through


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A pod that is ready and waits."""

    flaps: int  # within the window
    required_s: float  # how long it must stay ready
    left_s: float  # > 0

    @property
    def rule(self) -> str:
        """For people, without what changes by the second."""
        often = f"stopped being ready {self.flaps} times in {WINDOW_S / 60:.0f} min"
        return f"{often}, must stay ready {self.required_s:.0f} s"


class Damping:
    """The flaps of all pods that have any, by namespace/name: a StatefulSet's next pod inherits its place's history."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def observe(self, old: Pod | None, new: Pod | None, now: float) -> bool:
        """A pod has changed (both states, as an informer tells); True if that was a flap."""
        was, is_ready = _is_ready(old), _is_ready(new)
        pod = new or old
        if pod is None or was == is_ready:
            return False
        key = pod.metadata.key
        if is_ready:
            if key in self._records:
                self._records[key].ready_at = now
            return False
        # Deleted, evicted, drained or scaled away is no flap; neither is an end in success.
        flapped = new is not None and not new.metadata.is_deleting and new.status.phase != "Succeeded"
        record = self._records.get(key)
        if record is not None:
            record.ready_at = None
        if flapped:
            record = record or self._records.setdefault(key, _Record())
            record.flaps.append(now)
            self._records.move_to_end(key)
            self._forget(now)
        return flapped

    def holds(self, service: Service, pods: Iterable[Pod], now: float) -> Mapping[str, Hold]:
        """Pod key → why it waits, of the Service's pods that are ready.

        Never more than half of them: what is left would have to carry the load of the others, and a Service is better
        served by a pod that may fail than by none. Then all are let through, and stay so until they fail again.
        """
        if not self._records or service.metadata.annotations.get(OPT_OUT) == "disabled":
            return {}
        ready = [pod.metadata.key for pod in pods if _is_ready(pod) and not pod.metadata.is_deleting]
        found = {key: hold for key in ready if (hold := self._hold(key, now)) is not None}
        if 2 * len(found) <= len(ready):
            return found
        for key in found:
            self._records[key].ready_at = None
        return {}

    def _hold(self, key: str, now: float) -> Hold | None:
        record = self._records.get(key)
        if record is None or record.ready_at is None:
            return None
        flaps = sum(1 for moment in record.flaps if moment > record.ready_at - WINDOW_S)
        required_s = HOLD.delay_s(flaps - FLAPS_FREE)
        left_s = record.ready_at + required_s - now
        return Hold(flaps=flaps, required_s=required_s, left_s=left_s) if left_s > 0 else None

    def _forget(self, now: float) -> None:
        while self._records:
            key, record = next(iter(self._records.items()))
            if record.flaps[-1] > now - WINDOW_S and len(self._records) <= PODS_MAX:
                return
            del self._records[key]


def _is_ready(pod: Pod | None) -> bool:
    return pod is not None and pod.status.is_ready
