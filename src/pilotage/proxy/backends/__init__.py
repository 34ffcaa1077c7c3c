"""Where a plan becomes real: one module a technology, all behind `Backend`.

Apart from the proxier so that iptables or ipvs can be added without touching it. A plan is written as relations
(address, protocol, port → class; slot → endpoint; who is refused, guarded, masqueraded, remembered), which is the form
nftables takes as it is; `core.frontends` reads the same plan one virtual address at a time, for everybody else.
Backends block; the proxier decides in which thread, and never calls two at once.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from pilotage.nft.core.objects import ElementValue
from pilotage.proxy.core.drift import Drift, Part
from pilotage.proxy.core.fragment import Frontend, Target
from pilotage.proxy.core.layout import Surroundings
from pilotage.proxy.core.plan import Delta, Plan


class Backend(Protocol):
    """One way to make a node forward. Every call raises `BackendError` and then changed nothing visible."""

    @property
    def inline_elements_max(self) -> int:
        """Up to so many changed elements `apply` takes about a millisecond, so it may run on the event loop."""
        ...

    @property
    def limits(self) -> Mapping[str, str]:
        """What Services may ask and this kernel cannot do, as far as one has asked: reason (`core.model`) → message."""
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

    @property
    def parts(self) -> tuple[Part, ...]:
        """Everything that can be looked at by itself, in the order in which it is to be repaired."""
        ...

    def disturbed(self) -> tuple[Part, ...]:
        """The parts that anybody else may have changed since we last asked, each said once. Costs microseconds."""
        ...

    def look(self, part: Part) -> Mapping[bytes, ElementValue]:
        """What is in `part` now, for `judge` alone. Costs its size; as the only call it may run beside `apply`."""
        ...

    def judge(
        self, part: Part, seen: Mapping[bytes, ElementValue], wanted: Mapping[bytes, ElementValue]
    ) -> tuple[Drift, ...]:
        """Repair `part`, which a `look` saw so and of which the plan in force wants these; returns what differed.

        What `seen` may have wrong, because something changed while it was read, is asked again.
        """
        ...

    def after(self, part: Part) -> tuple[Part, ...]:
        """The parts to look at again where `part` differed."""
        ...

    def check(self, plan: Plan) -> tuple[Drift, ...]:
        """How the kernel differs from `plan`. Proportional to everything.

        Nothing is written, and no earlier `sync` is needed: `pilotage proxy check` is another process.
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
