"""Makes the kernel forget the tracked flows that would lead a client to an endpoint that is gone.

Apart from the proxier because the kernel has no index by endpoint: each look goes through its whole table, and that is
not for the path of a change. So looks run beside it, gather what changes meanwhile, and take a bounded share of a core;
only the watermark waits for them, since only then no connection meets what is gone. The verdicts are `core.flows`.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Protocol

from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.network import TCP_CLOSE, TCP_SYN_SENT, Flow, NetworkError
from pilotage.proxy import metrics
from pilotage.proxy.blocking import in_thread
from pilotage.proxy.core.flows import is_stale_flow, target_of, tcp_targets, tcp_targets_gone
from pilotage.proxy.core.fragment import Frontend, Target
from pilotage.proxy.core.plan import Delta, Plan, Planner
from pilotage.telemetry import get_logger

# Before a look: a change's own first packets find the processor free, and what changes together is looked for together.
_GATHER_S = 0.005
# After a look, times as long as it took: a fiftieth of a core is the most that looks take. But not longer than so.
_REST, _REST_MAX_S = 49, 1.0
_TCP, _UDP = 6, 17
_CAME_TO_NOTHING = (TCP_SYN_SENT, TCP_CLOSE)
_PORT_BYTES = 4  # of a packed target, padding included

_log = get_logger()


class Forget(Protocol):
    """`pilotage.network.forget_flows`, in the network of the proxy's rules."""

    def __call__(
        self,
        matches: Callable[[Flow], bool],
        *,
        protocol: int = 0,
        answered_by: frozenset[str] = frozenset(),
        tcp_states: tuple[int, ...] = (),
    ) -> int: ...


@dataclass(slots=True)
class Stale:
    """What changes made stale and no look has forgotten yet."""

    reached: int = 0  # the resourceVersion that the kernel's rules have
    datagrams: bool = False
    frontends: set[Frontend] = field(default_factory=set)  # of datagrams, that nobody answers for any more
    targets: set[Target] = field(default_factory=set)  # of TCP
    plan: Plan | None = None  # the whole, where nobody knows what was taken away

    def __bool__(self) -> bool:
        return bool(self.datagrams or self.frontends or self.targets or self.plan)

    def add(self, reached: int, delta: Delta, plan: Plan | None = None) -> None:
        self.reached = max(self.reached, reached)
        self.plan = plan or self.plan
        self.datagrams |= delta.flows_changed
        self.frontends |= delta.frontends_gone
        self.targets |= tcp_targets_gone(delta)


class FlowKeeper:
    """Looks for stale flows after changes, one look at a time, then tells `advance` how far everything is true."""

    def __init__(
        self, forget: Forget, planner: Planner, advance: Callable[[int], None], *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._forget, self._planner, self._advance, self._clock = forget, planner, advance, clock
        self._stale = Stale()
        self._looking = False
        self._wake = asyncio.Event()

    def applied(self, reached: int, delta: Delta, plan: Plan | None = None) -> None:
        """The kernel's rules have `delta`, or were compared with the whole `plan`, up to `reached`."""
        self._stale.add(reached, delta, plan)
        if self._stale or self._looking:
            self._wake.set()
        else:
            self._advance(reached)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_GATHER_S)
            self._wake.clear()
            stale, self._stale = self._stale, Stale()
            started = self._clock.monotonic()
            if stale:
                self._looking = True
                try:
                    forgotten = await in_thread(forgetting(self._forget, self._planner, stale))
                    metrics.FLOWS_FORGOTTEN.inc(forgotten)
                except (NetworkError, OSError) as error:  # the latter: no socket to ask by, or no answer
                    metrics.FAILURES.labels(kind="forget").inc()
                    _log.warning("old flows may remain", error=str(error))
                finally:
                    self._looking = False
            self._advance(stale.reached)
            await asyncio.sleep(min(_REST * (self._clock.monotonic() - started), _REST_MAX_S))


def forgetting(forget: Forget, planner: Planner, stale: Stale) -> Callable[[], int]:
    """What forgets the flows of `stale` and says how many they were. The planner is read now; the answer blocks.

    Compared with a whole plan, a half-open flow that somebody else's rules translated counts as leading nowhere too:
    forgotten, it is only decided on again.
    """
    udp = _stale_datagrams(planner, stale.frontends) if stale.frontends or (stale.datagrams and planner.udp) else None

    def forget_all() -> int:
        forgotten = forget(udp, protocol=_UDP) if udp else 0
        gone = frozenset(stale.targets)
        if stale.plan is not None:
            kept = tcp_targets(stale.plan) - gone
            nowhere = _leading_to(lambda target: target not in kept)
            return forgotten + forget(nowhere, protocol=_TCP, tcp_states=_CAME_TO_NOTHING)
        if gone:
            addresses = frozenset(str(ipaddress.ip_address(target[:-_PORT_BYTES])) for target in gone)
            there = _leading_to(gone.__contains__)
            forgotten += forget(there, protocol=_TCP, answered_by=addresses, tcp_states=_CAME_TO_NOTHING)
        return forgotten

    return forget_all


def _stale_datagrams(planner: Planner, removed: Set[Frontend]) -> Callable[[Flow], bool]:
    udp, guarded = dict(planner.udp), dict(planner.guarded)

    def is_stale(flow: Flow) -> bool:
        return flow.protocol == _UDP and is_stale_flow(
            udp,
            guarded,
            removed,
            source=flow.source,
            destination=flow.destination,
            destination_port=flow.destination_port,
            reply_source=flow.reply_source,
            reply_source_port=flow.reply_source_port,
        )

    return is_stale


def _leading_to(is_gone: Callable[[Target], bool]) -> Callable[[Flow], bool]:
    """Translated, not established, and next to lead to an endpoint that `is_gone`."""

    def is_stale(flow: Flow) -> bool:
        return (
            flow.tcp_state in _CAME_TO_NOTHING
            and (flow.destination, flow.destination_port) != (flow.reply_source, flow.reply_source_port)
            and is_gone(target_of(flow.reply_source, flow.reply_source_port))
        )

    return is_stale
