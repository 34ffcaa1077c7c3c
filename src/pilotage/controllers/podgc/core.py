"""Whether a pod is nobody's, and which finished pods are too many. Pure; fed by `reconciler.py`."""

from collections.abc import Iterable
from typing import Any

from pilotage.api.core_v1 import Node, Pod
from pilotage.api.pods import is_terminal

QUARANTINE_S = 40.0
"""A node must be gone for this long: an agent that re-registers must find its pods."""

TERMINATED_MAX = 12_500  # kube-controller-manager's terminated-pod-gc-threshold
OUT_OF_SERVICE_TAINT = "node.kubernetes.io/out-of-service"


def forced_in_s(pod: Pod, node: Node | None, gone_s: float) -> float | None:
    """Seconds until the pod is deleted by force, 0 for now; None if it is somebody's.

    `node`: the one it is bound to, None if there is no such node, and then for `gone_s` seconds.
    """
    if not pod.spec.node_name:
        return 0.0 if pod.metadata.is_deleting else None
    if node is None:
        return max(QUARANTINE_S - gone_s, 0.0)
    tainted = any(taint.key == OUT_OF_SERVICE_TAINT for taint in node.spec.taints)
    ready = any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions)
    return 0.0 if tainted and not ready and pod.metadata.is_deleting else None


def surplus(pods: Iterable[Pod], limit: int = TERMINATED_MAX) -> tuple[Pod, ...]:
    """Finished pods beyond `limit`, oldest first."""
    ended = sorted(
        (pod for pod in pods if is_terminal(pod) and not pod.metadata.is_deleting),
        key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.key),
    )
    return tuple(ended[: max(len(ended) - limit, 0)])


def failed_status(pod: Pod, moment: str) -> dict[str, Any] | None:
    """What the pod's status must say before it is deleted from a node that is gone; None if it has ended already."""
    if is_terminal(pod):
        return None
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists",
        "lastTransitionTime": moment,
    }
    return {"phase": "Failed", "conditions": [condition]}
