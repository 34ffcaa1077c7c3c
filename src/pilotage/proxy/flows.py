"""Makes the kernel forget the tracked flows that would lead a client to an endpoint that is gone.

Apart from the proxier because what is stale is found in two ways: after a change from what it took away, after a start
from everything that is planned. The verdicts are `core.flows`.
"""

import ipaddress
from collections.abc import Callable
from functools import partial
from typing import Protocol

from pilotage.network import TCP_CLOSE, TCP_SYN_SENT, Flow
from pilotage.proxy.core.flows import is_stale_flow, target_of, tcp_targets, tcp_targets_gone
from pilotage.proxy.core.fragment import Target
from pilotage.proxy.core.plan import Delta, Plan, Planner

_TCP, _UDP = 6, 17
_PORT_BYTES = 4  # of a packed target, padding included


class Forget(Protocol):
    """`pilotage.network.forget_flows`, in the network of the proxy's rules."""

    def __call__(
        self, matches: Callable[[Flow], bool], *, protocol: int = 0, answered_by: frozenset[str] = frozenset()
    ) -> int: ...


def forgetting(forget: Forget, planner: Planner, delta: Delta, plan: Plan | None = None) -> Callable[[], int] | None:
    """What makes the kernel forget whatever `delta` made stale, and says how many flows that were; None: nothing to do.

    With `plan`, what is stale by it, where nobody knows what was taken away. Then also a half-open flow that somebody
    else's rules translated counts as leading nowhere: forgotten, it is only decided on again. The planner is read now;
    the answer blocks, so call it on a thread.
    """
    searches: list[Callable[[], int]] = []
    if (delta.flows_changed or delta.frontends_gone) and (planner.udp or delta.frontends_gone):
        searches.append(partial(forget, _stale_datagrams(planner, delta), protocol=_UDP))
    if plan is not None:
        kept = tcp_targets(plan)
        searches.append(partial(forget, _leading_to(lambda target: target not in kept), protocol=_TCP))
    elif gone := tcp_targets_gone(delta):
        addresses = frozenset(str(ipaddress.ip_address(target[:-_PORT_BYTES])) for target in gone)
        searches.append(partial(forget, _leading_to(gone.__contains__), protocol=_TCP, answered_by=addresses))
    return (lambda: sum(search() for search in searches)) if searches else None


def _stale_datagrams(planner: Planner, delta: Delta) -> Callable[[Flow], bool]:
    udp, guarded = dict(planner.udp), dict(planner.guarded)

    def is_stale(flow: Flow) -> bool:
        return flow.protocol == _UDP and is_stale_flow(
            udp,
            guarded,
            delta.frontends_gone,
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
            flow.tcp_state in (TCP_SYN_SENT, TCP_CLOSE)
            and (flow.destination, flow.destination_port) != (flow.reply_source, flow.reply_source_port)
            and is_gone(target_of(flow.reply_source, flow.reply_source_port))
        )

    return is_stale
