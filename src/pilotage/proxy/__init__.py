"""The service proxy of one node: traffic for a Service's addresses reaches one of its endpoints.

Purpose: make the kernel of a node translate cluster IPs, node ports, external and load balancer addresses to endpoints,
live within milliseconds of a change and at a cost that does not grow with the number of Services.
Inputs → outputs: Services, EndpointSlices and the own Node → a plan (elements of a constant set of nftables maps) →
transactions; a watermark; events about Services that cannot be carried out as written.
Invariants: rules stay when the process ends, and a restart changes only what differs; a transaction is applied as a
whole; the hot path never lists; tables of others are never touched; no mark is set on a packet.
Reading order: core (model, topology, layout, fragment, plan, commands, flows, drift), backends, proxier, auditor. For
iptables: core (frontends, iptables, restore), backends.iptables. Another technology, say ipvs, is a module in
`backends` that reads a plan through `core.frontends`, a line in `backends.registry`, and a line in the tests that send
packets.
Specifications: Service and EndpointSlice API; KEP-752, KEP-1669, KEP-1672, KEP-1860, KEP-2086, KEP-2433; nft(8).
"""

from pilotage.proxy.backends.registry import NAMES as BACKEND_NAMES
from pilotage.proxy.checker import Verdict, check
from pilotage.proxy.proxier import Config, Proxier, cleanup, make_backend, run

__all__ = ["BACKEND_NAMES", "Config", "Proxier", "Verdict", "check", "cleanup", "make_backend", "run"]
