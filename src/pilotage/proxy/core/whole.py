"""Everything at once: all Services and EndpointSlices → the plan of a node.

Stands apart from `plan`, which knows no API object, and from the proxier, which plans what changed. Called by whoever
compares rather than follows.
"""

from collections.abc import Iterable

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.proxy.core.model import Problem, service_ports
from pilotage.proxy.core.plan import Plan, Planner
from pilotage.proxy.core.topology import NodeView


def plan_everything(
    services: Iterable[Service],
    slices: Iterable[EndpointSlice],
    node: NodeView,
    problems: list[Problem] | None = None,
) -> Plan:
    """What must be there; the order of the arguments' items does not matter.

    `problems` gets what cannot be carried out as written, sorted.
    """
    by_service: dict[str, list[EndpointSlice]] = {}
    for one in slices:
        by_service.setdefault(f"{one.metadata.namespace}/{one.service_name}", []).append(one)
    by_key = {service.metadata.key: service for service in services}
    planner = Planner(node, recording=False)
    waiting = set(by_key)
    found: dict[str, list[Problem]] = {}
    while waiting:
        key = waiting.pop()
        service = by_key[key]
        found[key] = []
        ports = service_ports(service, by_service.get(key, ()), found[key])
        waiting |= planner.update(key, ports, age=service.metadata.creation_timestamp, problems=found[key])
    if problems is not None:
        problems += [one for key in sorted(found) for one in dict.fromkeys(found[key])]
    return planner.plan()
