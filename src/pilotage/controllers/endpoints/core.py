"""From a Service and its pods to the Endpoints object. Pure; fed by `reconciler.py`."""

from collections.abc import Iterable, Mapping
from typing import Any

from pilotage.api import services
from pilotage.api.codec import to_wire
from pilotage.api.core_v1 import EndpointAddress, EndpointPort, Endpoints, EndpointSubset, ObjectReference, Pod, Service

ADDRESSES_MAX = 1000
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MANAGED_BY_LABEL = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
_RESERVED = (MANAGED_BY_LABEL, services.HEADLESS_LABEL)


def subsets(service: Service, pods: Iterable[Pod]) -> tuple[tuple[EndpointSubset, ...], bool]:
    """Addresses packed by the ports they share, sorted; and whether some had to be left out (not ready ones first)."""
    ready: list[tuple[tuple[services.Port, ...], EndpointAddress]] = []
    waiting: list[tuple[tuple[services.Port, ...], EndpointAddress]] = []
    family = services.families(service)[0]
    for pod in sorted(pods, key=lambda item: item.metadata.name):
        tolerates = services.publishes_not_ready(service)
        if not services.is_addressable(pod) or (pod.metadata.is_deleting and not tolerates):
            continue
        ports = tuple(sorted(services.ports(service, pod)))
        if not ports and service.spec.ports:
            continue
        for ip in services.addresses(pod, family)[:1]:
            target = ready if tolerates or pod.status.is_ready else waiting
            target.append((ports, _address(service, pod, ip)))
    excess = len(ready) + len(waiting) > ADDRESSES_MAX
    ready = ready[:ADDRESSES_MAX]
    waiting = waiting[: ADDRESSES_MAX - len(ready)]
    return _packed(ready, waiting), excess


def document(service: Service, found: tuple[EndpointSubset, ...], excess: bool, trigger: str) -> dict[str, Any]:
    """The whole object."""
    annotations = {services.TRIGGER_TIME: trigger} if trigger else {}
    return {
        "apiVersion": Endpoints.api_version,
        "kind": Endpoints.kind,
        "metadata": {
            "name": service.metadata.name,
            "namespace": service.metadata.namespace,
            "labels": labels(service),
            "annotations": annotations | ({OVER_CAPACITY: "truncated"} if excess else {}),
        },
        "subsets": [to_wire(item) for item in found],
    }


def correction(
    service: Service, old: Endpoints, found: tuple[EndpointSubset, ...], excess: bool, trigger: str
) -> dict[str, Any]:
    """The merge patch that makes `old` right; empty if it is."""
    wanted = labels(service)
    marked = OVER_CAPACITY in old.metadata.annotations
    if old.subsets == found and old.metadata.labels == wanted and marked == excess:
        return {}
    annotations: dict[str, str | None] = {OVER_CAPACITY: "truncated" if excess else None}
    if trigger and old.subsets != found:
        annotations[services.TRIGGER_TIME] = trigger
    removed = dict.fromkeys(old.metadata.labels.keys() - wanted.keys())
    return {
        "metadata": {
            "labels": {**removed, **wanted},
            "annotations": annotations,
            "resourceVersion": old.metadata.resource_version,
        },
        "subsets": [to_wire(item) for item in found],
    }


def only_adds(old: Endpoints, found: tuple[EndpointSubset, ...]) -> bool:
    """Whether every address that gets traffic now keeps it on the same ports, so that the change may wait."""
    before, after = (
        {(item.ports, address) for item in subsets_ for address in item.addresses} for subsets_ in (old.subsets, found)
    )
    return before <= after


def is_ours(existing: Endpoints) -> bool:
    """Whether this controller made the object; one written by hand outlives its Service."""
    return existing.metadata.labels.get(MANAGED_BY_LABEL) == MANAGER


def labels(service: Service) -> dict[str, str]:
    copied = services.copied_labels(service, _RESERVED) | {MANAGED_BY_LABEL: MANAGER}
    if services.is_headless(service):
        copied[services.HEADLESS_LABEL] = ""
    return copied


def _address(service: Service, pod: Pod, ip: str) -> EndpointAddress:
    return EndpointAddress(
        ip=ip,
        hostname=services.hostname(service, pod),
        node_name=pod.spec.node_name,
        target_ref=ObjectReference(
            kind=Pod.kind, namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid
        ),
    )


def _packed(
    ready: Iterable[tuple[tuple[services.Port, ...], EndpointAddress]],
    waiting: Iterable[tuple[tuple[services.Port, ...], EndpointAddress]],
) -> tuple[EndpointSubset, ...]:
    groups: dict[tuple[services.Port, ...], tuple[list[EndpointAddress], list[EndpointAddress]]] = {}
    for place, entries in enumerate((ready, waiting)):
        for ports, address in entries:
            groups.setdefault(ports, ([], []))[place].append(address)
    return tuple(
        EndpointSubset(
            addresses=_by_address(groups[ports][0]),
            not_ready_addresses=_by_address(groups[ports][1]),
            ports=tuple(
                EndpointPort(name=port.name, port=port.port, protocol=port.protocol, app_protocol=port.app_protocol)
                for port in ports
            ),
        )
        for ports in sorted(groups)
    )


def _by_address(found: Iterable[EndpointAddress]) -> tuple[EndpointAddress, ...]:
    by_ip: Mapping[str, EndpointAddress] = {address.ip: address for address in found}
    return tuple(by_ip[ip] for ip in sorted(by_ip))
