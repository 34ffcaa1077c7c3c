"""Which range a node gets. Pure; fed by `reconciler.py`."""

import ipaddress
from collections.abc import Iterable

from pilotage.api.core_v1 import Node
from pilotage.kit.errors import PilotageError

NODE_PREFIX = {4: 24, 6: 64}
"""254 pods a node in IPv4, as kube-controller-manager's node-cidr-mask-size defaults."""


class RangeExhaustedError(PilotageError):
    """The cluster's pod range has no room for another node."""


def assign(node: Node, nodes: Iterable[Node], cluster_cidrs: tuple[str, ...]) -> tuple[str, ...]:
    """The ranges for `node`, one of each cluster range; () if it has some. Raises `RangeExhaustedError`."""
    if node.spec.pod_cidrs or node.spec.pod_cidr:
        return ()
    taken = [
        ipaddress.ip_network(text, strict=False)
        for other in nodes
        for text in other.spec.pod_cidrs or ((other.spec.pod_cidr,) if other.spec.pod_cidr else ())
    ]
    return tuple(_lowest_free(cidr, taken) for cidr in cluster_cidrs)


def _lowest_free(cidr: str, taken: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str:
    cluster = ipaddress.ip_network(cidr)
    prefix = max(NODE_PREFIX[cluster.version], cluster.prefixlen)
    first, size = int(cluster.network_address), 1 << (cluster.max_prefixlen - prefix)
    occupied = {
        index
        for other in taken
        if other.version == cluster.version and other.overlaps(cluster)
        for index in range(
            max(int(other.network_address) - first, 0) // size, (int(other.broadcast_address) - first) // size + 1
        )
    }
    count = 1 << (prefix - cluster.prefixlen)
    # The range of index 0 holds the cluster's network address; counting from 1 makes node N's range end in N.
    for index in (*range(1, min(count, len(occupied) + 2)), 0):
        if index not in occupied:
            return f"{ipaddress.ip_address(first + index * size)}/{prefix}"
    raise RangeExhaustedError(f"no free range of /{prefix} is left in {cidr} for another node")
