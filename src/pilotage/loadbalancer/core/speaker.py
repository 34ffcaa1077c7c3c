"""Which node answers for an address.

Rendezvous hashing over the nodes that may: every node computes the same answer from the same objects, and when a node
goes only its own addresses move. Apart from the announcer because it is the whole of the election.
"""

from collections.abc import Iterable
from hashlib import blake2b

from pilotage.api.core_v1 import Node, Service
from pilotage.api.discovery_v1 import EndpointSlice

# A node so labelled is never the speaker (kubernetes.io/docs/reference/labels-annotations-taints).
EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"


def eligible_nodes(nodes: Iterable[Node]) -> frozenset[str]:
    """Ready nodes that are not excluded."""
    return frozenset(
        node.metadata.name
        for node in nodes
        if EXCLUDE_LABEL not in node.metadata.labels
        and not node.metadata.is_deleting
        and any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions)
    )


def candidates(service: Service, slices: Iterable[EndpointSlice], eligible: frozenset[str]) -> frozenset[str]:
    """The nodes that may answer for a Service: all eligible ones, or with externalTrafficPolicy Local those with a
    ready endpoint of their own (KEP-1669)."""
    if service.spec.external_traffic_policy != "Local":
        return eligible
    return eligible & {
        endpoint.node_name for item in slices for endpoint in item.endpoints if endpoint.is_ready and endpoint.node_name
    }


def speaker(address: str, nodes: Iterable[str]) -> str:
    """The node that answers for `address`; empty when there is none."""
    return max(
        nodes, key=lambda node: (blake2b(f"{node}\0{address}".encode(), digest_size=8).digest(), node), default=""
    )
