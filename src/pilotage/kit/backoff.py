"""Exponential delays, as a value.

Stands apart because the work queue, the supervisor, the reflector and the crash loop of a container all wait the
same way. Pure: jitter takes the random number as an argument.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """`initial_s`, multiplied by `factor` for each failure, never above `max_s`."""

    initial_s: float
    max_s: float
    factor: float = 2.0

    def delay_s(self, failures: int, *, roll: float = 0.0, jitter: float = 0.0) -> float:
        """Seconds to wait after `failures` failures in a row (0 → no wait).

        `roll` in [0, 1) spreads the delay over [1, 1 + `jitter`) times its value, so that many clients that fell
        together do not return together.
        """
        if failures <= 0:
            return 0.0
        # Bounding the exponent first keeps `factor ** n` from overflowing after weeks of failures.
        exponent = min(failures - 1, 64)
        return min(self.initial_s * self.factor**exponent, self.max_s) * (1.0 + jitter * roll)
