"""Time as an argument: the only module that reads the machine's clocks.

Cores take `now`; shells take a `Clock` so that tests can move time. Wall time is for API timestamps only;
everything that measures or waits uses monotonic seconds, so a clock step never fires or loses a timer.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What a shell may know about time."""

    def wall(self) -> datetime:
        """Aware UTC time, microsecond resolution; may step backwards."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed point; never steps backwards."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def wall(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - the one place that may

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._wall = start
        self._monotonic = 0.0

    def wall(self) -> datetime:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward together."""
        self._wall += timedelta(seconds=seconds)
        self._monotonic += seconds

    def step(self, by: timedelta) -> None:
        """Set the wall clock alone, as an administrator or NTP does; it may go back."""
        self._wall += by


SYSTEM_CLOCK = SystemClock()
