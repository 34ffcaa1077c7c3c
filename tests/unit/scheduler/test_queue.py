"""When a pod is tried."""

import time
from typing import Any

from pilotage.scheduler.core.queue import UNSCHEDULABLE_S_MAX, ClusterEvent, SchedulingQueue


def drain(queue: SchedulingQueue, now: float) -> list[str]:
    names = []
    while (entry := queue.pop(now)) is not None:
        names.append(entry.info.key.name)
    return names


def test_priority_first_then_age(pod: Any) -> None:
    queue = SchedulingQueue()
    for moment, (name, priority) in enumerate((("old", 0), ("urgent", 10), ("new", 0))):
        queue.add(pod(name, priority=priority), float(moment))
    assert drain(queue, 5.0) == ["urgent", "old", "new"]


def test_a_parked_pod_waits_for_an_event_that_helps_and_for_its_backoff(pod: Any) -> None:
    queue = SchedulingQueue()
    queue.add(pod("p"), 0.0)
    entry = queue.pop(0.0)
    assert entry is not None
    queue.park(entry, {ClusterEvent.POD_GONE}, 0.0)
    assert not queue.on_event(ClusterEvent.NODE_CHANGED, 0.1)
    assert queue.on_event(ClusterEvent.POD_GONE, 0.1)
    assert queue.pop(0.1) is None
    assert queue.next_timer() == 1.0
    assert queue.pop(1.0) is entry


def test_after_the_backoff_an_event_activates_at_once(pod: Any) -> None:
    queue = SchedulingQueue()
    queue.add(pod("p"), 0.0)
    entry = queue.pop(0.0)
    assert entry is not None
    queue.park(entry, {ClusterEvent.NODE_ADDED}, 0.0)
    queue.on_event(ClusterEvent.NODE_ADDED, 30.0)
    assert queue.pop(30.0) is entry
    assert entry.attempts == 2


def test_nobody_waits_for_ever(pod: Any) -> None:
    queue = SchedulingQueue()
    queue.add(pod("p"), 0.0)
    entry = queue.pop(0.0)
    assert entry is not None
    queue.park(entry, set(), 0.0)
    assert queue.next_timer() == UNSCHEDULABLE_S_MAX
    assert queue.pop(UNSCHEDULABLE_S_MAX) is entry


def test_a_changed_pod_is_tried_again_and_an_unchanged_one_is_not(pod: Any) -> None:
    queue = SchedulingQueue()
    queue.add(pod("p", cpu="2"), 0.0)
    entry = queue.pop(0.0)
    assert entry is not None
    queue.park(entry, set(), 0.0)
    queue.add(pod("p", cpu="2"), 1.0)
    assert queue.pop(1.0) is None
    queue.add(pod("p", cpu="1"), 2.0)
    assert queue.pop(2.0) is entry


def test_a_deleted_pod_never_surfaces(pod: Any) -> None:
    queue = SchedulingQueue()
    made = pod("p")
    queue.add(made, 0.0)
    queue.remove(made.key)
    assert queue.pop(0.0) is None
    entry_owner = pod("q")
    queue.add(entry_owner, 0.0)
    entry = queue.pop(0.0)
    assert entry is not None
    queue.remove(entry_owner.key)
    queue.retry(entry, 0.0)
    assert queue.pop(100.0) is None
    assert queue.next_timer() is None


def test_an_event_wakes_those_it_helps_and_no_others(pod: Any) -> None:
    queue = SchedulingQueue()
    for number in range(6):
        queue.add(pod(f"p{number}"), float(number))
    kinds = (ClusterEvent.POD_GONE, ClusterEvent.NODE_ADDED)
    for number in range(6):
        entry = queue.pop(10.0)
        assert entry is not None
        queue.park(entry, {kinds[number % 2]}, 10.0)
    queue.remove(pod("p2").key)
    assert queue.on_event(ClusterEvent.POD_GONE, 20.0)
    assert drain(queue, 20.0) == ["p0", "p4"]
    assert not queue.on_event(ClusterEvent.POD_GONE, 21.0)
    assert queue.on_event(ClusterEvent.NODE_ADDED, 22.0)
    assert drain(queue, 22.0) == ["p1", "p3", "p5"]


def test_thousands_that_wait_cost_nothing_until_something_helps(pod: Any) -> None:
    """Popping, timers and events that help nobody do not depend on how many pods wait."""
    queue = SchedulingQueue()
    for number in range(5000):
        queue.add(pod(f"p{number}"), 0.0)
        entry = queue.pop(0.0)
        assert entry is not None
        queue.park(entry, {ClusterEvent.NODE_ADDED}, 0.0)
    started = time.perf_counter()
    for _ in range(5000):
        assert not queue.on_event(ClusterEvent.POD_GONE, 1.0)
        assert queue.pop(1.0) is None
        assert queue.next_timer() == UNSCHEDULABLE_S_MAX
    taken = time.perf_counter() - started
    assert taken < 1.0, taken  # a scan of all on each call would take minutes
    assert queue.on_event(ClusterEvent.NODE_ADDED, 2.0)
    assert len(drain(queue, 2.0)) == 5000
