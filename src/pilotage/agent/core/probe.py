"""The counting of probes: initial delay, period, thresholds, and what each conclusion means.

Stands apart so that timing can be tested without waiting. The prober asks `due_at`, runs the check, feeds the outcome
into `receive`. Leaves out how a check is made (`probes`).
"""

from enum import StrEnum

import msgspec

from pilotage.api.codec import Value
from pilotage.api.core_v1 import Probe

# Differs from the kubelet: until a network readiness or startup probe has succeeded once it is repeated faster than
# periodSeconds (0.05 s, doubling, never slower than the period), because a server that opens its port 0.2 s after the
# start should not wait a whole second for its first request. Such early failures count for nothing.
EAGER_INITIAL_S = 0.05


class ProbeKind(StrEnum):
    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


class ProbeState(Value):
    """One probe of one running container. `passed` starts as True for liveness, as False for the others."""

    kind: ProbeKind
    passed: bool
    due_at: float
    streak: int = 0  # equal outcomes in a row
    last_success: bool | None = None  # None: never ran
    eager_s: float = 0.0  # delay of the next eager repetition; 0: eagerness is over
    on_hold: bool = False  # a startup probe that passed, a liveness probe that failed: not run again


def begin(kind: ProbeKind, probe: Probe, started_at: float) -> ProbeState:
    """The state at container start."""
    eager = kind is not ProbeKind.LIVENESS and probe.exec is None
    return ProbeState(
        kind=kind,
        passed=kind is ProbeKind.LIVENESS,
        due_at=started_at + probe.initial_delay_seconds,
        eager_s=EAGER_INITIAL_S if eager else 0.0,
    )


def resume(kind: ProbeKind, probe: Probe, *, passed: bool, now: float) -> ProbeState:
    """The state when a restarted agent finds the container running: nothing is forgotten, nothing is eager."""
    return ProbeState(
        kind=kind, passed=passed, due_at=now, on_hold=kind is ProbeKind.STARTUP and passed, last_success=passed
    )


def receive(state: ProbeState, probe: Probe, *, success: bool, at: float) -> ProbeState:
    """The state after one check that ended at `at`."""
    replace = msgspec.structs.replace
    if state.eager_s and not success:
        delay_s = min(state.eager_s, float(max(probe.period_seconds, 1)))
        # The failures of the eager phase are not counted: a startup probe still has failureThreshold whole periods.
        eager_s = state.eager_s * 2 if state.eager_s * 2 < probe.period_seconds else 0.0
        return replace(state, due_at=at + delay_s, eager_s=eager_s, last_success=False)
    streak = state.streak + 1 if state.last_success == success else 1
    threshold = max(probe.success_threshold if success else probe.failure_threshold, 1)
    state = replace(state, streak=streak, last_success=success, due_at=at + max(probe.period_seconds, 1), eager_s=0.0)
    if streak < threshold:
        return state
    hold = (state.kind is ProbeKind.STARTUP) or (state.kind is ProbeKind.LIVENESS and not success)
    return replace(state, passed=success, on_hold=hold)


def has_failed_for_good(state: ProbeState) -> bool:
    """The container must be restarted."""
    return state.on_hold and not state.passed
