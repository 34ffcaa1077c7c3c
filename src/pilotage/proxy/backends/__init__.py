"""Where a plan becomes real: one module a technology, all behind `Backend`.

Apart from the proxier so that iptables or ipvs can be added without touching it. Backends block; the proxier decides in
which thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pilotage.proxy.core.drift import Drift
from pilotage.proxy.core.plan import Delta, Frontend, Plan, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a comparison of intent and kernel found (and repaired)."""

    skipped: bool  # nobody has committed anything since the last look
    drift: tuple[Drift, ...] = ()


class Backend(Protocol):
    """One way to make a node forward. Every call raises `NftError` (or its like) and then changed nothing visible."""

    def sync(self, plan: Plan) -> int:
        """Make everything as `plan` says, whatever is there now, without a gap for what stays; returns changes made."""
        ...

    def apply(self, delta: Delta) -> None:
        """Carry out a change of the plan that is in force."""
        ...

    def forget_clients(self, family: str, sticky: Mapping[Frontend, frozenset[Target]]) -> int:
        """Forget remembered clients whose endpoint their Service no longer has; returns how many."""
        ...

    def audit(self, make_plan: Callable[[], Plan]) -> Audit:
        """Compare with the kernel and repair; when nobody else committed anything, not even the plan is made."""
        ...

    def cleanup(self) -> None:
        """Remove everything this backend ever made."""
        ...

    def close(self) -> None:
        """Release what the process holds; the rules stay."""
        ...
