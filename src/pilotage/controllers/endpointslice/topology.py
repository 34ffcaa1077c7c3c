"""Hints shared out among zones in proportion to their processors, for Services with topology-mode Auto (KEP-2433).

Stands apart from `core` because it looks at all endpoints of a Service at once, where everything else is decided for
each alone. Pure. Hints are given only when no zone would get fewer endpoints than five sixths of its share; when that
cannot be had, or when the nodes do not say enough, there are none at all and the reason is one that users can read.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pilotage.api.core_v1 import Node, Service
from pilotage.api.quantity import milli

ZONE = "topology.kubernetes.io/zone"
MODE = "service.kubernetes.io/topology-mode"
MODE_BEFORE = "service.kubernetes.io/topology-aware-hints"  # the name it had until Kubernetes 1.27
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")

OVERLOAD_MAX = 0.2
"""How much more than its share of the load an endpoint may get, as kube-controller-manager."""

NO_NODE_DATA = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
ONE_ZONE = "Nodes only ready in one zone"
TOO_FEW = "Insufficient number of endpoints"
NO_ZONE = "One or more endpoints do not have a zone specified"
OVERLOAD = (
    "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Zones:
    """What the nodes say about zones."""

    by_node: Mapping[str, str]  # node → zone, of nodes that have one
    cpu: Mapping[str, int] = field(default_factory=dict)  # zone → millicores of its ready worker nodes
    problem: str = ""  # why nothing can be shared out; empty: it can


def survey(nodes: Iterable[Node]) -> Zones:
    """Zones and what they can carry; nodes of the control plane carry nothing."""
    by_node: dict[str, str] = {}
    cpu: Counter[str] = Counter()
    incomplete = False
    for node in nodes:
        zone, cores, counts = node_inputs(node)
        if zone:
            by_node[node.metadata.name] = zone
        if counts:
            incomplete = incomplete or not zone or not cores
            cpu[zone] += cores
    problem = NO_NODE_DATA if incomplete else ONE_ZONE if len(cpu) < 2 else ""
    return Zones(by_node=by_node, cpu=dict(cpu), problem=problem)


def node_inputs(node: Node) -> tuple[str, int, bool]:
    """(zone, millicores, whether it counts): everything of a node that is asked here."""
    ready = any(item.type == "Ready" and item.status == "True" for item in node.status.conditions)
    worker = not any(label in node.metadata.labels for label in _CONTROL_PLANE)
    return node.metadata.labels.get(ZONE, ""), milli(node.status.allocatable.get("cpu", "0")), ready and worker


def is_auto(service: Service) -> bool:
    """Whether hints are to be shared out; the annotation wins over trafficDistribution."""
    annotations = service.metadata.annotations
    return (annotations.get(MODE) or annotations.get(MODE_BEFORE, "")).lower() == "auto"


def share_out(zone_of: Mapping[str, str], before: Mapping[str, str], zones: Zones) -> Mapping[str, str] | str:
    """Address → the zone it is meant for, or why there are no hints.

    `zone_of`: address of each ready endpoint → where it is. `before`: address → the zone it was meant for so far, kept
    where that is as good as any, since every hint that moves is an event for every node.
    """
    if zones.problem:
        return zones.problem
    total, places = len(zone_of), sorted(zones.cpu)
    if total < len(places):
        return f"{TOO_FEW} ({total}), impossible to safely allocate proportionally to {len(places)} zones"
    if not all(zone_of.values()):
        return NO_ZONE
    cores = sum(zones.cpu.values())
    least = {place: math.ceil(total * zones.cpu[place] / cores / (1 + OVERLOAD_MAX)) for place in places}
    spare = total - sum(least.values())
    if spare < 0:
        return f"{OVERLOAD} ({total} endpoints, {len(places)} zones)"
    given: dict[str, str] = {}
    held: Counter[str] = Counter()
    surplus: list[str] = []
    # Where they were meant for so far, else at home, as many as a zone may have.
    for address in sorted(zone_of):
        place = before[address] if before.get(address) in least else zone_of[address]
        if place in least and held[place] < least[place] + spare:
            given[address] = place
            held[place] += 1
        else:
            surplus.append(address)
    # Zones above their least give what others need, first those that are not at home there.
    needed = sum(max(least[place] - held[place], 0) for place in places)
    for address in sorted(given, key=lambda item: (given[item] == zone_of[item], item)):
        if needed <= len(surplus):
            break
        if held[given[address]] > least[given[address]]:
            held[given.pop(address)] -= 1
            surplus.append(address)
    for address in sorted(surplus):
        lacking = [place for place in places if held[place] < least[place]]
        target = zone_of[address]
        if target not in (lacking or places):
            target = min(lacking or places, key=lambda place: (held[place] / zones.cpu[place], place))
        given[address] = target
        held[target] += 1
    _bring_home(given, held, zone_of, least, spare)
    return given


def _bring_home(
    given: dict[str, str], held: Counter[str], zone_of: Mapping[str, str], least: Mapping[str, int], spare: int
) -> None:
    """Let endpoints serve their own zone where the bounds allow it, until none can: then another call changes nothing.

    Ends, because every step brings one more home.
    """
    moved = True
    while moved:
        moved = False
        away: dict[tuple[str, str], list[str]] = {}  # (home, meant for) → addresses
        for address in sorted(given):
            home, place = zone_of[address], given[address]
            if home == place or home not in least:
                continue
            if held[home] < least[home] + spare and held[place] > least[place]:
                given[address] = home
                held[home] += 1
                held[place] -= 1
                moved = True
            elif others := away.get((place, home)):
                other = others.pop()
                given[address], given[other] = home, place
                moved = True
            else:
                away.setdefault((home, place), []).append(address)
