"""The life of one container: one table, state × event → state.

Stands apart so that every legal step is visible at once; `lifecycle` decides which event happens when, `status`
says how each state is shown. Leaves out everything about the pod around the container.
"""

from enum import StrEnum

from pilotage.kit.errors import InvariantError


class ContainerPhase(StrEnum):
    """Where one container of a pod stands (the API's waiting/running/terminated is derived from it)."""

    WAITING = "waiting"  # never started, not yet its turn
    STARTING = "starting"  # the shell is creating and starting it
    REFUSED = "refused"  # could not be created (image, configuration); tried again later
    RUNNING = "running"
    STOPPING = "stopping"  # told to stop, still running
    EXITED = "exited"  # its process ended; stays here when it is not restarted
    BACKOFF = "backoff"  # ended, and waits before it is started again


class ContainerEvent(StrEnum):
    """What can happen to a container."""

    START = "start"  # we ask the shell to start it
    STARTED = "started"
    REFUSED = "refused"  # the shell could not create it
    STOP = "stop"  # we ask the shell to stop it
    EXITED = "exited"
    HOLD = "hold"  # we decide to wait before the restart
    RESUMED = "resumed"  # a restarted agent found it running
    REPEAT = "repeat"  # an init container must run again, because the sandbox it prepared is gone


_P, _E = ContainerPhase, ContainerEvent

TRANSITIONS: dict[tuple[ContainerPhase, ContainerEvent], ContainerPhase] = {
    (_P.WAITING, _E.START): _P.STARTING,
    (_P.REFUSED, _E.START): _P.STARTING,
    (_P.EXITED, _E.START): _P.STARTING,
    (_P.BACKOFF, _E.START): _P.STARTING,
    (_P.STARTING, _E.STARTED): _P.RUNNING,
    (_P.STARTING, _E.RESUMED): _P.RUNNING,
    (_P.STARTING, _E.REFUSED): _P.REFUSED,
    (_P.STARTING, _E.EXITED): _P.EXITED,
    (_P.RUNNING, _E.STOP): _P.STOPPING,
    (_P.RUNNING, _E.RESUMED): _P.RUNNING,
    (_P.RUNNING, _E.EXITED): _P.EXITED,
    (_P.STOPPING, _E.STOP): _P.STOPPING,
    (_P.STOPPING, _E.RESUMED): _P.RUNNING,
    (_P.STOPPING, _E.EXITED): _P.EXITED,
    (_P.EXITED, _E.HOLD): _P.BACKOFF,
    (_P.EXITED, _E.REPEAT): _P.WAITING,
    (_P.BACKOFF, _E.REPEAT): _P.WAITING,
}


class IllegalTransitionError(InvariantError):
    """An event came that the container's phase does not know."""


def advance(phase: ContainerPhase, event: ContainerEvent) -> ContainerPhase:
    """The next phase; raises `IllegalTransitionError`."""
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise IllegalTransitionError(f"a {phase} container cannot take {event}") from None
