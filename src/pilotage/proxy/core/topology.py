"""Which endpoints of a service port this node may use, and why.

Stands apart because it is the one place where nodes and zones matter, and because users ask "why this one?". Fed with
one service port and a view of the own node; called by `plan` for each.

Specification: KEP-2433 (hints), KEP-3015 (same node), KEP-1669 (terminating endpoints), KEP-2086 (internal Local).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pilotage.proxy.core.model import Endpoint, ServicePort

ZONE_LABEL = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What the proxy knows about the node it runs on."""

    name: str
    zone: str = ""  # empty: unknown, so zone hints do not apply


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Endpoints by who asks; `exists` tells "none anywhere" (refuse) from "none that may be used" (drop)."""

    internal: tuple[Endpoint, ...]  # for clients of the cluster IP
    cluster: tuple[Endpoint, ...]  # for external addresses with policy Cluster, and for insiders who use them
    external: tuple[Endpoint, ...]  # for outsiders who use external addresses
    local: tuple[Endpoint, ...]  # on this node
    exists: bool
    reason: str  # how `cluster` was narrowed


def choose(port: ServicePort, node: NodeView) -> Choice:
    """The endpoints this node uses for `port`."""
    usable = _usable(port.endpoints)
    cluster, reason = _near(usable, node)
    # KEP-1669: locally, terminating endpoints count when no ready one is left *on this node*.
    local = _usable([endpoint for endpoint in port.endpoints if endpoint.node == node.name and node.name])
    return Choice(
        internal=local if port.internal_local else cluster,
        cluster=cluster,
        external=local if port.external_local else cluster,
        local=local,
        exists=bool(usable),
        reason=reason,
    )


def _usable(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """The ready ones; when there are none, those that still serve while terminating."""
    ready = tuple(endpoint for endpoint in endpoints if endpoint.ready)
    return ready or tuple(endpoint for endpoint in endpoints if endpoint.serving and endpoint.terminating)


def _near(endpoints: tuple[Endpoint, ...], node: NodeView) -> tuple[tuple[Endpoint, ...], str]:
    """Endpoints hinted for this node, else for its zone, else all. Hints count only if every endpoint has one."""
    if not endpoints or not (endpoints[0].node_hints or endpoints[0].zone_hints):
        return endpoints, "NoHints"
    if all(endpoint.node_hints for endpoint in endpoints):
        same_node = tuple(endpoint for endpoint in endpoints if node.name in endpoint.node_hints)
        if same_node:
            return same_node, "SameNode"
    if not node.zone:
        return endpoints, "NodeHasNoZone"
    if not all(endpoint.zone_hints for endpoint in endpoints):
        return endpoints, "HintsIncomplete"
    same_zone = tuple(endpoint for endpoint in endpoints if node.zone in endpoint.zone_hints)
    return (same_zone, "SameZone") if same_zone else (endpoints, "NoEndpointHintedForZone")
