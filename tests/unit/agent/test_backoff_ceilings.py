"""How long a node waits at most between tries is a setting; what is shown of a start that failed."""

import pytest

from pilotage.agent.core.crash_backoff import Ceilings

from .builders import Life, make_pod, starts, waiting_reason


def crash_delays(life: Life, times: int) -> list[float]:
    found = []
    for _ in range(times):
        life.started("a")
        actions = life.exited("a", 1)
        if not starts(actions):
            assert life.wake_at is not None
            found.append(life.wake_at - life.now)
            life.step(after_s=found[-1])
    return found


@pytest.mark.parametrize(
    ("ceiling_s", "expected"),
    [
        pytest.param(60.0, [10, 20, 40, 60, 60], id="lower than usual"),
        pytest.param(4.0, [4, 4, 4, 4, 4], id="lower than the first delay"),
        pytest.param(300.0, [10, 20, 40, 80, 160], id="as usual"),
    ],
)
def test_the_longest_delay_between_starts(ceiling_s: float, expected: list[float]) -> None:
    life = Life(make_pod("a"), ceilings=Ceilings(crash_s=ceiling_s))
    life.bring_up()
    assert crash_delays(life, 6) == expected


def test_the_longest_delay_between_pulls_is_another_one() -> None:
    life = Life(make_pod("a"), ceilings=Ceilings(crash_s=1, image_s=15))
    life.bring_up()
    delays = []
    for _ in range(3):
        life.refused("a", "ErrImagePull")
        delays.append(life.state.record("a").retry_at - life.now)
        life.step(after_s=delays[-1])
    assert delays == [10, 15, 15]


def test_a_container_that_the_runtime_cannot_start_says_so_before_it_is_held_back() -> None:
    life = Life(make_pod("a"))
    life.bring_up()
    assert starts(life.exited("a", 128, reason="StartError")) == ["a"]
    life.exited("a", 128, reason="StartError")
    (status,) = life.status().container_statuses
    assert waiting_reason(life.status()) == "RunContainerError"
    assert status.last_state.terminated is not None
    assert status.last_state.terminated.reason == "StartError"
    assert life.wake_at == life.now + 1.0
    life.step(after_s=1.0)
    assert waiting_reason(life.status()) == "CrashLoopBackOff"
    assert life.wake_at == life.now + 9.0
