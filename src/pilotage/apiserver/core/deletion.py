"""What a delete request does to an object: vanish now, wait out a grace period, or wait for finalizers.

Stands apart as the one place that knows the rules of graceful deletion. Pure: the registry asks, then writes or
removes.
Source: Kubernetes' BeforeDelete, "Finalizers" and "Use Cascading Deletion" in its documentation.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pilotage.api.catalogue import Resource
from pilotage.api.status import conflict
from pilotage.api.timestamp import parse, render
from pilotage.apiserver.core.options import DeleteOptions
from pilotage.apiserver.core.record import Document

DEFAULT_POD_GRACE_S = 30
_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"
# A definition waits until its objects are gone; like kube-apiserver, the first request to delete it says so.
_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


def check_preconditions(resource: Resource, name: str, document: Document, options: DeleteOptions) -> None:
    """Raises ApiError Conflict unless the object is the one the client means."""
    metadata = document["metadata"]
    for what, wanted, actual in (
        ("UID", options.uid, metadata.get("uid", "")),
        ("ResourceVersion", options.resource_version, metadata.get("resourceVersion", "")),
    ):
        if wanted and wanted != actual:
            raise conflict(
                resource.plural,
                name,
                resource.group,
                f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}",
            )


def mark_deleted(resource: Resource, document: Document, options: DeleteOptions, now: datetime) -> bool:
    """Change `document` as the deletion demands; return True if it may vanish at once.

    A second deletion may only shorten the grace period.
    """
    metadata = document["metadata"]
    _set_propagation(metadata, options.propagation)
    grace = _grace_s(resource, document, options)
    if "deletionTimestamp" not in metadata:
        if resource.group_resource == "customresourcedefinitions.apiextensions.k8s.io":
            metadata["finalizers"] = [*dict.fromkeys([*(metadata.get("finalizers") or ()), _CLEANUP])]
        if grace or finalizing(resource, document):
            metadata["deletionTimestamp"] = render(now + timedelta(seconds=grace))
            metadata["deletionGracePeriodSeconds"] = grace
            if "generation" in metadata:
                metadata["generation"] += 1
            if resource.group_resource == "namespaces":
                document.setdefault("status", {})["phase"] = "Terminating"
    else:
        before = metadata.get("deletionGracePeriodSeconds") or 0
        # Only an explicit, shorter period changes anything: a plain second delete does not restart the clock.
        if options.grace_period_s is not None and grace < before:
            started = parse(metadata["deletionTimestamp"]) - timedelta(seconds=before)
            metadata["deletionTimestamp"] = render(max(started + timedelta(seconds=grace), now))
            metadata["deletionGracePeriodSeconds"] = grace
        else:
            grace = before
    return grace == 0 and not finalizing(resource, document)


def finalizing(resource: Resource, document: Document) -> bool:
    """Whether somebody still has to finish before the object may go."""
    if document["metadata"].get("finalizers"):
        return True
    return resource.group_resource == "namespaces" and bool((document.get("spec") or {}).get("finalizers"))


def finished(resource: Resource, document: Document) -> bool:
    """Whether an update that left this behind completes a deletion."""
    metadata = document["metadata"]
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("deletionGracePeriodSeconds")
        and not finalizing(resource, document)
    )


def _grace_s(resource: Resource, document: Document, options: DeleteOptions) -> int:
    if resource.group_resource != "pods":
        return 0  # only pods are deleted gracefully
    spec, status = document.get("spec") or {}, document.get("status") or {}
    # Nobody runs the pod: there is no one to wait for.
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    if options.grace_period_s is not None:
        return options.grace_period_s
    grace = spec.get("terminationGracePeriodSeconds")
    return DEFAULT_POD_GRACE_S if grace is None else max(int(grace), 0)


def _set_propagation(metadata: Document, propagation: str) -> None:
    if not propagation:
        return
    finalizers = [item for item in metadata.get("finalizers") or () if item not in (_FOREGROUND, _ORPHAN)]
    if propagation == "Foreground":
        finalizers.append(_FOREGROUND)
    elif propagation == "Orphan":
        finalizers.append(_ORPHAN)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)


def success(resource: Resource, document: Document) -> Document:
    """The Status that answers a delete after which nothing is left."""
    metadata = document["metadata"]
    details: Document = {"name": metadata["name"], "kind": resource.plural, "uid": metadata.get("uid", "")}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
