"""Packing endpoints into EndpointSlices with the fewest writes, and the documents of slices.

Stands apart because slices made from pods and slices mirrored from Endpoints objects are packed alike, and the two
controllers do not know each other. Pure. Endpoints stay in the slice they are in, since every moved endpoint costs
every consumer two events.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotage.api import services
from pilotage.api.codec import to_wire
from pilotage.api.discovery_v1 import Endpoint, EndpointPort, EndpointSlice
from pilotage.api.meta_v1 import Object
from pilotage.api.pods import controller_reference

ENDPOINTS_MAX = 100
"""Endpoints in one slice, as kube-controller-manager's default: one event stays small, one Service needs few slices."""

HELD_BACK = "pilotage.dev/held-back"
"""Annotation of a slice: its endpoints whose pods are ready, but wait before they get traffic (ADR 8)."""

Group = tuple[str, tuple[services.Port, ...]]  # address family, ports: what all endpoints of one slice share


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What all slices made for one object carry."""

    owner: Object
    labels: Mapping[str, str]
    annotations: Mapping[str, str] | None  # all of them, the trigger time aside; None: whatever is there
    trigger: str  # RFC 3339 time of the change that led here; empty: not stated
    held_back: Mapping[str, str] = field(default_factory=dict)  # address → why it is not ready although its pod is


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

    def __bool__(self) -> bool:
        """Whether there is anything to carry out."""
        return bool(self.create or self.update or self.delete)


@dataclass(slots=True)
class _Bin:
    """A slice while it is being filled."""

    slice: EndpointSlice | None  # None: to be created
    endpoints: list[Endpoint] = field(default_factory=list)


def plan_slices(
    shape: Shape,
    wanted: Mapping[Group, Mapping[str, Endpoint]],
    slices: Sequence[EndpointSlice],
    placeholders: Iterable[str],
) -> Plan:
    """`wanted`: group → address → endpoint. `slices`: those made for the owner so far.

    `placeholders`: families that keep one empty slice when nothing is wanted, so that consumers see "none", not
    "unknown".
    """
    by_group: dict[Group, list[EndpointSlice]] = {}
    for item in sorted(slices, key=lambda slice_: slice_.metadata.name):
        if not item.metadata.is_deleting:
            by_group.setdefault(group_of(item), []).append(item)
    create: list[dict[str, Any]] = []
    update: list[Replacement] = []
    delete: list[EndpointSlice] = []
    for group in sorted(by_group.keys() | wanted.keys()):
        for filled in _pack(wanted.get(group, {}), by_group.get(group, ())):
            if filled.slice is None:
                create.append(_document(shape, group, filled.endpoints))
            elif not filled.endpoints:
                delete.append(filled.slice)
            elif not _is_unchanged(filled) or not _wears(filled.slice, filled.endpoints, shape):
                update.append(_replacement(shape, filled))
    if not wanted:
        for family in placeholders:
            empty: Group = (family, ())
            kept = next((item for item in delete if group_of(item) == empty), None)
            if kept is not None:
                delete.remove(kept)
            elif not by_group.get(empty):
                create.append(_document(shape, empty, []))
    return Plan(create=tuple(create), update=tuple(update), delete=tuple(delete))


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


def group_of(item: EndpointSlice) -> Group:
    """What all endpoints of the slice share."""
    ports = (services.Port(port.name, port.protocol, port.port or 0, port.app_protocol) for port in item.ports)
    return (item.address_type, tuple(sorted(ports)))


def _held_back(shape: Shape, endpoints: Sequence[Endpoint]) -> str:
    """What the annotation of a slice says about those of its endpoints that wait; empty if none does."""
    if not shape.held_back:
        return ""
    waiting = [(item.addresses[0], shape.held_back.get(item.addresses[0])) for item in endpoints]
    return "; ".join(f"{address} {why}" for address, why in waiting if why)


def _wears(item: EndpointSlice, endpoints: Sequence[Endpoint], shape: Shape) -> bool:
    """Whether the slice has the labels and annotations it should."""
    if item.metadata.labels != shape.labels:
        return False
    if shape.annotations is None and item.metadata.annotations.get(HELD_BACK, "") != _held_back(shape, endpoints):
        return False
    present = {key: value for key, value in item.metadata.annotations.items() if key != services.TRIGGER_TIME}
    return shape.annotations is None or present == shape.annotations


def _replacement(shape: Shape, item: _Bin) -> Replacement:
    assert item.slice is not None
    present = item.slice.metadata
    annotations: dict[str, str | None] = {}
    if shape.annotations is not None:
        gone = present.annotations.keys() - shape.annotations.keys() - {services.TRIGGER_TIME}
        annotations = {**dict.fromkeys(gone), **shape.annotations}
    elif (held := _held_back(shape, item.endpoints)) or HELD_BACK in present.annotations:
        annotations[HELD_BACK] = held or None
    if shape.trigger and not _is_unchanged(item):
        annotations[services.TRIGGER_TIME] = shape.trigger
    metadata: dict[str, Any] = {
        "labels": {**dict.fromkeys(present.labels.keys() - shape.labels.keys()), **shape.labels},
        "resourceVersion": present.resource_version,
    }
    if annotations:
        metadata["annotations"] = annotations
    document: dict[str, Any] = {"metadata": metadata}
    if not _is_unchanged(item):
        document["endpoints"] = [_endpoint_document(endpoint) for endpoint in item.endpoints]
    return Replacement(slice=item.slice, document=document)


def _document(shape: Shape, group: Group, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    family, ports = group
    metadata: dict[str, Any] = {
        "generateName": f"{shape.owner.metadata.name}-",
        "namespace": shape.owner.metadata.namespace,
        "labels": dict(shape.labels),
        "ownerReferences": [controller_reference(shape.owner)],
    }
    annotations = dict(shape.annotations or {})
    if held := _held_back(shape, endpoints):
        annotations[HELD_BACK] = held
    if shape.trigger:
        annotations[services.TRIGGER_TIME] = shape.trigger
    if annotations:
        metadata["annotations"] = annotations
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
    stated = {name: getattr(endpoint.conditions, name) for name in ("ready", "serving", "terminating")}
    document["conditions"] = {name: value for name, value in stated.items() if value is not None}
    if not endpoint.hints.for_zones and not endpoint.hints.for_nodes:
        document.pop("hints", None)  # an empty object would be stored as one
    return document


def _port_document(port: services.Port) -> dict[str, Any]:
    value = EndpointPort(name=port.name, protocol=port.protocol, port=port.port, app_protocol=port.app_protocol)
    document: dict[str, Any] = to_wire(value)
    return {"name": port.name, "protocol": port.protocol} | document
