"""When a pod must leave its node. Pure; fed by `reconciler.py`."""

from datetime import datetime, timedelta

from pilotage.api import timestamp
from pilotage.api.core_v1 import Node, Pod
from pilotage.api.placement import covers


def evicts_in_s(pod: Pod, node: Node, now: datetime) -> float | None:
    """Seconds until the pod must go, 0 for now; None if it may stay.

    Counted from the taint's own time, so that a restart of this process does not grant the time again.
    """
    waits = []
    for taint in node.spec.taints:
        if taint.effect != "NoExecute":
            continue
        tolerations = [item for item in pod.spec.tolerations if covers(item, taint)]
        if not tolerations:
            return 0.0
        limits = [item.toleration_seconds for item in tolerations if item.toleration_seconds is not None]
        if limits:
            since = timestamp.parse(taint.time_added) if taint.time_added else now
            waits.append(max((since + timedelta(seconds=max(min(limits), 0)) - now).total_seconds(), 0.0))
    return min(waits, default=None)
