"""The node's plumbing: network namespaces, bridges, veth pairs, addresses, routes, sysctls, tracked flows, raw frames.

Purpose: let the agent connect a namespace in a millisecond, the fabric build a machine's worth of networks in tens of
them, and the proxy make the kernel forget a flow, all without spawning a process but for user namespaces. Knows no
Kubernetes.

Inputs → outputs: names, paths and addresses → kernel state, by netlink messages.

Invariants: every call may be repeated and repairs what is missing; nothing is touched that was not made through here
(routes carry a protocol number of their own); a thread is never left in another namespace than it came with; no
descriptor outlives its call.

Reading order: `wiring` (the seam and its fake), `kernel` (the real one), `namespaces`, `netlink`, then `core`.

Specifications: netlink(7), rtnetlink(7), namespaces(7), packet(7), linux/netfilter/nfnetlink_conntrack.h.
"""

from pilotage.network.conntrack import forget_flows
from pilotage.network.core.conntrack import TCP_CLOSE, TCP_SYN_SENT, Flow
from pilotage.network.core.rtnetlink import Route
from pilotage.network.errors import NamespaceGone, NetworkError
from pilotage.network.kernel import KernelWiring
from pilotage.network.packets import ETHERTYPE_ARP, ETHERTYPE_IPV6, interface_mac, open_packet_socket
from pilotage.network.wiring import Attachment, FakeWiring, Wiring

__all__ = [
    "ETHERTYPE_ARP",
    "ETHERTYPE_IPV6",
    "TCP_CLOSE",
    "TCP_SYN_SENT",
    "Attachment",
    "FakeWiring",
    "Flow",
    "KernelWiring",
    "NamespaceGone",
    "NetworkError",
    "Route",
    "Wiring",
    "forget_flows",
    "interface_mac",
    "open_packet_socket",
]
