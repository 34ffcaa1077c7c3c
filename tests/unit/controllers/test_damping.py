"""Pods that fail again and again wait longer and longer, and nothing else ever waits."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.controllers.conftest import make_pod

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Pod, Service
from pilotage.controllers.endpointslice.core import decide
from pilotage.controllers.endpointslice.damping import FLAPS_FREE, HOLD, OPT_OUT, PODS_MAX, WINDOW_S, Damping
from pilotage.controllers.endpointslice.topology import Zones

ZONES = Zones(by_node={})


def service(*, opted_out: bool = False, **spec: Any) -> Service:
    annotations = {OPT_OUT: "disabled"} if opted_out else {}
    metadata = {"name": "web", "namespace": "default", "uid": "uid-svc", "annotations": annotations}
    body = {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec}
    return convert(Service, {"metadata": metadata, "spec": body})


def a(name: str, *, ready: bool = True, deleting: bool = False, phase: str = "Running") -> Pod:
    number = sum(name.encode()) % 250
    return make_pod(name, ip=f"10.0.0.{number}", ready_for_s=1 if ready else None, deleting=deleting, phase=phase)


def flap(damping: Damping, name: str, times: int, now: float, every_s: float = 1.0) -> float:
    """The pod fails `times` times and is ready again at the moment returned."""
    for _ in range(times):
        assert damping.observe(a(name), a(name, ready=False), now)
        now += every_s / 2
        assert not damping.observe(a(name, ready=False), a(name), now)
        now += every_s / 2
    return now - every_s / 2


OTHERS = [a("b"), a("c")]


@pytest.mark.parametrize(
    ("times", "wait_s"), [(1, 0), (2, 0), (3, 10), (4, 20), (5, 40), (6, 80), (7, 120), (8, 120), (200, 120)]
)
def test_each_flap_after_the_second_doubles_the_wait(times: int, wait_s: float) -> None:
    damping = Damping()
    ready_at = flap(damping, "a", times, 100.0)
    held = damping.holds(service(), [a("a"), *OTHERS], ready_at)
    assert [hold.left_s for hold in held.values()] == ([wait_s] if wait_s else [])
    assert not damping.holds(service(), [a("a"), *OTHERS], ready_at + wait_s)


def test_it_must_stay_ready_and_not_merely_be_ready_again() -> None:
    damping = Damping()
    ready_at = flap(damping, "a", 3, 0.0)
    again = flap(damping, "a", 1, ready_at + 9)
    (hold,) = damping.holds(service(), [a("a"), *OTHERS], again).values()
    assert (hold.flaps, hold.left_s) == (4, 20)
    assert hold.rule == "stopped being ready 4 times in 30 min, must stay ready 20 s"


def test_old_flaps_are_forgiven() -> None:
    damping = Damping()
    flap(damping, "a", 5, 0.0)
    ready_at = flap(damping, "a", 1, WINDOW_S + 10)
    assert not damping.holds(service(), [a("a"), *OTHERS], ready_at)


ASKED_FOR = [
    pytest.param(a("a", ready=False, deleting=True), id="deleted"),
    pytest.param(None, id="gone"),
    pytest.param(a("a", ready=False, phase="Succeeded"), id="done"),
]


@pytest.mark.parametrize("after", ASKED_FOR)
def test_what_was_asked_for_is_no_flap(after: Pod | None) -> None:
    damping = Damping()
    for moment in range(20):
        assert not damping.observe(a("a"), after, float(moment))
        damping.observe(None, a("a"), moment + 0.5)
    assert not damping.holds(service(), [a("a"), *OTHERS], 20)
    assert len(damping) == 0


def test_a_rollout_of_new_pods_waits_for_nothing() -> None:
    damping = Damping()
    for number in range(50):
        damping.observe(None, a(f"n{number}", ready=False), number)
        damping.observe(a(f"n{number}", ready=False), a(f"n{number}"), number)
        assert not damping.holds(service(), [a(f"n{index}") for index in range(number + 1)], number)


def test_never_more_than_half_of_the_ready_pods_wait_and_none_is_taken_back() -> None:
    damping = Damping()
    now = max(flap(damping, name, 3, 0.0) for name in ("a", "b"))
    assert set(damping.holds(service(), [a("a"), a("b"), a("c"), a("d")], now)) == {"default/a", "default/b"}
    assert not damping.holds(service(), [a("a"), a("b"), a("c")], now)
    assert not damping.holds(service(), [a("a"), a("b"), a("c"), a("d")], now), "once let through, they stay"


def test_the_only_ready_pod_never_waits() -> None:
    damping = Damping()
    now = flap(damping, "a", 7, 0.0)
    assert not damping.holds(service(), [a("a"), a("b", ready=False)], now)


def test_a_service_may_opt_out() -> None:
    damping = Damping()
    now = flap(damping, "a", 5, 0.0)
    assert not damping.holds(service(opted_out=True), [a("a"), *OTHERS], now)
    assert damping.holds(service(), [a("a"), *OTHERS], now)


def test_memory_is_bounded() -> None:
    damping = Damping()
    for number in range(PODS_MAX + 50):
        damping.observe(a(f"p{number}"), a(f"p{number}", ready=False), 1.0)
    assert len(damping) == PODS_MAX
    damping.observe(a("late"), a("late", ready=False), WINDOW_S * 2)
    assert len(damping) == 1


def test_an_endpoint_that_waits_is_not_ready_and_says_why() -> None:
    pods = [a("a"), *OTHERS]
    decision = decide(service(), pods, ZONES, [], "", {"default/a": "flaps"})
    (created,) = decision.plan.create
    conditions = {item["targetRef"]["name"]: item["conditions"] for item in created["endpoints"]}
    assert conditions["a"] == {"ready": False, "serving": True, "terminating": False}
    assert conditions["b"]["ready"]
    assert created["metadata"]["annotations"]["pilotage.dev/held-back"] == f"{pods[0].status.pod_ip} flaps"


def test_publish_not_ready_addresses_knows_no_waiting() -> None:
    decision = decide(service(publishNotReadyAddresses=True), [a("a")], ZONES, [], "", {"default/a": "flaps"})
    (created,) = decision.plan.create
    assert created["endpoints"][0]["conditions"]["ready"]
    assert "annotations" not in created["metadata"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["up", "down", "delete"]), st.integers(0, 200)), max_size=60)
)
def test_removals_are_never_delayed_and_every_wait_ends(steps: list[tuple[int, str, int]]) -> None:
    damping = Damping()
    pods: dict[str, Pod] = {}
    now = 0.0
    for number, what, pause in steps:
        now += pause
        name = "abcd"[number]
        old = pods.pop(name, None)
        if what != "delete":
            pods[name] = a(name, ready=what == "up")
        damping.observe(old, pods.get(name), now)
        held = damping.holds(service(), pods.values(), now)
        ready = {item.metadata.key for item in pods.values() if item.status.is_ready}
        assert held.keys() <= ready, "what is not ready is not held: it is out at once"
        assert not ready or len(held) <= len(ready) / 2
        assert all(0 < hold.left_s <= HOLD.max_s and hold.flaps > FLAPS_FREE for hold in held.values())
    assert not damping.holds(service(), pods.values(), now + HOLD.max_s)
