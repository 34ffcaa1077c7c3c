"""When a pod must leave its node. Pure; fed by `reconciler.py`."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from pilotage.api import timestamp
from pilotage.api.core_v1 import Node, Pod
from pilotage.api.placement import covers

TaintKey = tuple[str, str]  # key, effect: what is unique on a node


def evicts_in_s(
    pod: Pod, node: Node, now: datetime, noticed: Mapping[TaintKey, datetime] = MappingProxyType({})
) -> float | None:  # fmt: skip
    """Seconds until the pod must go, 0 for now; None if it may stay.

    Counted from the taint's own time, so that a restart of this process does not grant the time again; `noticed`: when
    those that state none (kubectl's) were first seen.
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
            stated = timestamp.parse(taint.time_added) if taint.time_added else None
            since = max(stated or noticed.get((taint.key, taint.effect), now), _arrived(pod))
            waits.append(max((since + timedelta(seconds=max(min(limits), 0)) - now).total_seconds(), 0.0))
    return min(waits, default=None)


def _arrived(pod: Pod) -> datetime:
    """When the pod came to its node: no taint counts against it from before."""
    scheduled = pod.status.condition("PodScheduled")
    text = scheduled.last_transition_time if scheduled is not None and scheduled.status == "True" else ""
    text = text or pod.status.start_time or pod.metadata.creation_timestamp
    return timestamp.parse(text) if text else datetime.min.replace(tzinfo=UTC)
