"""A pod stays five minutes on a node that is not ready or cannot be reached, unless it says otherwise."""

from __future__ import annotations

from pilotage.apiserver.admission.operation import Operation
from pilotage.apiserver.documents import Documents

TOLERATION_S = 300
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def default_tolerations(operation: Operation, documents: Documents) -> None:
    """Complete a new pod."""
    if operation.verb != "create" or operation.kind != ("", "Pod") or operation.subresource:
        return
    assert operation.document is not None
    spec = operation.document["spec"]
    tolerations = list(spec.get("tolerations") or ())
    for taint in _TAINTS:
        told = any(
            item.get("key") in (taint, None, "") and item.get("effect") in ("NoExecute", None, "")
            for item in tolerations
        )
        if not told:
            tolerations.append(
                {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_S}
            )
    spec["tolerations"] = tolerations
