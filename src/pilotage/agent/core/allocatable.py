"""What pods may ask of a node: what it has, less what is kept for others and for the moment of eviction.

Stands apart because the node's status, admission and control groups must agree. Source: "Reserve Compute Resources for
System Daemons" in the Kubernetes documentation.
"""

from collections.abc import Mapping

from pilotage.agent.core import eviction, qos

_HELD_BACK = {"memory": eviction.MEMORY, "ephemeral-storage": eviction.NODEFS}


def allocatable(
    capacity: Mapping[str, str],
    *,
    kube_reserved: Mapping[str, str],
    system_reserved: Mapping[str, str],
    eviction_hard: Mapping[str, str],
) -> dict[str, str]:
    """By resource, in the units of `capacity`; never below nothing."""
    found = {}
    for name, text in capacity.items():
        whole = qos.amount(name, text)
        kept = sum(qos.amount(name, reserved.get(name, "0")) for reserved in (kube_reserved, system_reserved))
        if name in _HELD_BACK:
            kept += eviction.whole_of(eviction_hard.get(_HELD_BACK[name], "0"), whole)
        found[name] = _shown(name, max(whole - kept, 0)) if kept else text
    return found


def for_pods(capacity: Mapping[str, str], *reserved: Mapping[str, str]) -> dict[str, int]:
    """What the group of all pods is bounded to: thresholds of eviction are left, so that eviction comes first."""
    return {
        name: max(qos.amount(name, text) - sum(qos.amount(name, one.get(name, "0")) for one in reserved), 0)
        for name, text in capacity.items()
    }


def _shown(name: str, value: int) -> str:
    match name:
        case "cpu":
            return _cpus(value)
        case "memory" | "ephemeral-storage":
            return f"{value // 1024}Ki"
    return str(value)


def _cpus(milli: int) -> str:
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"
