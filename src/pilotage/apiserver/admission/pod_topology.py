"""Zone and region of its node, as labels of the pod: programs read them by the downward API.

Called for a binding, and as a plugin for pods that are created with a node already.

Specification: KEP-4742.
"""

from __future__ import annotations

from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.documents import Documents

LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


def topology_labels(node: Document | None) -> dict[str, str]:
    """What a pod on this node is labelled with."""
    labels = ((node or {}).get("metadata") or {}).get("labels") or {}
    return {label: labels[label] for label in LABELS if label in labels}


def pod_topology(operation: Operation, documents: Documents) -> None:
    """Complete a new pod that has a node."""
    if operation.verb != "create" or operation.kind != ("", "Pod") or operation.document is None:
        return
    node = (operation.document.get("spec") or {}).get("nodeName")
    added = topology_labels(documents.get("", "nodes", "", node)) if node else {}
    if added:
        metadata = operation.document["metadata"]
        metadata["labels"] = {**(metadata.get("labels") or {}), **added}
