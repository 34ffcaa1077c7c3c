"""Where a plan becomes real: one module a technology, all behind `Backend`.

Apart from the proxier so that iptables or ipvs can be added without touching it. Backends block; the proxier decides in
which thread.
"""

from collections.abc import Mapping
from typing import Protocol

from pilotage.proxy.core.drift import Drift
from pilotage.proxy.core.fragment import Frontend, Target
from pilotage.proxy.core.plan import Delta, Plan


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

    def disturbed(self) -> bool:
        """Whether anybody else has changed the kernel's rules since we last looked. Costs microseconds."""
        ...

    def audit(self, plan: Plan) -> tuple[Drift, ...]:
        """Compare with the kernel, repair, and say what differed. Proportional to everything."""
        ...

    def cleanup(self) -> None:
        """Remove everything this backend ever made."""
        ...

    def close(self) -> None:
        """Release what the process holds; the rules stay."""
        ...
