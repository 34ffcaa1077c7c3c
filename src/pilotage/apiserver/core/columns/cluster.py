"""The columns of nodes, namespaces, configuration, storage, access rules and events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pilotage.apiserver.core.columns.column import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    Cell,
    Column,
    age_of,
    condition,
    count,
    dig,
    duration,
    joined,
    name_and_age,
    number,
    since,
    text,
)
from pilotage.apiserver.core.record import Document

_ROLE_PREFIX = "node-role.kubernetes.io/"


def _node_status(document: Document, now: datetime) -> Cell:
    ready = condition(document, "Ready").get("status")
    shown = {"True": "Ready", "False": "NotReady"}.get(str(ready), "Unknown" if ready is None else "NotReady")
    return shown + (",SchedulingDisabled" if dig(document, "spec.unschedulable") else "")


def _roles(document: Document, now: datetime) -> Cell:
    labels = document["metadata"].get("labels") or {}
    roles = sorted(key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX))
    return ",".join(role for role in roles if role) or NONE


def _address(kind: str) -> Any:
    def read(document: Document, now: datetime) -> Cell:
        addresses = dig(document, "status.addresses") or ()
        return next((str(item["address"]) for item in addresses if item.get("type") == kind), NONE)

    return read


def _event_last_seen(document: Document, now: datetime) -> Cell:
    series = dig(document, "series.lastObservedTime")
    moment = series or document.get("lastTimestamp") or document.get("eventTime") or document.get("firstTimestamp")
    return age_of(moment, now)


def _event_object(document: Document, now: datetime) -> Cell:
    subject = document.get("involvedObject") or document.get("regarding") or {}
    return f"{str(subject.get('kind', '')).lower()}/{subject.get('name', '')}"


def _event_source(document: Document, now: datetime) -> Cell:
    source = document.get("source") or {}
    parts = [source.get("component") or document.get("reportingComponent"), source.get("host")]
    return ", ".join(part for part in parts if part)


def _message(document: Document, now: datetime) -> Cell:
    return str(document.get("message") or document.get("note") or "").strip()


def _subjects(kind: str) -> Any:
    def read(document: Document, now: datetime) -> Cell:
        chosen = [item for item in document.get("subjects") or () if item.get("kind") == kind]
        return ", ".join(f"{i['namespace']}/{i['name']}" if i.get("namespace") else str(i["name"]) for i in chosen)

    return read


_BINDING = (
    NAME,
    Column("Role", lambda document, now: f"{dig(document, 'roleRef.kind')}/{dig(document, 'roleRef.name')}"),
    AGE,
    Column("Users", _subjects("User"), priority=1),
    Column("Groups", _subjects("Group"), priority=1),
    Column("ServiceAccounts", _subjects("ServiceAccount"), priority=1),
)


def _csr_duration(document: Document, now: datetime) -> Cell:
    seconds = dig(document, "spec.expirationSeconds")
    return NONE if seconds is None else duration(int(seconds))


def _csr_condition(document: Document, now: datetime) -> Cell:
    types = [item["type"] for item in dig(document, "status.conditions") or ()]
    shown = ",".join(types) or "Pending"
    return shown + (",Issued" if dig(document, "status.certificate") else "")


def _capacity(document: Document, now: datetime) -> Cell:
    return str(dig(document, "status.capacity.storage") or dig(document, "spec.capacity.storage") or "")


_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _access_modes(document: Document, now: datetime) -> Cell:
    modes = dig(document, "status.accessModes") or dig(document, "spec.accessModes") or ()
    return ",".join(_MODES.get(mode, mode) for mode in modes)


def _claim(document: Document, now: datetime) -> Cell:
    reference = dig(document, "spec.claimRef")
    return f"{reference['namespace']}/{reference['name']}" if reference else ""


_EVENT = (
    Column("Last Seen", _event_last_seen),
    Column("Type", text("type")),
    Column("Reason", text("reason")),
    Column("Object", _event_object),
    Column("Subobject", text("involvedObject.fieldPath"), priority=1),
    Column("Source", _event_source, priority=1),
    Column("Message", _message),
    Column("First Seen", since("firstTimestamp"), priority=1),
    Column("Count", number("count", 1), priority=1),
    Column("Name", text("metadata.name"), priority=1, format="name"),
)

CLUSTER: dict[tuple[str, str], tuple[Column, ...]] = {
    ("events.k8s.io", "events"): _EVENT,
    ("", "nodes"): (
        NAME,
        Column("Status", _node_status),
        Column("Roles", _roles),
        AGE,
        Column("Version", text("status.nodeInfo.kubeletVersion")),
        Column("Internal-IP", _address("InternalIP"), priority=1),
        Column("External-IP", _address("ExternalIP"), priority=1),
        Column("OS-Image", text("status.nodeInfo.osImage", UNKNOWN), priority=1),
        Column("Kernel-Version", text("status.nodeInfo.kernelVersion", UNKNOWN), priority=1),
        Column("Container-Runtime", text("status.nodeInfo.containerRuntimeVersion", UNKNOWN), priority=1),
    ),
    ("", "namespaces"): (NAME, Column("Status", text("status.phase")), AGE),
    ("", "configmaps"): (
        NAME,
        Column(
            "Data",
            lambda document, now: len(document.get("data") or ()) + len(document.get("binaryData") or ()),
            type="integer",
        ),
        AGE,
    ),
    ("", "secrets"): (NAME, Column("Type", text("type")), Column("Data", count("data"), type="integer"), AGE),
    ("", "serviceaccounts"): (NAME, AGE),
    ("", "events"): _EVENT,
    ("", "persistentvolumeclaims"): (
        NAME,
        Column("Status", text("status.phase")),
        Column("Volume", text("spec.volumeName")),
        Column("Capacity", _capacity),
        Column("Access Modes", _access_modes),
        Column("StorageClass", text("spec.storageClassName")),
        Column("VolumeAttributesClass", text("spec.volumeAttributesClassName", "<unset>")),
        AGE,
        Column("VolumeMode", text("spec.volumeMode", "Filesystem"), priority=1),
    ),
    ("", "persistentvolumes"): (
        NAME,
        Column("Capacity", _capacity),
        Column("Access Modes", _access_modes),
        Column("Reclaim Policy", text("spec.persistentVolumeReclaimPolicy")),
        Column("Status", text("status.phase")),
        Column("Claim", _claim),
        Column("StorageClass", text("spec.storageClassName")),
        Column("VolumeAttributesClass", text("spec.volumeAttributesClassName", "<unset>")),
        Column("Reason", text("status.reason")),
        AGE,
        Column("VolumeMode", text("spec.volumeMode", "Filesystem"), priority=1),
    ),
    ("", "resourcequotas"): (NAME, AGE),
    ("", "limitranges"): name_and_age(),
    ("rbac.authorization.k8s.io", "roles"): name_and_age(),
    ("rbac.authorization.k8s.io", "clusterroles"): name_and_age(),
    ("rbac.authorization.k8s.io", "rolebindings"): _BINDING,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _BINDING,
    ("coordination.k8s.io", "leases"): (NAME, Column("Holder", text("spec.holderIdentity")), AGE),
    ("certificates.k8s.io", "certificatesigningrequests"): (
        NAME,
        AGE,
        Column("SignerName", text("spec.signerName", NONE)),
        Column("Requestor", text("spec.username")),
        Column("RequestedDuration", _csr_duration),
        Column("Condition", _csr_condition),
    ),
    ("storage.k8s.io", "storageclasses"): (
        NAME,
        Column("Provisioner", text("provisioner")),
        Column("ReclaimPolicy", text("reclaimPolicy", "Delete")),
        Column("VolumeBindingMode", text("volumeBindingMode", "Immediate")),
        Column("AllowVolumeExpansion", text("allowVolumeExpansion", "false")),
        AGE,
    ),
    ("scheduling.k8s.io", "priorityclasses"): (
        NAME,
        Column("Value", number("value"), type="integer"),
        Column("Global-Default", text("globalDefault", "false")),
        AGE,
        Column("PreemptionPolicy", text("preemptionPolicy", "PreemptLowerPriority")),
    ),
    ("node.k8s.io", "runtimeclasses"): (NAME, Column("Handler", text("handler")), AGE),
    ("apiextensions.k8s.io", "customresourcedefinitions"): name_and_age(),
    ("apiregistration.k8s.io", "apiservices"): (
        NAME,
        Column("Service", text("spec.service.name", "Local")),
        Column("Available", lambda document, now: str(condition(document, "Available").get("status", "True"))),
        AGE,
    ),
    ("storage.k8s.io", "csinodes"): (NAME, Column("Drivers", count("spec.drivers"), type="integer"), AGE),
    ("storage.k8s.io", "csidrivers"): (
        NAME,
        Column("AttachRequired", text("spec.attachRequired", "true")),
        Column("PodInfoOnMount", text("spec.podInfoOnMount", "false")),
        Column("StorageCapacity", text("spec.storageCapacity", "false")),
        Column("TokenRequests", joined("spec.tokenRequests", "<unset>")),
        Column("RequiresRepublish", text("spec.requiresRepublish", "false")),
        Column("Modes", joined("spec.volumeLifecycleModes")),
        AGE,
    ),
}
