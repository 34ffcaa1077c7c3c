"""Services and EndpointSlices with what the proxy never reads left out, and what is equal shared.

Stands apart because it is about memory alone: with 100,000 endpoints, a node's name, its conditions and a reference to
its pod each would cost more than the address. Called by the informers for every object before it is stored; whatever
`model` and `topology` read must survive, which a property of the whole plan holds.
"""

import sys
from functools import lru_cache

from pilotage.api.discovery_v1 import SERVICE_NAME_LABEL, Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from pilotage.api.discovery_v1 import EndpointHints as Hints
from pilotage.api.meta_v1 import ObjectMeta

WEIGHT_ANNOTATION = "pilotage.dev/weight"

# Kinds of endpoints in a cluster: states times nodes times zones, of which few are in use at once.
_SHARED_MAX = 8192


def slim_slice(one: EndpointSlice) -> EndpointSlice:
    """The same slice to the proxy, smaller."""
    meta = one.metadata
    weight = meta.annotations.get(WEIGHT_ANNOTATION)
    labels = {SERVICE_NAME_LABEL: one.service_name} if one.service_name else {}
    return EndpointSlice(
        metadata=ObjectMeta(
            name=meta.name,
            namespace=sys.intern(meta.namespace),
            resource_version=meta.resource_version,
            labels=labels,
            annotations={WEIGHT_ANNOTATION: weight} if weight else {},
        ),
        address_type=sys.intern(one.address_type),
        ports=_ports(one.ports),
        endpoints=tuple(
            Endpoint(
                addresses=endpoint.addresses[:1],  # KEP-752: consumers use the first only
                conditions=_conditions(endpoint.conditions),
                node_name=sys.intern(endpoint.node_name),
                hints=_hints(endpoint.hints),
            )
            for endpoint in one.endpoints
        ),
    )


@lru_cache(_SHARED_MAX)
def _conditions(value: EndpointConditions) -> EndpointConditions:
    return value


@lru_cache(_SHARED_MAX)
def _hints(value: Hints) -> Hints:
    return value


@lru_cache(_SHARED_MAX)
def _ports(value: tuple[EndpointPort, ...]) -> tuple[EndpointPort, ...]:
    return value
