"""From a Service, its pods and its present slices to the fewest writes that make the slices right.

Fed by `reconciler.py`; pure and deterministic. Endpoints stay in the slice they are in, since every moved endpoint
costs every consumer two events.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotage.api import services
from pilotage.api.codec import to_wire
from pilotage.api.core_v1 import ObjectReference, Pod, Service
from pilotage.api.discovery_v1 import (
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
)
from pilotage.api.pods import controller_reference

MANAGER = "endpointslice-controller.k8s.io"
ENDPOINTS_MAX = 100
"""Endpoints in one slice, as kube-controller-manager's default: one event stays small, one Service needs few slices."""

_RESERVED = (SERVICE_NAME_LABEL, MANAGED_BY_LABEL, services.HEADLESS_LABEL)

Group = tuple[str, tuple[services.Port, ...]]  # address family, ports: what all endpoints of one slice share


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A slice whose content changes; `document` is a merge patch that states all of it."""

    slice: EndpointSlice
    document: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Carry out in field order: addresses appear before others vanish."""

    create: tuple[dict[str, Any], ...]
    update: tuple[Replacement, ...]
    delete: tuple[EndpointSlice, ...]


@dataclass(slots=True)
class _Bin:
    """A slice while it is being filled."""

    slice: EndpointSlice | None  # None: to be created
    endpoints: list[Endpoint] = field(default_factory=list)


def plan(
    service: Service, pods: Iterable[Pod], zones: Mapping[str, str], slices: Sequence[EndpointSlice], trigger: str
) -> Plan:
    """`zones`: node → zone. `slices`: ours of this Service. `trigger`: RFC 3339 time of the change that led here."""
    wanted = _wanted(service, pods, zones)
    labels = _labels(service)
    by_group: dict[Group, list[EndpointSlice]] = {}
    for item in sorted(slices, key=lambda slice_: slice_.metadata.name):
        if not item.metadata.is_deleting:
            by_group.setdefault(_group_of(item), []).append(item)
    create: list[dict[str, Any]] = []
    update: list[Replacement] = []
    delete: list[EndpointSlice] = []
    for group in sorted(by_group.keys() | wanted.keys()):
        for filled in _pack(wanted.get(group, {}), by_group.get(group, ())):
            if filled.slice is None:
                create.append(_document(service, group, filled.endpoints, labels, trigger))
            elif not filled.endpoints:
                delete.append(filled.slice)
            elif not _is_same(filled, labels):
                update.append(_replacement(filled, labels, trigger))
    if not wanted:
        _keep_placeholders(service, by_group, labels, trigger, create, delete)
    return Plan(create=tuple(create), update=tuple(update), delete=tuple(delete))


def endpoint_of(service: Service, pod: Pod, family: str, zones: Mapping[str, str]) -> Endpoint:
    """The endpoint that stands for a pod. `serving` ignores termination, `ready` does not (KEP-1672)."""
    terminating = pod.metadata.is_deleting
    serving = pod.status.is_ready
    ready = services.publishes_not_ready(service) or (serving and not terminating)
    return Endpoint(
        addresses=services.addresses(pod, family)[:1],
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        hostname=services.hostname(service, pod),
        node_name=pod.spec.node_name,
        zone=zones.get(pod.spec.node_name, ""),
        target_ref=ObjectReference(
            kind=Pod.kind, namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid
        ),
    )


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


def _pack(wanted: Mapping[str, Endpoint], slices: Sequence[EndpointSlice]) -> list[_Bin]:
    """Old endpoints keep their slice; new ones fill the fullest slices first; the rest goes into new slices."""
    left = dict(wanted)
    bins = []
    for item in slices:
        kept = [left.pop(old.addresses[0]) for old in item.endpoints if old.addresses and old.addresses[0] in left]
        bins.append(_Bin(item, kept))
    # A slice that changes anyway takes newcomers before one that would be written for them alone.
    open_bins = sorted(
        (item for item in bins if len(item.endpoints) < ENDPOINTS_MAX),
        key=lambda item: (_is_unchanged(item), -len(item.endpoints)),
    )
    newcomers = [left[address] for address in sorted(left)]
    for open_bin in open_bins:
        room = ENDPOINTS_MAX - len(open_bin.endpoints)
        open_bin.endpoints += newcomers[:room]
        newcomers = newcomers[room:]
    while newcomers:
        bins.append(_Bin(None, newcomers[:ENDPOINTS_MAX]))
        newcomers = newcomers[ENDPOINTS_MAX:]
    return bins


def _is_unchanged(item: _Bin) -> bool:
    return item.slice is not None and tuple(item.endpoints) == item.slice.endpoints


def _keep_placeholders(
    service: Service,
    by_group: Mapping[Group, Sequence[EndpointSlice]],
    labels: Mapping[str, str],
    trigger: str,
    create: list[dict[str, Any]],
    delete: list[EndpointSlice],
) -> None:
    """A Service without endpoints keeps one empty slice a family, so that consumers see "none", not "unknown"."""
    for family in services.families(service):
        empty: Group = (family, ())
        kept = next((item for item in delete if _group_of(item) == empty), None)
        if kept is not None:
            delete.remove(kept)
        elif not by_group.get(empty):
            create.append(_document(service, empty, [], labels, trigger))


def _group_of(item: EndpointSlice) -> Group:
    ports = (services.Port(port.name, port.protocol, port.port or 0, port.app_protocol) for port in item.ports)
    return (item.address_type, tuple(sorted(ports)))


def _labels(service: Service) -> dict[str, str]:
    labels = services.copied_labels(service, _RESERVED)
    labels |= {SERVICE_NAME_LABEL: service.metadata.name, MANAGED_BY_LABEL: MANAGER}
    if services.is_headless(service):
        labels[services.HEADLESS_LABEL] = ""
    return labels


def _is_same(item: _Bin, labels: Mapping[str, str]) -> bool:
    return _is_unchanged(item) and item.slice is not None and item.slice.metadata.labels == labels


def _replacement(item: _Bin, labels: Mapping[str, str], trigger: str) -> Replacement:
    assert item.slice is not None
    removed = dict.fromkeys(item.slice.metadata.labels.keys() - labels.keys())
    metadata: dict[str, Any] = {
        "labels": {**removed, **labels},
        "resourceVersion": item.slice.metadata.resource_version,
    }
    if trigger and not _is_unchanged(item):
        metadata["annotations"] = {services.TRIGGER_TIME: trigger}
    document: dict[str, Any] = {"metadata": metadata}
    if not _is_unchanged(item):
        document["endpoints"] = [_endpoint_document(endpoint) for endpoint in item.endpoints]
    return Replacement(slice=item.slice, document=document)


def _document(
    service: Service, group: Group, endpoints: Sequence[Endpoint], labels: Mapping[str, str], trigger: str
) -> dict[str, Any]:
    family, ports = group
    metadata: dict[str, Any] = {
        "generateName": f"{service.metadata.name}-",
        "namespace": service.metadata.namespace,
        "labels": dict(labels),
        "ownerReferences": [controller_reference(service)],
    }
    if trigger:
        metadata["annotations"] = {services.TRIGGER_TIME: trigger}
    return {
        "apiVersion": EndpointSlice.api_version,
        "kind": EndpointSlice.kind,
        "metadata": metadata,
        "addressType": family,
        "endpoints": [_endpoint_document(endpoint) for endpoint in endpoints],
        "ports": [_port_document(port) for port in ports],
    }


def _endpoint_document(endpoint: Endpoint) -> dict[str, Any]:
    document: dict[str, Any] = to_wire(endpoint)
    # False is said aloud: absent would mean unknown, which counts as ready.
    document["conditions"] = {name: getattr(endpoint.conditions, name) for name in ("ready", "serving", "terminating")}
    return document


def _port_document(port: services.Port) -> dict[str, Any]:
    value = EndpointPort(name=port.name, protocol=port.protocol, port=port.port, app_protocol=port.app_protocol)
    document: dict[str, Any] = to_wire(value)
    return {"name": port.name, "protocol": port.protocol} | document
