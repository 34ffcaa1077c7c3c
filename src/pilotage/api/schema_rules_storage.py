"""What makes volumes, claims and their classes sound.

One function a kind, over conforming and defaulted documents. Called through `schema_rules`.

Source: the API reference of Kubernetes 1.36, core/v1 (PersistentVolume and its claim) and storage.k8s.io/v1.
"""

from __future__ import annotations

from typing import Any

from pilotage.api import quantity
from pilotage.api import schema_names as names
from pilotage.api.schema_problems import Problems

_Object = dict[str, Any]


def claim(document: _Object, problems: Problems) -> None:
    """Access modes and a size."""
    spec = document.get("spec", {})
    modes = spec.get("accessModes") or ()
    if not modes:
        problems.required("spec.accessModes", "at least 1 access mode is required")
    supported = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
    for mode in modes:
        if mode not in supported:
            problems.unsupported("spec.accessModes", mode, supported)
    storage = spec.get("resources", {}).get("requests", {}).get("storage")
    if storage is None:
        problems.required("spec.resources[storage]")
    elif quantity.parse(storage) <= 0:
        problems.invalid("spec.resources[storage]", storage, "must be greater than zero")


_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
# What of a volume's spec is not where its data lives.
_NOT_SOURCES = frozenset(
    {"accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
     "storageClassName", "volumeAttributesClassName", "volumeMode"}
)  # fmt: skip


def volume(document: _Object, problems: Problems) -> None:
    """A size, a way to reach it, and exactly one place where the data lives."""
    spec = document.get("spec", {})
    if not spec.get("accessModes"):
        problems.required("spec.accessModes")
    for mode in spec.get("accessModes") or ():
        if mode not in _MODES:
            problems.unsupported("spec.accessModes", mode, _MODES)
    capacity = spec.get("capacity") or {}
    if not capacity:
        problems.required("spec.capacity")
    elif set(capacity) != {"storage"}:
        problems.unsupported("spec.capacity", list(capacity), ("storage",))
    elif quantity.parse(capacity["storage"]) <= 0:
        problems.invalid("spec.capacity[storage]", capacity["storage"], "must be greater than zero")
    sources = sorted(spec.keys() - _NOT_SOURCES)
    if not sources:
        problems.required("spec", "must specify a volume type")
    for source in sources[1:]:
        problems.forbidden(f"spec.{source}", "may not specify more than 1 volume type")
    path = (spec.get("hostPath") or {}).get("path")
    if path is not None and ".." in path.split("/"):
        problems.invalid("spec.hostPath.path", path, "must not contain '..'")
    if "local" in spec and not (spec.get("nodeAffinity") or {}).get("required"):
        problems.required("spec.nodeAffinity", "Local volume requires node affinity")


def storage_class(document: _Object, problems: Problems) -> None:
    """Who makes the volumes, in a name of its own domain."""
    provisioner = document.get("provisioner", "")
    if not provisioner:
        problems.required("provisioner")
    else:
        problems.check("provisioner", provisioner, names.qualified_name(provisioner.lower()))
    for key in document.get("parameters") or {}:
        if not key:
            problems.invalid("parameters", key, "field can not be empty.")
