"""Which pod is tried next: active, backing off, or waiting for the cluster to change.

Stands apart because it decides *when*, the cycle decides *where*. Fed with pods by the shell, with cluster events by
the snapshot's changes; `pop` serves the shell's loop. Leaves out clocks: every call takes `now` in monotonic seconds.

A pod that did not fit is not retried blindly: it waits until an event that one of the filters that rejected it has
declared helpful, and then serves a backoff that grows with its attempts (as kube-scheduler: 1 s doubling to 10 s).
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from pilotage.kit.backoff import Backoff
from pilotage.scheduler.core.model import PodInfo, PodKey

BACKOFF = Backoff(initial_s=1.0, max_s=10.0)
"""Delay after n failed attempts, as kube-scheduler's podInitialBackoffSeconds and podMaxBackoffSeconds."""

UNSCHEDULABLE_S_MAX = 300.0
"""A pod waits for an event at most this long, so that a missing event declaration costs minutes, never forever."""


class ClusterEvent(Enum):
    """What may have changed in favour of a pod that did not fit."""

    NODE_ADDED = "NodeAdded"
    NODE_CHANGED = "NodeChanged"
    POD_BOUND = "PodBound"
    POD_CHANGED = "PodChanged"
    POD_GONE = "PodGone"
    NAMESPACE_CHANGED = "NamespaceChanged"
    CLAIM_CHANGED = "ClaimChanged"


@dataclass(slots=True)
class QueuedPod:
    """One pod with its history in the queue."""

    info: PodInfo
    added_at: float
    attempts: int = 0
    ready_at: float = 0.0  # earliest next attempt
    since: float = 0.0  # when it became unschedulable
    wakes: frozenset[ClusterEvent] = frozenset()


@dataclass(slots=True)
class QueueSnapshot:
    """Sizes for `snapshot()` and metrics."""

    active: int
    backing_off: int
    unschedulable: int


@dataclass(slots=True)
class SchedulingQueue:
    """Three places for a pod: `active` (a heap by priority, then age), `backing_off` (a heap by time), `unschedulable`.

    A pod is in exactly one of them, or out with the shell between `pop` and `done`/`retry`/`park`.
    Entries in the heaps are dropped lazily: one whose pod has been replaced or deleted is skipped when it surfaces.
    """

    _pods: dict[PodKey, QueuedPod] = field(default_factory=dict)
    _active: list[tuple[int, float, int, QueuedPod]] = field(default_factory=list)
    _backing_off: list[tuple[float, int, QueuedPod]] = field(default_factory=list)
    # In order of `since`, because parking happens in order of time: the first is the next to be overdue.
    _unschedulable: dict[PodKey, QueuedPod] = field(default_factory=dict)
    # The same pods by what they wait for, so that an event costs the pods it helps and not all that wait.
    _waiting: dict[ClusterEvent, dict[PodKey, QueuedPod]] = field(default_factory=dict)
    _order: int = 0

    def add(self, info: PodInfo, now: float) -> None:
        """A new pod, or a new version of a known one (which is tried at once when its spec or labels changed)."""
        known = self._pods.get(info.key)
        if known is None or known.info.uid != info.uid:
            self.remove(info.key)
            entry = QueuedPod(info=info, added_at=now)
            self._pods[info.key] = entry
            self._activate(entry)
            return
        changed = known.info.scheduling_inputs() != info.scheduling_inputs()
        known.info = info
        if changed and self._unpark(info.key):
            self._activate(known)

    def remove(self, key: PodKey) -> None:
        """The pod is bound, deleted or no longer ours."""
        self._pods.pop(key, None)
        self._unpark(key)

    def pop(self, now: float) -> QueuedPod | None:
        """The next pod to try, taken out of its place; None if nothing is due."""
        self._release_due(now)
        while self._active:
            entry = heapq.heappop(self._active)[3]
            if self._is_current(entry):
                entry.attempts += 1
                return entry
        return None

    def park(self, entry: QueuedPod, wakes: Iterable[ClusterEvent], now: float) -> None:
        """No node fits: wait for one of `wakes`, then for the backoff."""
        if self._is_current(entry):
            self._unpark(entry.info.key)
            entry.wakes = frozenset(wakes)
            entry.since = now
            entry.ready_at = now + BACKOFF.delay_s(entry.attempts)
            self._unschedulable[entry.info.key] = entry
            for event in entry.wakes:
                self._waiting.setdefault(event, {})[entry.info.key] = entry

    def retry(self, entry: QueuedPod, now: float) -> None:
        """An attempt failed though a node fits (a refused binding): back off, then try again."""
        if self._is_current(entry):
            entry.ready_at = now + BACKOFF.delay_s(entry.attempts)
            self._back_off(entry)

    def on_event(self, event: ClusterEvent, now: float) -> bool:
        """Move the pods that `event` may help; True if any pod moved."""
        helped = [*self._waiting.get(event, {}).values()]
        for entry in helped:
            self._unpark(entry.info.key)
            if entry.ready_at <= now:
                self._activate(entry)
            else:
                self._back_off(entry)
        return bool(helped)

    def next_timer(self) -> float | None:
        """When to call `pop` again although nothing happened; None if only an event can help."""
        if self._active:
            return 0.0
        times = [self._backing_off[0][0]] if self._backing_off else []
        oldest = next(iter(self._unschedulable.values()), None)
        if oldest is not None:
            times.append(oldest.since + UNSCHEDULABLE_S_MAX)
        return min(times, default=None)

    def snapshot(self) -> QueueSnapshot:
        return QueueSnapshot(
            active=len(self._active), backing_off=len(self._backing_off), unschedulable=len(self._unschedulable)
        )

    def _is_current(self, entry: QueuedPod) -> bool:
        return self._pods.get(entry.info.key) is entry

    def _release_due(self, now: float) -> None:
        while self._backing_off and self._backing_off[0][0] <= now:
            self._activate(heapq.heappop(self._backing_off)[2])
        while oldest := next(iter(self._unschedulable.values()), None):
            if oldest.since + UNSCHEDULABLE_S_MAX > now:
                break
            self._unpark(oldest.info.key)
            self._activate(oldest)

    def _unpark(self, key: PodKey) -> bool:
        """Take the pod out of those that wait; False if it was not among them."""
        entry = self._unschedulable.pop(key, None)
        if entry is None:
            return False
        for event in entry.wakes:
            waiting = self._waiting[event]
            del waiting[key]
            if not waiting:
                del self._waiting[event]
        return True

    def _activate(self, entry: QueuedPod) -> None:
        self._order += 1
        heapq.heappush(self._active, (-entry.info.priority, entry.added_at, self._order, entry))

    def _back_off(self, entry: QueuedPod) -> None:
        self._order += 1
        heapq.heappush(self._backing_off, (entry.ready_at, self._order, entry))
