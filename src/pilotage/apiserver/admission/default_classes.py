"""Ingresses and claims that name no class get the default one, if there is one.

Specification: https://kubernetes.io/docs/concepts/services-networking/ingress/#default-ingress-class
"""

from __future__ import annotations

from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.documents import Documents

_INGRESS_ANNOTATION = "kubernetes.io/ingress.class"
_INGRESS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"
_STORAGE_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def default_classes(operation: Operation, documents: Documents) -> None:
    """Complete a new Ingress or PersistentVolumeClaim."""
    if operation.verb != "create" or operation.subresource:
        return
    document = operation.document
    assert document is not None
    if operation.kind == ("networking.k8s.io", "Ingress"):
        annotated = _INGRESS_ANNOTATION in (document["metadata"].get("annotations") or {})
        spec = document.setdefault("spec", {})
        if spec.get("ingressClassName") is None and not annotated:
            chosen = _default(documents, "networking.k8s.io", "ingressclasses", _INGRESS_DEFAULT)
            if chosen is not None:
                spec["ingressClassName"] = chosen
    elif operation.kind == ("", "PersistentVolumeClaim"):
        spec = document.setdefault("spec", {})
        if spec.get("storageClassName") is None:
            chosen = _default(documents, "storage.k8s.io", "storageclasses", _STORAGE_DEFAULT)
            if chosen is not None:
                spec["storageClassName"] = chosen


def _default(documents: Documents, group: str, plural: str, annotation: str) -> str | None:
    """Of several defaults the newest counts, then the first by name."""

    def marked(item: Document) -> bool:
        return bool((item["metadata"].get("annotations") or {}).get(annotation) == "true")

    defaults = sorted(
        (item["metadata"] for item in documents.list(group, plural) if marked(item)), key=lambda item: item["name"]
    )
    if not defaults:
        return None
    newest: str = max(defaults, key=lambda item: item.get("creationTimestamp", ""))["name"]
    return newest
