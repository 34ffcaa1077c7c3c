"""Makes the kernel forget tracked flows of the caller's network namespace.

Apart from `kernel` because only the service proxy needs it and it speaks another netlink protocol. Fed with a test that
says which flows to forget; the pure half is `core.conntrack`.
"""

import errno
from collections.abc import Callable

from pilotage.network.core import conntrack
from pilotage.network.core.conntrack import Flow
from pilotage.network.core.rtnetlink import AF_INET, AF_INET6
from pilotage.network.netlink import NETLINK_NETFILTER, NetlinkSocket

# Acknowledgements wait in the socket's receive buffer (208 KiB by default), where each counts about a kilobyte.
_BATCH = 128


def forget_flows(matches: Callable[[Flow], bool]) -> int:
    """Delete every tracked flow that `matches`, and say how many. Reads the whole table: call it once per batch."""
    with NetlinkSocket.open(NETLINK_NETFILTER) as sock:
        doomed = [
            flow
            for family in (AF_INET, AF_INET6)
            for message in sock.query("list tracked flows", conntrack.get_flows(family))
            if (flow := conntrack.read_flow(message)) is not None and matches(flow)
        ]
        for start in range(0, len(doomed), _BATCH):
            batch = doomed[start : start + _BATCH]
            sock.execute("delete tracked flows", map(conntrack.delete_flow, batch), tolerate=(errno.ENOENT,))
        return len(doomed)
