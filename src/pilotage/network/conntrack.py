"""Makes the kernel forget tracked flows of the caller's network namespace.

Apart from `kernel` because only the service proxy needs it and it speaks another netlink protocol. Fed with a test that
says which flows to forget; the pure half is `core.conntrack`.
"""

import errno
from collections.abc import Callable, Collection

from pilotage.network.core.conntrack import Flow, delete_flow, family_of, get_flows, read_flow, tcp_state_mark
from pilotage.network.core.rtnetlink import AF_INET, AF_INET6
from pilotage.network.netlink import NETLINK_NETFILTER, NetlinkSocket

# Acknowledgements wait in the socket's receive buffer (208 KiB by default), where each counts about a kilobyte.
_BATCH = 128
# For each of so many addresses the kernel is asked apart; of more, every flow is looked at here.
_ASKED_APART_MAX = 4


def forget_flows(
    matches: Callable[[Flow], bool],
    *,
    protocol: int = 0,
    answered_by: Collection[str] = (),
    tcp_states: Collection[int] = (),
) -> int:
    """Delete every tracked flow that `matches`, and say how many.

    With `protocol`, and with the addresses that may answer, the kernel shows fewer to begin with; with `tcp_states`
    what is in another is hardly looked at. The kernel goes through its whole table each time all the same, so call this
    once per batch: `core.conntrack.get_flows` has the figures.
    """
    if protocol and 0 < len(answered_by) <= _ASKED_APART_MAX:
        requests = [get_flows(family_of(one), protocol=protocol, reply_source=one) for one in answered_by]
    else:
        families = {family_of(one) for one in answered_by} or (AF_INET, AF_INET6)
        requests = [get_flows(family, protocol=protocol) for family in families]
    marks = tuple(map(tcp_state_mark, tcp_states))
    with NetlinkSocket.open(NETLINK_NETFILTER) as sock:
        doomed = [
            flow
            for request in requests
            for message in sock.query("list tracked flows", request, marks=marks)
            if (flow := read_flow(message)) is not None and protocol in (0, flow.protocol) and matches(flow)
        ]
        for start in range(0, len(doomed), _BATCH):
            batch = doomed[start : start + _BATCH]
            sock.execute("delete tracked flows", map(delete_flow, batch), tolerate=(errno.ENOENT,))
        return len(doomed)
