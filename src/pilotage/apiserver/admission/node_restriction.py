"""A node touches only itself and the pods bound to it.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
"""

from __future__ import annotations

from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.admission.service_account import MIRROR
from pilotage.apiserver.documents import Documents

_RESERVED_LABELS = "node-restriction.kubernetes.io/"


def node_restriction(operation: Operation, documents: Documents) -> None:
    """Raises ApiError Forbidden; users that are no nodes pass."""
    node = operation.user.node
    if not node:
        return
    match operation.kind:
        case ("", "Node"):
            _own_node(operation, node)
        case ("", "Pod"):
            _own_pod(operation, node)
        case ("coordination.k8s.io", "Lease") if operation.namespace == "kube-node-lease" and operation.name != node:
            raise operation.forbidden(f"can only access node lease with the same name as the requesting node {node!r}")


def _own_node(operation: Operation, node: str) -> None:
    if operation.name != node:
        raise operation.forbidden(f'node "{node}" is not allowed to modify node "{operation.name}"')
    if operation.verb == "delete":
        raise operation.forbidden(f'node "{node}" cannot delete itself')
    if operation.old is None or operation.document is None:
        return
    before, after = _reserved(operation.old), _reserved(operation.document)
    if before != after:
        raise operation.forbidden(f'is not allowed to modify labels with the prefix "{_RESERVED_LABELS}"')
    taints = (operation.old.get("spec") or {}).get("taints"), (operation.document.get("spec") or {}).get("taints")
    if (taints[0] or []) != (taints[1] or []):
        raise operation.forbidden(f'node "{node}" is not allowed to modify taints')


def _reserved(document: Document) -> dict[str, str]:
    labels = document["metadata"].get("labels") or {}
    return {key: value for key, value in labels.items() if key.startswith(_RESERVED_LABELS)}


def _own_pod(operation: Operation, node: str) -> None:
    if operation.verb == "create":
        pod = operation.document
        assert pod is not None
        if MIRROR not in (pod["metadata"].get("annotations") or {}):
            raise operation.forbidden(
                f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
            )
        if (pod.get("spec") or {}).get("nodeName") != node:
            raise operation.forbidden(f'node "{node}" can only create pods with spec.nodeName set to itself')
        return
    assert operation.old is not None
    if (operation.old.get("spec") or {}).get("nodeName") != node:
        what = "delete pods" if operation.verb == "delete" else "update pod status for pods"
        raise operation.forbidden(f'node "{node}" can only {what} with spec.nodeName set to itself')
    if operation.verb == "update" and operation.subresource != "status":
        raise operation.forbidden(f'node "{node}" may only change the status of pods')
