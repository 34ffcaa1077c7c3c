"""Objects live in namespaces that exist and are not going away; the system's own namespaces stay."""

from __future__ import annotations

from pilotage.api.status import not_found
from pilotage.apiserver.admission.operation import Operation
from pilotage.apiserver.documents import Documents

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


def namespace_lifecycle(operation: Operation, documents: Documents) -> None:
    """Raises ApiError NotFound or Forbidden."""
    if operation.verb == "delete":
        if operation.kind == ("", "Namespace") and operation.name in IMMORTAL:
            raise operation.forbidden("this namespace may not be deleted")
        return
    if operation.verb != "create" or not operation.namespace or not operation.resource.namespaced:
        return
    namespace = documents.get("", "namespaces", "", operation.namespace)
    if namespace is None:
        raise not_found("namespaces", operation.namespace)
    if "deletionTimestamp" in namespace["metadata"] or (namespace.get("status") or {}).get("phase") == "Terminating":
        raise operation.forbidden(
            f"unable to create new content in namespace {operation.namespace} because it is being terminated"
        )
