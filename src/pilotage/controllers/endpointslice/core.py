"""From a Service, its pods and its present slices to the fewest writes that make the slices right.

Fed by `reconciler.py`; pure and deterministic. How endpoints are packed says `pilotage.api.slices`.
"""

from collections.abc import Iterable, Mapping, Sequence

from pilotage.api import services
from pilotage.api.core_v1 import ObjectReference, Pod, Service
from pilotage.api.discovery_v1 import (
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointConditions,
    EndpointHints,
    EndpointSlice,
    ForNode,
    ForZone,
)
from pilotage.api.slices import Group, Plan, Shape, plan_slices

MANAGER = "endpointslice-controller.k8s.io"
_RESERVED = (SERVICE_NAME_LABEL, MANAGED_BY_LABEL, services.HEADLESS_LABEL)


def plan(
    service: Service, pods: Iterable[Pod], zones: Mapping[str, str], slices: Sequence[EndpointSlice], trigger: str
) -> Plan:
    """`zones`: node → zone. `slices`: ours of this Service. `trigger`: RFC 3339 time of the change that led here."""
    wanted = _wanted(service, pods, zones)
    shape = Shape(owner=service, labels=_labels(service), annotations=None, trigger=trigger)
    return plan_slices(shape, wanted, slices, services.families(service))


def endpoint_of(service: Service, pod: Pod, family: str, zones: Mapping[str, str]) -> Endpoint:
    """The endpoint that stands for a pod. `serving` ignores termination, `ready` does not (KEP-1672)."""
    terminating = pod.metadata.is_deleting
    serving = pod.status.is_ready
    ready = services.publishes_not_ready(service) or (serving and not terminating)
    zone = zones.get(pod.spec.node_name, "")
    return Endpoint(
        addresses=services.addresses(pod, family)[:1],
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        hostname=services.hostname(service, pod),
        node_name=pod.spec.node_name,
        zone=zone,
        target_ref=ObjectReference(
            kind=Pod.kind, namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid
        ),
        hints=hints(service.spec.traffic_distribution, zone, pod.spec.node_name) if ready else EndpointHints(),
    )


def hints(distribution: str, zone: str, node_name: str) -> EndpointHints:
    """For whom an endpoint is meant: its own zone, and first its own node (KEP-4444, KEP-3015).

    Each endpoint is for where it is, whatever the spread: a zone without endpoints has none that names it, and then
    consumers take them all.
    """
    if distribution not in ("PreferClose", "PreferSameZone", "PreferSameNode"):
        return EndpointHints()
    nodes = (ForNode(name=node_name),) if distribution == "PreferSameNode" and node_name else ()
    return EndpointHints(for_zones=(ForZone(name=zone),) if zone else (), for_nodes=nodes)


def _wanted(service: Service, pods: Iterable[Pod], zones: Mapping[str, str]) -> dict[Group, dict[str, Endpoint]]:
    """Group → address → endpoint."""
    wanted: dict[Group, dict[str, Endpoint]] = {}
    for pod in sorted(pods, key=lambda item: item.metadata.name):
        if not services.is_addressable(pod):
            continue
        ports = services.ports(service, pod)
        if not ports and service.spec.ports:
            continue  # it knows none of the named ports: there is nothing to send traffic to
        for family in services.families(service):
            endpoint = endpoint_of(service, pod, family, zones)
            if endpoint.addresses:
                wanted.setdefault((family, tuple(sorted(ports))), {})[endpoint.addresses[0]] = endpoint
    return wanted


def _labels(service: Service) -> dict[str, str]:
    labels = services.copied_labels(service, _RESERVED)
    labels |= {SERVICE_NAME_LABEL: service.metadata.name, MANAGED_BY_LABEL: MANAGER}
    if services.is_headless(service):
        labels[services.HEADLESS_LABEL] = ""
    return labels
