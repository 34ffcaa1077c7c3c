"""From a node and the seconds since its last heartbeat to conditions and taints. Pure; fed by `reconciler.py`."""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from pilotage.api import placement, timestamp
from pilotage.api.core_v1 import Node, NodeCondition, Taint
from pilotage.controllers.nodelifecycle.zones import Eviction

GRACE_S = 40.0
"""node-monitor-grace-period: four missed Lease renewals of 10 s."""

_REPORTED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")

# condition, its status → taint key
_PRESSURES = {
    ("MemoryPressure", "True"): placement.MEMORY_PRESSURE_TAINT,
    ("DiskPressure", "True"): placement.DISK_PRESSURE_TAINT,
    ("PIDPressure", "True"): placement.PID_PRESSURE_TAINT,
    ("NetworkUnavailable", "True"): placement.NETWORK_UNAVAILABLE_TAINT,
    ("Ready", "False"): placement.NOT_READY_TAINT,
    ("Ready", "Unknown"): placement.UNREACHABLE_TAINT,
}
_OURS = frozenset({*_PRESSURES.values(), placement.UNSCHEDULABLE_TAINT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Write `conditions`, then `taints`; None leaves them."""

    conditions: tuple[NodeCondition, ...] | None  # only those that change; strategic merge by type
    taints: tuple[Taint, ...] | None  # all of them
    is_ready: bool
    is_silent: bool  # nobody speaks for its pods
    check_after_s: float | None  # when silence will have lasted too long; None: it has


def is_ready(node: Node) -> bool:
    """What the node's conditions say."""
    return any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions)


def is_lost(node: Node, silent_s: float, *, grace_s: float = GRACE_S) -> bool:
    """Whether `plan` will taint the node; one that has never said how it is gets the time to do so."""
    reported = any(condition.type == "Ready" and condition.status != "True" for condition in node.status.conditions)
    return reported or silent_s >= grace_s


def is_evicting(node: Node) -> bool:
    """Whether the node already has a taint that drives its pods away because it is not ready."""
    keys = (placement.NOT_READY_TAINT, placement.UNREACHABLE_TAINT)
    return any(taint.key in keys and taint.effect == "NoExecute" for taint in node.spec.taints)


def plan(
    node: Node,
    silent_s: float,
    now: datetime,
    *,
    grace_s: float = GRACE_S,
    eviction: Eviction = Eviction.NOW,
) -> Plan:
    """`silent_s`: seconds since this process last saw a sign of life. `eviction`: matters if the node is not ready."""
    changed: tuple[NodeCondition, ...] = ()
    if silent_s >= grace_s:
        changed = _unknown(node, now)
    statuses = {condition.type: condition.status for condition in (*node.status.conditions, *changed)}
    taints = _taints(node, statuses, now, eviction)
    return Plan(
        conditions=changed or None,
        taints=taints if taints != node.spec.taints else None,
        is_ready=statuses.get("Ready") == "True",
        is_silent=silent_s >= grace_s,
        check_after_s=None if silent_s >= grace_s else grace_s - silent_s,
    )


def _unknown(node: Node, now: datetime) -> tuple[NodeCondition, ...]:
    """Every condition the agent reports turns Unknown; one it never reported says so."""
    moment = timestamp.render(now)
    present = {condition.type: condition for condition in node.status.conditions}
    changed = []
    for type in _REPORTED:
        old = present.get(type)
        if old is None:
            changed.append(
                NodeCondition(
                    type=type,
                    status="Unknown",
                    reason="NodeStatusNeverUpdated",
                    message="Kubelet never posted node status.",
                    last_heartbeat_time=node.metadata.creation_timestamp or moment,
                    last_transition_time=moment,
                )
            )
        elif old.status != "Unknown":
            changed.append(
                msgspec.structs.replace(
                    old,
                    status="Unknown",
                    reason="NodeStatusUnknown",
                    message="Kubelet stopped posting node status.",
                    last_transition_time=moment,
                )
            )
    return tuple(changed)


def _taints(node: Node, statuses: dict[str, str], now: datetime, eviction: Eviction) -> tuple[Taint, ...]:
    """The node's taints with ours as its conditions and its cordon ask; present ones keep their place and time."""
    wanted: dict[tuple[str, str], Taint] = {}
    for (type, status), key in _PRESSURES.items():
        if statuses.get(type) != status:
            continue
        wanted[key, "NoSchedule"] = Taint(key=key, effect="NoSchedule")
        if type == "Ready" and (eviction is Eviction.NOW or (eviction is Eviction.LATER and is_evicting(node))):
            wanted[key, "NoExecute"] = Taint(key=key, effect="NoExecute")
    if node.spec.unschedulable:
        key = placement.UNSCHEDULABLE_TAINT
        wanted[key, "NoSchedule"] = Taint(key=key, effect="NoSchedule")
    kept = tuple(taint for taint in node.spec.taints if taint.key not in _OURS or (taint.key, taint.effect) in wanted)
    present = {(taint.key, taint.effect) for taint in kept}
    added = tuple(
        msgspec.structs.replace(taint, time_added=timestamp.render(now))
        for identity, taint in wanted.items()
        if identity not in present
    )
    return kept + added
