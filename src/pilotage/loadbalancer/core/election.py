"""Which node answers for which address.

Stands apart because every node must come to the same result without talking to the others: it is a function of API
objects. Rendezvous hashing: when a node comes or goes, only its own addresses move. Nodes that briefly see different
objects may both answer; the later gratuitous ARP wins, and both forward correctly.

Specification: KEP-1143 (exclude label), Service externalTrafficPolicy.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from pilotage.api.core_v1 import Node, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.loadbalancer.core.pools import is_wanted, stated

EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"


def candidates(nodes: Iterable[Node]) -> tuple[str, ...]:
    """Names of nodes that may answer: ready and not excluded; sorted."""
    return tuple(
        sorted(
            node.metadata.name
            for node in nodes
            if EXCLUDE_LABEL not in node.metadata.labels
            and not node.metadata.is_deleting
            and any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions)
        )
    )


def elect(address: str, nodes: Sequence[str]) -> str:
    """The node that answers for `address`; empty if there is none."""
    return max(nodes, key=lambda node: (hashlib.sha256(f"{address} {node}".encode()).digest(), node), default="")


def announcers(
    services: Iterable[Service], slices_of: Mapping[str, Sequence[EndpointSlice]], nodes: Iterable[Node]
) -> dict[str, str]:
    """Address → node, for every assigned address. `slices_of` is asked for Services with policy Local only."""
    ready = candidates(nodes)
    result: dict[str, str] = {}
    # The same address in two Services is somebody's mistake; the first by name decides, on every node alike.
    for service in sorted(services, key=lambda one: one.metadata.key):
        if not is_wanted(service):
            continue
        usable = ready
        if service.spec.external_traffic_policy == "Local":
            # Any other node would drop what it attracts.
            holding = _nodes_with_endpoints(slices_of.get(service.metadata.key, ()))
            usable = tuple(node for node in ready if node in holding)
        for address in stated(service):
            if address not in result and (node := elect(address, usable)):
                result[address] = node
    return result


def _nodes_with_endpoints(slices: Iterable[EndpointSlice]) -> frozenset[str]:
    endpoints = [endpoint for one in slices for endpoint in one.endpoints if endpoint.node_name]
    ready = frozenset(endpoint.node_name for endpoint in endpoints if endpoint.is_ready)
    # KEP-1669: terminating endpoints serve while nothing else is left.
    return ready or frozenset(e.node_name for e in endpoints if e.is_serving and e.is_terminating)
