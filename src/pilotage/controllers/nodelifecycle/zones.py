"""Whether pods may be driven from a lost node, looking at how many others are lost.

Stands apart because it is about all nodes, where `core` is about one. Pure. When everything seems lost, it is more
likely that we are: then nobody is evicted, for there is nowhere to go and nobody to tell. Source: Kubernetes
documentation "Nodes", rate limits on eviction; the numbers are kube-controller-manager's defaults.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from pilotage.api.core_v1 import Node

INTERVAL_S = 10.0
"""Of one zone, one node after the other loses its pods (--node-eviction-rate 0.1)."""

SLOW_INTERVAL_S = 100.0  # of a large zone that is disrupted (--secondary-node-eviction-rate 0.01)
UNHEALTHY = 0.55  # from this share of lost nodes on a zone counts as disrupted (--unhealthy-zone-threshold)
LOST_MIN = 3  # two lost nodes are no disruption, whatever their share
LARGE = 50  # nodes of a zone above which its disruption slows evictions down instead of stopping them

_REGION, _ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"


class Eviction(Enum):
    """What becomes of the pods of a node that is not ready."""

    NOW = "now"
    LATER = "later"  # another node of the zone has just lost its pods
    STOPPED = "stopped"  # taints that were meant to evict are taken back


def zone_of(node: Node) -> str:
    """Nodes that say nothing about themselves are of one zone."""
    return f"{node.metadata.labels.get(_REGION, '')}/{node.metadata.labels.get(_ZONE, '')}"


@dataclass(slots=True)
class Zones:
    """When each zone last had a node whose pods were driven away. Monotonic seconds."""

    _evicted_at: dict[str, float] = field(default_factory=dict)

    def may_evict(self, node: Node, ready: Mapping[str, Iterable[bool]], now: float) -> tuple[Eviction, float]:
        """(verdict, seconds until it is worth asking again; 0: when a node changes).

        `ready`: zone → whether each of its nodes is. NOW uses up the zone's turn: to be asked only for a node that
        would be tainted.
        """
        counts = {zone: [*states] for zone, states in ready.items()}
        if all(not any(states) for states in counts.values()):
            return Eviction.STOPPED, 0.0
        zone = zone_of(node)
        states = counts.get(zone, [False])
        lost = states.count(False)
        disrupted = any(states) and lost >= LOST_MIN and lost / len(states) >= UNHEALTHY
        if disrupted and len(states) <= LARGE:
            return Eviction.STOPPED, 0.0
        interval_s = SLOW_INTERVAL_S if disrupted else INTERVAL_S
        left_s = self._evicted_at.get(zone, now - interval_s) + interval_s - now
        if left_s > 0:
            return Eviction.LATER, left_s
        self._evicted_at[zone] = now
        return Eviction.NOW, 0.0

    def give_back(self, node: Node) -> None:
        """The turn could not be used."""
        self._evicted_at.pop(zone_of(node), None)
