"""The life of a process, as the supervisor counts it."""

import pytest

from pilotage.kit import InvariantError
from pilotage.up.core.state import STEADY_S, Event, Phase, ProcessState, advance, exit_text


def after(*events: tuple[Event, float], state: ProcessState | None = None) -> ProcessState:
    state = state or ProcessState()
    for event, now in events:
        state = advance(state, event, now=now, pid=7 if event is Event.SPAWN else 0, exit_text="exit code 1")
    return state


def test_a_process_becomes_ready() -> None:
    state = after((Event.SPAWN, 0), (Event.READY, 1))
    assert (state.phase, state.pid, state.ever_ready) == (Phase.READY, 7, True)


def test_a_crash_is_followed_by_a_growing_wait() -> None:
    state, delays = ProcessState(), []
    for now in range(8):
        state = after((Event.SPAWN, now), (Event.EXIT, now), state=state)
        delays.append(state.restart_delay_s)
        state = after((Event.RETRY, now), state=state)
    assert delays[0] < 0.5
    assert delays == sorted(delays)
    assert delays[-1] == 10.0


def test_after_a_steady_life_the_next_crash_counts_as_the_first() -> None:
    crashes = ((Event.SPAWN, 0), (Event.EXIT, 0), (Event.RETRY, 1), (Event.SPAWN, 1), (Event.READY, 2))
    state = after(*crashes, (Event.EXIT, 2 + STEADY_S))
    assert (state.failures, state.restarts) == (1, 2)


def test_a_process_that_never_was_ready_becomes_hopeless() -> None:
    once = ((Event.SPAWN, 0), (Event.EXIT, 0), (Event.RETRY, 0))
    assert not after(*once, *once).hopeless
    assert after(*once, *once, *once).hopeless
    assert not after(
        (Event.SPAWN, 0), (Event.READY, 0), (Event.EXIT, 0), (Event.RETRY, 0), *once, *once, *once
    ).hopeless


def test_a_one_shot_process_that_ends_well_is_done() -> None:
    state = after((Event.SPAWN, 0), (Event.FINISH, 1))
    assert (state.phase, state.ever_ready, state.restarts) == (Phase.DONE, True, 0)


@pytest.mark.parametrize("event", [Event.READY, Event.EXIT, Event.RETRY, Event.FINISH])
def test_what_cannot_happen_is_a_defect(event: Event) -> None:
    with pytest.raises(InvariantError):
        advance(ProcessState(), event, now=0)


@pytest.mark.parametrize(("status", "text"), [(0, "exit code 0"), (256, "exit code 1"), (9, "signal 9")])
def test_an_end_is_put_into_words(status: int, text: str) -> None:
    assert exit_text(status) == text
