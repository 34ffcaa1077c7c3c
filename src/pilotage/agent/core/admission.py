"""Whether this node can take a pod that somebody bound to it.

Stands apart because the scheduler's view may be late, and whoever sets nodeName has not asked it at all. An ordered
tuple of small checks; the first that objects names the reason, which becomes the pod's. Called by the agent once for
each new pod, never again for one that was taken. Source: "Node-pressure eviction", "Using sysctls" and "Assigning Pods
to Nodes" in the Kubernetes documentation. Leaves out making room by preemption.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from pilotage.agent.core import app_armor, host_ports, qos
from pilotage.api import placement
from pilotage.api.core_v1 import Pod, Taint

# What a pod may set without changing or endangering others (safe sysctls).
SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What the checks know of the node."""

    name: str
    labels: Mapping[str, str]
    taints: Collection[Taint]
    allocatable: Mapping[str, str]
    pods: Collection[Pod]  # those it has taken and that are not over
    pressure: Collection[str] = ()  # its conditions of `eviction` that hold
    app_armor: bool = False  # its kernel enforces AppArmor profiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why not; the words of status.reason and status.message."""

    reason: str
    message: str


def admit(pod: Pod, node: NodeView) -> Rejection | None:
    """None when the node takes the pod."""
    for check in CHECKS:
        rejection = check(pod, node)
        if rejection is not None:
            return rejection
    return None


def _pressure(pod: Pod, node: NodeView) -> Rejection | None:
    """Under memory pressure only what has asked for memory, or says that it can bear it, may come; else nobody may."""
    if not node.pressure or qos.is_critical(pod):
        return None
    if set(node.pressure) == {"MemoryPressure"}:
        taint = Taint(key=placement.MEMORY_PRESSURE_TAINT, effect="NoSchedule")
        if qos.qos_class(pod) != "BestEffort" or placement.tolerates(pod.spec.tolerations, taint):
            return None
    held = " ".join(sorted(node.pressure))
    return Rejection(reason="Evicted", message=f"Pod was rejected: The node had condition: [{held}]. ")


def _app_armor(pod: Pod, node: NodeView) -> Rejection | None:
    if node.app_armor or not app_armor.is_asked_for(pod):
        return None
    return Rejection(reason="AppArmor", message=f"Pod was rejected: {app_armor.NOT_THERE}")


def _sysctls(pod: Pod, node: NodeView) -> Rejection | None:
    for sysctl in pod.spec.security_context.sysctls:
        name = sysctl.name.replace("/", ".")
        if name not in SAFE_SYSCTLS:
            message = f'Pod was rejected: forbidden sysctl: "{name}" not allowlisted'
            return Rejection(reason="SysctlForbidden", message=message)
        own = pod.spec.host_ipc if name.startswith("kernel.") else pod.spec.host_network
        if own:
            kind = "host IPC" if name.startswith("kernel.") else "host net"
            message = f'Pod was rejected: forbidden sysctl: "{name}" not allowed with {kind} enabled'
            return Rejection(reason="SysctlForbidden", message=message)
    return None


def _affinity(pod: Pod, node: NodeView) -> Rejection | None:
    if placement.node_matches(pod.spec, node.name, node.labels):
        return None
    return _predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")


def _taints(pod: Pod, node: NodeView) -> Rejection | None:
    """Only NoExecute: a taint against scheduling says nothing about what was scheduled by hand."""
    for taint in node.taints:
        if taint.effect == "NoExecute" and not placement.tolerates(pod.spec.tolerations, taint):
            return _predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")
    return None


def _ports(pod: Pod, node: NodeView) -> Rejection | None:
    taken = [claim for other in node.pods for claim in host_ports.claims(other)]
    if any(host_ports.conflicts(claim, other) for claim in host_ports.claims(pod) for other in taken):
        return _predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    return None


def _resources(pod: Pod, node: NodeView) -> Rejection | None:
    """Everything that is asked for, `pods` first, against what the node has and has promised."""
    wanted = {"pods": 1} | qos.pod_requests(pod)
    used: dict[str, int] = {"pods": len(node.pods)}
    for other in node.pods:
        for name, amount in qos.pod_requests(other).items():
            used[name] = used.get(name, 0) + amount
    for name, amount in wanted.items():
        capacity = qos.amount(name, node.allocatable.get(name, "0"))
        if amount and amount + used.get(name, 0) > capacity:
            message = (
                f"Pod was rejected: Node didn't have enough resource: {name}, requested: {amount}, "
                f"used: {used.get(name, 0)}, capacity: {capacity}"
            )
            return Rejection(reason=f"OutOf{name}", message=message)
    return None


def _predicate(name: str, message: str) -> Rejection:
    return Rejection(reason=name, message=f"Pod was rejected: Predicate {name} failed: {message}")


CHECKS: tuple[Callable[[Pod, NodeView], Rejection | None], ...] = (
    _pressure, _sysctls, _app_armor, _affinity, _taints, _ports, _resources,
)  # fmt: skip
