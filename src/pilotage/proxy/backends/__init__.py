"""Where a plan becomes real: one module a technology, all behind `Backend`.

Apart from the proxier so that iptables or ipvs can be added without touching it. A plan is written as relations
(address, protocol, port → class; slot → endpoint; who is refused, guarded, masqueraded, remembered), which is the form
nftables takes as it is; `core.frontends` reads the same plan one virtual address at a time, for everybody else.
Backends block; the proxier decides in which thread, and never calls two at once.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from pilotage.proxy.core.drift import Drift
from pilotage.proxy.core.fragment import Frontend, Target
from pilotage.proxy.core.layout import Surroundings
from pilotage.proxy.core.plan import Delta, Plan


class Backend(Protocol):
    """One way to make a node forward. Every call raises `BackendError` and then changed nothing visible."""

    @property
    def inline_elements_max(self) -> int:
        """Up to so many changed elements `apply` takes about a millisecond, so it may run on the event loop."""
        ...

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
        """Whether anybody else may have changed this backend's rules since we last looked. Costs microseconds."""
        ...

    def audit(self, plan: Plan, *, repair: bool = True) -> tuple[Drift, ...]:
        """Compare with the kernel, say what differs, and unless told otherwise repair it. Proportional to everything.

        Without `repair` nothing is written, and no earlier `sync` is needed: `pilotage proxy check` is another process.
        """
        ...

    def cleanup(self) -> None:
        """Remove everything this backend ever made."""
        ...

    def close(self) -> None:
        """Release what the process holds; the rules stay."""
        ...


# Families, surroundings → the backend, in the calling thread's network namespace.
BackendFactory = Callable[[tuple[str, ...], Surroundings], Backend]
