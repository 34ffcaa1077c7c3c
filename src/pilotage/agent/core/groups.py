"""What the control groups of a node, of its classes of service and of its pods are given, as values and as files.

Stands apart because versions 1 and 2 of control groups name and count the same things differently, and both are decided
here without touching either; `runtime.cgroup` writes the files. Source: "Resource Management for Pods and Containers"
and "Node Allocatable" in the Kubernetes documentation; KEP-2254 (version 2), KEP-2570 (memory quality of service);
kernel documentation cgroup-v1/ and cgroup-v2.rst. Containers' own groups are the runtime's (`oci.resources`).

Shape: `<node>` holds the groups of Guaranteed pods, and `burstable` and `besteffort`, which hold those of the others;
a pod's group is `pod<uid>`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pilotage.agent.core import qos
from pilotage.api.core_v1 import Container, Pod

CPU_PERIOD_US = 100_000
CPU_SHARES_MIN = 2
# Of one pod: a fork bomb ends here before it reaches other pods.
POD_PIDS_MAX = 4096
# KEP-2570: from this share of the way between request and limit on, the kernel slows a container down.
MEMORY_THROTTLING = 0.9
PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """One group. None: no bound."""

    cpu_shares: int  # ≥ 2; relative to its siblings
    cpu_quota_us: int | None = None  # of each `CPU_PERIOD_US`
    memory_max: int | None = None  # bytes
    memory_min: int = 0  # bytes that the kernel does not take away (version 2 only)
    pids_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One line for one file: in which hierarchy (version 1), which file, what."""

    controller: str
    file: str
    value: str


def directory(pod: Pod) -> str:
    """The pod's group below the node's."""
    name = f"pod{pod.metadata.uid}"
    match qos.qos_class(pod):
        case "Guaranteed":
            return name
        case other:
            return f"{other.lower()}/{name}"


def of_pod(pod: Pod) -> GroupLimits:
    """Bounded by what its containers, or the pod itself, may have together."""
    requests, limits = qos.pod_requests(pod), qos.pod_limits(pod)
    cpu = limits.get("cpu", 0)
    return GroupLimits(
        cpu_shares=qos.cpu_shares(requests.get("cpu", 0)),
        cpu_quota_us=qos.cpu_quota(cpu, CPU_PERIOD_US) if cpu else None,
        memory_max=limits.get("memory") or None,
        memory_min=requests.get("memory", 0),
        pids_max=POD_PIDS_MAX,
    )


def of_classes(pods: Iterable[Pod]) -> dict[str, GroupLimits]:
    """`burstable` weighs what its pods ask for together, `besteffort` as little as there is."""
    burstable = [qos.pod_requests(pod) for pod in pods if qos.qos_class(pod) == "Burstable"]
    return {
        "burstable": GroupLimits(
            cpu_shares=qos.cpu_shares(sum(one.get("cpu", 0) for one in burstable)),
            memory_min=sum(one.get("memory", 0) for one in burstable),
        ),
        "besteffort": GroupLimits(cpu_shares=CPU_SHARES_MIN),
    }


def of_node(pods: Iterable[Pod], *, milli_cpu: int, memory_bytes: int) -> GroupLimits:
    """All pods together: what the node has, less what is reserved for others (enforceNodeAllocatable=pods)."""
    asked = sum(qos.pod_requests(pod).get("memory", 0) for pod in pods)
    return GroupLimits(
        cpu_shares=qos.cpu_shares(milli_cpu), memory_max=memory_bytes or None, memory_min=min(asked, memory_bytes)
    )


def version_1(limits: GroupLimits) -> tuple[Setting, ...]:
    """cgroup-v1/memory.rst, scheduler/sched-bwc.rst, pids.rst. There is no protection of memory."""
    return (
        Setting(controller="cpu", file="cpu.shares", value=str(limits.cpu_shares)),
        Setting(controller="cpu", file="cpu.cfs_period_us", value=str(CPU_PERIOD_US)),
        Setting(
            controller="cpu",
            file="cpu.cfs_quota_us",
            value=str(-1 if limits.cpu_quota_us is None else limits.cpu_quota_us),
        ),
        Setting(
            controller="memory",
            file="memory.limit_in_bytes",
            value=str(-1 if limits.memory_max is None else limits.memory_max),
        ),
        Setting(controller="pids", file="pids.max", value=_or_max(limits.pids_max)),
    )


def version_2(limits: GroupLimits) -> tuple[Setting, ...]:
    """cgroup-v2.rst."""
    return (
        Setting(controller="cpu", file="cpu.weight", value=str(cpu_weight(limits.cpu_shares))),
        Setting(controller="cpu", file="cpu.max", value=f"{_or_max(limits.cpu_quota_us)} {CPU_PERIOD_US}"),
        Setting(controller="memory", file="memory.min", value=str(limits.memory_min)),
        Setting(controller="memory", file="memory.max", value=_or_max(limits.memory_max)),
        Setting(controller="pids", file="pids.max", value=_or_max(limits.pids_max)),
    )


def _or_max(value: int | None) -> str:
    return "max" if value is None else str(value)


def cpu_weight(shares: int) -> int:
    """Shares of version 1 (2 … 262,144) as a weight of version 2 (1 … 10,000), so that 1,024 becomes 100.

    The conversion that runtimes agreed on in 2025; the linear one before it made 39 of 1,024 and less than other
    processes of the machine have.
    """
    bounded = min(max(shares, CPU_SHARES_MIN), 262_144)
    if bounded == CPU_SHARES_MIN:
        return 1
    if bounded == 262_144:
        return 10_000
    power = math.log2(bounded)
    return math.ceil(10 ** ((power * power + 125 * power) / 612.0 - 7.0 / 34.0))


def memory_protection(pod: Pod, container: Container, allocatable_bytes: int) -> Mapping[str, str]:
    """memory.min and memory.high of a container's group of version 2, as KEP-2570 has them; empty for none.

    A container without a limit is slowed down as if its limit were all that the node can give; of a Guaranteed pod
    none is, since it has nothing to grow into.
    """
    request = qos.amount("memory", container.resources.requests.get("memory", "0"))
    limit = qos.amount("memory", container.resources.limits.get("memory", "0")) or allocatable_bytes
    found = {"memory.min": str(request)} if request else {}
    if qos.qos_class(pod) == "Burstable" and limit > request:
        high = int(request + MEMORY_THROTTLING * (limit - request)) // PAGE_BYTES * PAGE_BYTES
        found["memory.high"] = str(high)
    return found
