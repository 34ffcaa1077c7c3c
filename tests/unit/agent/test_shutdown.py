"""Which pods end first when a node goes down, and how long they have."""

from typing import Any

import pytest

from pilotage.agent.core.shutdown import Period, Step, steps, two_periods

from .builders import make_pod

PERIODS = (
    Period(priority=100_000, grace_s=10),
    Period(priority=0, grace_s=60),
    Period(priority=1_000, grace_s=20),
)


def pod(uid: str, priority: int) -> Any:
    return make_pod("a", metadata={"uid": uid}, priority=priority)


@pytest.mark.parametrize(
    ("priorities", "expected"),
    [
        pytest.param([0, 1_000, 100_000], [(60, "0"), (20, "1"), (10, "2")], id="a period each, the lowest first"),
        pytest.param([999, 99_999, 5_000_000], [(60, "0"), (20, "1"), (10, "2")], id="up to the next period"),
        pytest.param([-5], [(60, "0")], id="below all of them: the lowest"),
        pytest.param([1_000, 1_500], [(20, "0 1")], id="together, and empty periods take no time"),
        pytest.param([], [], id="nothing runs"),
    ],
)
def test_pods_end_by_priority(priorities: list[int], expected: list[tuple[float, str]]) -> None:
    found = steps([pod(str(index), priority) for index, priority in enumerate(priorities)], PERIODS)
    assert found == tuple(Step(grace_s=grace_s, uids=tuple(uids.split())) for grace_s, uids in expected)


def test_without_periods_nothing_ends() -> None:
    assert steps([pod("a", 0)], ()) == ()
    assert two_periods(0, 0) == ()


def test_critical_pods_have_the_last_part_of_the_time() -> None:
    found = steps([pod("a", 0), pod("b", 2_000_001_000), pod("c", 1_999_999_999)], two_periods(30, 10))
    assert found == (Step(grace_s=20, uids=("a", "c")), Step(grace_s=10, uids=("b",)))
    assert two_periods(5, 10)[0].grace_s == 0
