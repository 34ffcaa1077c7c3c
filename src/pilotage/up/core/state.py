"""What the supervisor knows of a process: a state machine, one table.

Apart from the supervisor so that restart and readiness can be tested without processes. Fed with what happened; says
what state follows. The diagram is the table `TRANSITIONS`.
"""

import enum
from dataclasses import dataclass, replace

from pilotage.kit import Backoff, InvariantError

# First restart at once for a human, yet never more than one every 10 s for a process that cannot live.
RESTART = Backoff(initial_s=0.2, max_s=10.0)
# Alive this long, a process counts as well again: its next crash is restarted as if it were the first.
STEADY_S = 30.0
# A process that ends this often before it was ever ready will not become ready by waiting.
START_FAILURES_MAX = 3


class Phase(enum.StrEnum):
    """Where a process is in its life."""

    WAITING = "waiting"  # not started yet
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"  # ended, will be started again
    DONE = "done"  # a one-shot process that ended well


class Event(enum.StrEnum):
    """What can happen to a process."""

    SPAWN = "spawn"
    RETRY = "retry"  # the wait is over: spawning was asked for
    READY = "ready"
    EXIT = "exit"
    FINISH = "finish"  # a one-shot process ended with 0


TRANSITIONS: dict[tuple[Phase, Event], Phase] = {
    (Phase.WAITING, Event.SPAWN): Phase.STARTING,
    (Phase.BACKOFF, Event.RETRY): Phase.WAITING,
    (Phase.STARTING, Event.READY): Phase.READY,
    (Phase.READY, Event.READY): Phase.READY,
    (Phase.STARTING, Event.EXIT): Phase.BACKOFF,
    (Phase.READY, Event.EXIT): Phase.BACKOFF,
    (Phase.STARTING, Event.FINISH): Phase.DONE,
    (Phase.READY, Event.FINISH): Phase.DONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """One process as the supervisor sees it."""

    phase: Phase = Phase.WAITING
    pid: int = 0  # in the fabric's PID namespace; 0: none
    since: float = 0.0  # monotonic seconds of the last change of phase
    restarts: int = 0  # ends that were not asked for
    failures: int = 0  # of them in a row: the exponent of the backoff
    ever_ready: bool = False
    last_exit: str = ""  # "exit code 1", "signal 9"; empty: never ended

    @property
    def restart_delay_s(self) -> float:
        """Seconds from `since` until it is started again."""
        return RESTART.delay_s(self.failures)

    @property
    def hopeless(self) -> bool:
        """It keeps ending before it was ever ready: waiting for it is pointless."""
        return not self.ever_ready and self.failures >= START_FAILURES_MAX


def advance(state: ProcessState, event: Event, *, now: float, pid: int = 0, exit_text: str = "") -> ProcessState:
    """The state after `event`; InvariantError when the event cannot happen in this phase."""
    try:
        phase = TRANSITIONS[state.phase, event]
    except KeyError:
        raise InvariantError(f"{event} in phase {state.phase}") from None
    if event is Event.SPAWN:
        return replace(state, phase=phase, pid=pid, since=now)
    if event is Event.RETRY:
        return replace(state, phase=phase, since=now)
    if event is Event.READY:
        return replace(state, phase=phase, since=now, ever_ready=True)
    if event is Event.FINISH:
        return replace(state, phase=phase, pid=0, since=now, ever_ready=True, last_exit=exit_text)
    steady = state.phase is Phase.READY and now - state.since >= STEADY_S
    return replace(
        state,
        phase=phase,
        pid=0,
        since=now,
        restarts=state.restarts + 1,
        failures=1 if steady else state.failures + 1,
        last_exit=exit_text,
    )


def exit_text(wait_status: int) -> str:
    """What wait(2) says about an end, in words."""
    signal_number = wait_status & 0x7F
    return f"signal {signal_number}" if signal_number else f"exit code {wait_status >> 8 & 0xFF}"
