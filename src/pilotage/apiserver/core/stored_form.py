"""Where a resource's objects are kept, when that is under another group-version: Events have two shapes and one home.

Custom resources are stored as their definition's storage version; other versions of them differ by name alone
(conversion strategy None), and a record older than the definition is pruned and defaulted as it is read.

Stands apart because only the edges of the registry know that `events.k8s.io/v1` objects are stored as core `v1` Events:
what is written through one is read through the other, as in Kubernetes. Pure translation, one field for one field.
Source: events.k8s.io/v1 in the Kubernetes API reference, whose deprecated fields carry core's; KEP-383.
"""

from __future__ import annotations

from pilotage.api.catalogue import Resource
from pilotage.apiserver.core import autoscaler
from pilotage.apiserver.core.custom_resource import CustomResource
from pilotage.apiserver.core.record import Document, Record, encode

_EVENTS = ("events.k8s.io", "events")
_HOME = ("", "events")
_AUTOSCALER_V1 = "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler"

# kube-apiserver's --event-ttl.
EVENT_LIFETIME_S = 3_600.0

# events.k8s.io/v1 → core/v1, where the names differ.
_TO_CORE = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_FROM_CORE = {core: name for name, core in _TO_CORE.items()}


def home_of(resource: Resource) -> tuple[str, str]:
    """Group and plural under which a resource's objects are stored."""
    own = (resource.group, resource.plural)
    return _HOME if own == _EVENTS else own


def lifetime_s(resource: Resource) -> float | None:
    """How long an object is kept after its last write; None: until it is deleted."""
    return EVENT_LIFETIME_S if home_of(resource) == _HOME else None


def to_stored(resource: Resource, document: Document) -> Document:
    """A document of the resource → what is stored; the same object where nothing differs."""
    if isinstance(resource, CustomResource):
        stored = resource.custom.storage_api_version
        return document if document["apiVersion"] == stored else {**document, "apiVersion": stored}
    if resource.schema == _AUTOSCALER_V1:
        return autoscaler.to_v2(document)
    if (resource.group, resource.plural) != _EVENTS:
        return document
    return {**{_TO_CORE.get(key, key): value for key, value in document.items()}, "apiVersion": "v1"}


def from_stored(resource: Resource, document: Document) -> Document:
    """What is stored → a document of the resource; the same object where nothing differs."""
    if isinstance(resource, CustomResource):
        if document["apiVersion"] == resource.api_version:
            return document
        return {**document, "apiVersion": resource.api_version}
    if resource.schema == _AUTOSCALER_V1:
        return autoscaler.to_v1(document)
    if (resource.group, resource.plural) != _EVENTS:
        return document
    return {**{_FROM_CORE.get(key, key): value for key, value in document.items()}, "apiVersion": resource.api_version}


def shown(resource: Resource, record: Record) -> Record:
    """A stored record as the resource shows it; the same record where nothing differs."""
    if isinstance(resource, CustomResource):
        return _shown_as(resource, record)
    if (resource.group, resource.plural) != _EVENTS and resource.schema != _AUTOSCALER_V1:
        return record
    return Record.from_stored(record.key, encode(from_stored(resource, record.document)), record.revision)


def _shown_as(resource: CustomResource, record: Record) -> Record:
    current = record.revision >= resource.custom.since
    # Records begin with their apiVersion: no need to decode one to see that it is the version asked for.
    if current and record.data.startswith(b'{"apiVersion":"%b",' % resource.api_version.encode()):
        return record
    document = record.document if current else resource.custom.read(record.document)
    return Record.from_stored(record.key, encode(from_stored(resource, document)), record.revision)
