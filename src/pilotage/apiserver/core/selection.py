"""Label and field selectors against stored objects.

Stands apart because lists, watches, deletecollection and admission select alike. Which fields a kind can be selected
by is Kubernetes' own list per kind; anything else is refused, because a silently ignored selector deletes too much.
Called by the registry with records; leaves parsing to `api.labels`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.api.labels import EVERYTHING, Selector, SelectorError, parse_field_selector, parse_selector
from pilotage.api.status import ApiError
from pilotage.apiserver.core.custom_resource import CustomResource
from pilotage.apiserver.core.record import Document, Record

FieldReader = Callable[[Document], str]


def _path(path: str, default: str = "") -> FieldReader:
    keys = path.split(".")

    def read(document: Document) -> str:
        value: Any = document
        for key in keys:
            if not isinstance(value, dict):
                return default
            value = value.get(key)
        if value is None or value == "":
            return default
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value)

    return read


def _paths(*paths: str) -> dict[str, FieldReader]:
    return {path: _path(path) for path in paths}


_METADATA = _paths("metadata.name", "metadata.namespace")
_EVENT_SUBJECT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def _event_source(document: Document) -> str:
    return str((document.get("source") or {}).get("component") or document.get("reportingComponent") or "")


def _host_network(document: Document) -> str:
    return "true" if (document.get("spec") or {}).get("hostNetwork") else "false"


# Per group and plural, beyond metadata.name and metadata.namespace (the field label conversions of each API group).
_FIELDS: dict[tuple[str, str], dict[str, FieldReader]] = {
    ("", "pods"): {
        **_paths(
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ),
        "spec.hostNetwork": _host_network,
    },
    ("", "nodes"): {"spec.unschedulable": _path("spec.unschedulable", "false")},
    ("", "namespaces"): _paths("status.phase"),
    ("", "secrets"): _paths("type"),
    ("", "services"): _paths("spec.clusterIP", "spec.type"),
    ("", "replicationcontrollers"): {"status.replicas": _path("status.replicas", "0")},
    ("", "events"): {
        **_paths(*(f"involvedObject.{name}" for name in _EVENT_SUBJECT), "reason", "type", "reportingComponent"),
        "source": _event_source,
    },
    ("events.k8s.io", "events"): {
        # Read from the stored form, which is core's.
        **{f"regarding.{name}": _path(f"involvedObject.{name}") for name in _EVENT_SUBJECT},
        **_paths("reason", "type"),
        "reportingController": _path("reportingComponent"),
    },
    ("apps", "replicasets"): {"status.replicas": _path("status.replicas", "0")},
    ("batch", "jobs"): {"status.successful": _path("status.succeeded", "0")},
    ("certificates.k8s.io", "certificatesigningrequests"): _paths("spec.signerName"),
    ("resource.k8s.io", "resourceslices"): _paths("spec.nodeName", "spec.driver"),
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a collection are meant."""

    labels: Selector = EVERYTHING
    fields: tuple[tuple[FieldReader, str, bool], ...] = ()  # reader, wanted value, whether it must be equal
    name: str = ""  # the one metadata.name that can match, when the field selector says so

    @property
    def everything(self) -> bool:
        """True if nothing is filtered out."""
        return not self.labels and not self.fields

    def matches(self, record: Record) -> bool:
        """Whether the record is meant."""
        if self.labels and not self.labels.matches(record.labels):
            return False
        if not self.fields:
            return True
        document = record.document
        return all((read(document) == value) is equal for read, value, equal in self.fields)


ALL = Selection()


def selection(resource: Resource, label_selector: str, field_selector: str) -> Selection:
    """Parse both parameters; raises ApiError BadRequest, naming the part that is wrong."""
    if not label_selector and not field_selector:
        return ALL
    try:
        labels = parse_selector(label_selector) if label_selector else EVERYTHING
        wanted = parse_field_selector(field_selector).requirements if field_selector else ()
    except SelectorError as error:
        raise ApiError("BadRequest", f"unable to parse selector: {error}") from error
    known = (
        resource.custom.fields
        if isinstance(resource, CustomResource)
        else _FIELDS.get((resource.group, resource.plural), {})
    )
    fields = []
    name = ""
    for requirement in wanted:
        read = _METADATA.get(requirement.key) or known.get(requirement.key)
        if read is None:
            raise ApiError("BadRequest", _unsupported(requirement.key, known))
        value = next(iter(requirement.values))
        equal = requirement.operator == "in"
        if requirement.key == "metadata.name" and equal:
            name = value
        fields.append((read, value, equal))
    return Selection(labels=labels, fields=tuple(fields), name=name)


def _unsupported(key: str, known: Mapping[str, FieldReader]) -> str:
    # Kubernetes has two wordings: one for kinds with fields of their own, one for all others.
    if known:
        return f"field label not supported: {key}"
    return f'"{key}" is not a known field selector: only "metadata.name", "metadata.namespace"'
