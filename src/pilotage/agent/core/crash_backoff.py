"""How long a failing container or image waits before the next try, as the kubelet counts it.

Stands apart from `kit.Backoff` because the kubelet's rule looks at two times: the delay runs from the moment of the
failure, and is forgotten when nothing failed for twice the longest delay. The first failure costs no delay at all.
"""

from dataclasses import dataclass

from pilotage.api.codec import Value

INITIAL_S = 10.0
MAX_S = 300.0
FORGET_AFTER_S = 2 * MAX_S  # whatever ceiling is configured (KEP-4603)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The longest delays of this node: between starts of a failing container, and between pulls of its image."""

    crash_s: float = MAX_S
    image_s: float = MAX_S


USUAL = Ceilings()


class CrashBackoff(Value):
    """`delay_s` counts from the failure; 0 before the first one. `updated_at` is when `delay_s` was last raised."""

    delay_s: float = 0.0
    updated_at: float = 0.0

    def until(self, failed_at: float, now: float) -> float:
        """The time before which there is no new try; in the past when there is nothing to wait for."""
        if self.delay_s == 0.0 or now - self.updated_at > FORGET_AFTER_S:
            return failed_at
        return failed_at + self.delay_s

    def tried(self, now: float, max_s: float = MAX_S) -> "CrashBackoff":
        """After one more try: the delay that the next failure will cost."""
        if self.delay_s == 0.0 or now - self.updated_at > FORGET_AFTER_S:
            return CrashBackoff(delay_s=min(INITIAL_S, max_s), updated_at=now)
        return CrashBackoff(delay_s=min(self.delay_s * 2, max_s), updated_at=now)
