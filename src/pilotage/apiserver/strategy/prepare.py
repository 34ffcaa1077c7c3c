"""The server's hand on every written document, before validation.

Called by the write pipeline: `prepare_create` after names, uid and creation time have been stamped, `prepare_update`
on every change. Documents are changed in place, except that an update through a subresource is the stored document
with a part exchanged.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.apiserver.strategy import generation, pod, service, workload

_Object = dict[str, Any]

# Kinds whose creator may also say how they are: a node registers itself with its status.
_CREATED_WITH_STATUS = frozenset({("", "Node"), ("", "PersistentVolume"), ("", "Namespace")})


def prepare_create(resource: Resource, document: _Object) -> None:
    """A document that is to be created, in place."""
    kind = (resource.group, resource.kind)
    if resource.subresource("status") is not None and kind not in _CREATED_WITH_STATUS:
        document.pop("status", None)
    if generation.counts(resource):
        document["metadata"]["generation"] = 1
    else:
        document["metadata"].pop("generation", None)
    prepare = _CREATE.get(kind)
    if prepare is not None:
        prepare(document)


def prepare_update(resource: Resource, old: _Object, new: _Object, subresource: str = "") -> _Object:
    """What an update leaves to validate; `old` stays as it is, `new` may be changed or left out."""
    kind = (resource.group, resource.kind)
    if subresource:
        exchange = _EXCHANGED.get(subresource)
        if exchange is not None:
            new = exchange(old, new)
    else:
        if resource.subresource("status") is not None or kind == ("", "Namespace"):
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        prepare = _UPDATE.get(kind)
        if prepare is not None:
            prepare(old, new)
    if generation.counts(resource):
        before = old["metadata"].get("generation", 0)
        after = before + 1 if subresource != "status" and generation.wishes_differ(resource, old, new) else before
        if after:
            new["metadata"] = {**new["metadata"], "generation": after}
    return new


# What each subresource may change


def _exchange_status(old: _Object, new: _Object) -> _Object:
    changed = {key: value for key, value in old.items() if key != "status"}
    if "status" in new:
        changed["status"] = new["status"]
    changed["metadata"] = _versioned(old, new)
    return changed


def _exchange_finalizers(old: _Object, new: _Object) -> _Object:
    spec = {key: value for key, value in (old.get("spec") or {}).items() if key != "finalizers"}
    finalizers = (new.get("spec") or {}).get("finalizers")
    if finalizers:
        spec["finalizers"] = finalizers
    return {**old, "metadata": _versioned(old, new), "spec": spec}


def _exchange_ephemeral_containers(old: _Object, new: _Object) -> _Object:
    spec = {**old["spec"], "ephemeralContainers": new.get("spec", {}).get("ephemeralContainers") or []}
    return {**old, "metadata": _versioned(old, new), "spec": spec}


def _exchange_resources(old: _Object, new: _Object) -> _Object:
    return {**old, "metadata": _versioned(old, new), "spec": pod.with_resources(old["spec"], new.get("spec", {}))}


def _exchange_approval(old: _Object, new: _Object) -> _Object:
    status = dict(old.get("status") or {})
    conditions = (new.get("status") or {}).get("conditions")
    if conditions is not None:
        status["conditions"] = conditions
    return {**old, "metadata": _versioned(old, new), "status": status}


def _versioned(old: _Object, new: _Object) -> _Object:
    """The stored metadata with the resourceVersion the client claims to have seen."""
    metadata = dict(old["metadata"])
    for field in ("resourceVersion", "managedFields"):
        if field in new["metadata"]:
            metadata[field] = new["metadata"][field]
    return metadata


_EXCHANGED: Mapping[str, Callable[[_Object, _Object], _Object]] = {
    "status": _exchange_status,
    "finalize": _exchange_finalizers,
    "ephemeralcontainers": _exchange_ephemeral_containers,
    "resize": _exchange_resources,
    "approval": _exchange_approval,
}


# Kinds


def _create_namespace(namespace: _Object) -> None:
    namespace.setdefault("spec", {})["finalizers"] = ["kubernetes"]
    namespace["status"] = {"phase": "Active"}


def _update_namespace(old: _Object, new: _Object) -> None:
    new["spec"] = old.get("spec", {})  # Finalizers change through their own subresource.


def _keep_spec(old: _Object, new: _Object) -> None:
    """What was asked for stays; only decisions and certificates come later, through subresources."""
    new["spec"] = old.get("spec", {})


def _fold_string_data(secret: _Object) -> None:
    """stringData is write-only: it overrides data and is never stored."""
    given = secret.pop("stringData", None)
    if given:
        data = dict(secret.get("data") or {})
        data |= {key: base64.b64encode(value.encode()).decode() for key, value in given.items()}
        secret["data"] = data


def _create_budget(budget: _Object) -> None:
    budget["status"] = {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}


_CREATE: Mapping[tuple[str, str], Callable[[_Object], None]] = {
    ("", "Namespace"): _create_namespace,
    ("", "Pod"): pod.create,
    ("", "Secret"): _fold_string_data,
    ("", "Service"): service.create,
    ("apps", "Deployment"): workload.create,
    ("apps", "DaemonSet"): workload.create,
    ("apps", "ReplicaSet"): workload.create_counted,
    ("apps", "StatefulSet"): workload.create_counted,
    ("", "ReplicationController"): workload.create_counted,
    ("batch", "CronJob"): workload.create,
    ("batch", "Job"): workload.create_job,
    ("networking.k8s.io", "Ingress"): service.create_ingress,
    ("policy", "PodDisruptionBudget"): _create_budget,
}

_UPDATE: Mapping[tuple[str, str], Callable[[_Object, _Object], None]] = {
    ("", "Namespace"): _update_namespace,
    ("", "Pod"): pod.update,
    ("", "Secret"): lambda old, new: _fold_string_data(new),
    ("", "Service"): service.update,
    ("certificates.k8s.io", "CertificateSigningRequest"): _keep_spec,
}
