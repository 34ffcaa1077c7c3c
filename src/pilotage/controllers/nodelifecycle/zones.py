"""Whether pods may be driven from a lost node, looking at how many others are lost.

Stands apart because it is about all nodes, where `core` is about one. Pure. When everything seems lost, it is more
likely that we are: then nobody is evicted, for there is nowhere to go and nobody to tell. Source: Kubernetes
documentation "Nodes", rate limits on eviction; the numbers are kube-controller-manager's defaults.
"""

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


class Zone(Enum):
    """How the nodes of a zone are, all together."""

    NORMAL = "normal"
    DISRUPTED = "disrupted"
    LOST = "lost"  # all of them


@dataclass(slots=True)
class Zones:
    """The zones with their nodes, kept current by increments, and when each last had a node that was emptied.

    So that a verdict costs the zones and not the nodes: when a thousand nodes are lost, each is asked about.
    """

    _nodes: dict[str, tuple[str, bool]] = field(default_factory=dict)  # node → its zone, is it ready
    _counts: dict[str, list[int]] = field(default_factory=dict)  # zone → nodes lost, nodes ready; never both 0
    _evicted_at: dict[str, float] = field(default_factory=dict)  # monotonic seconds

    def observe(self, name: str, zone: str, ready: bool | None) -> bool:
        """A node is like this now, None: gone. True if that changes how a zone is, and with it what others may do."""
        before = self._nodes.pop(name, None)
        if before == (zone, ready) and ready is not None:
            self._nodes[name] = before
            return False
        touched = {zone} if before is None else {zone, before[0]}
        states = {each: self._state(each) for each in touched}
        if before is not None:
            self._count(before[0], before[1], -1)
        if ready is not None:
            self._nodes[name] = (zone, ready)
            self._count(zone, ready, 1)
        return any(self._state(each) is not state for each, state in states.items())

    def may_evict(self, node: Node, now: float) -> tuple[Eviction, float]:
        """(verdict about a lost node, seconds until it is worth asking again; 0: when `observe` says so).

        NOW uses up the zone's turn: to be asked only for a node that would be tainted, and that is observed as lost.
        """
        zone = zone_of(node)
        if self.all_lost:
            return Eviction.STOPPED, 0.0
        disrupted = self._state(zone) is Zone.DISRUPTED
        if disrupted and sum(self._counts[zone]) <= LARGE:
            return Eviction.STOPPED, 0.0
        interval_s = SLOW_INTERVAL_S if disrupted else INTERVAL_S
        left_s = self._evicted_at.get(zone, now - interval_s) + interval_s - now
        if left_s > 0:
            return Eviction.LATER, left_s
        self._evicted_at[zone] = now
        return Eviction.NOW, 0.0

    @property
    def all_lost(self) -> bool:
        """Whether no node of any zone is ready."""
        return all(self._state(zone) is Zone.LOST for zone in self._counts)

    def give_back(self, node: Node) -> None:
        """The turn could not be used."""
        self._evicted_at.pop(zone_of(node), None)

    def _count(self, zone: str, ready: bool, by: int) -> None:
        counts = self._counts.setdefault(zone, [0, 0])
        counts[ready] += by
        if not any(counts):
            del self._counts[zone]

    def _state(self, zone: str) -> Zone | None:
        """None: there is no such zone."""
        if zone not in self._counts:
            return None
        lost, ready = self._counts[zone]
        if not ready:
            return Zone.LOST
        return Zone.DISRUPTED if lost >= LOST_MIN and lost / (lost + ready) >= UNHEALTHY else Zone.NORMAL
