"""Quality of service: the class of a pod and what the kernel is told about its processes.

Stands apart because status, cgroups and the OCI document need the same answer. Source: "Pod Quality of Service
Classes" and "Node-pressure eviction" in the Kubernetes documentation. Leaves out cgroup files (`runtime.cgroup`).
"""

from pilotage.agent.core.pod_spec import containers_in_order, is_sidecar
from pilotage.api import quantity
from pilotage.api.core_v1 import Container, Pod

_COUNTED = ("cpu", "memory")
_CRITICAL_PRIORITY = 2_000_000_000  # system-cluster-critical and above


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort."""
    guaranteed, any_set = True, False
    for container in containers_in_order(pod):
        for name in _COUNTED:
            limit = quantity.parse(container.resources.limits.get(name, "0"))
            request = quantity.parse(container.resources.requests.get(name, str(limit)))
            any_set = any_set or limit > 0 or request > 0
            guaranteed = guaranteed and limit > 0 and request == limit
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def is_critical(pod: Pod) -> bool:
    """The cluster does not work without it."""
    return pod.spec.priority >= _CRITICAL_PRIORITY


def amount(resource: str, text: str) -> int:
    """A quantity as it is counted: thousandths for cpu, whole ones for everything else."""
    return quantity.milli(text) if resource == "cpu" else quantity.whole(text)


def pod_requests(pod: Pod) -> dict[str, int]:
    """What the pod reserves: its containers with all sidecars, or the greatest moment of its beginning (KEP-753).

    Requests of the pod itself replace those of its containers (KEP-2837); overhead comes on top.
    """
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in pod.spec.init_containers:
        moment = _sum(sidecars, _requests(container))
        if is_sidecar(pod, container):
            sidecars = moment
        peak = _greatest(peak, moment)
    total = _greatest(_sum(sidecars, *(_requests(one) for one in pod.spec.containers)), peak)
    total |= {name: amount(name, text) for name, text in pod.spec.resources.requests.items()}
    return _sum(total, {name: amount(name, text) for name, text in pod.spec.overhead.items()})


def _requests(container: Container) -> dict[str, int]:
    stated = container.resources.limits | container.resources.requests  # a limit alone is also the request
    return {name: amount(name, text) for name, text in stated.items()}


def _sum(*parts: dict[str, int]) -> dict[str, int]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def _greatest(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one | other}


def oom_score_adjust(pod: Pod, container: Container, memory_bytes: int) -> int:
    """/proc/PID/oom_score_adj of a container on a node with `memory_bytes`: less to lose, killed first."""
    if is_critical(pod):
        return -997
    match qos_class(pod):
        case "Guaranteed":
            return -997
        case "BestEffort":
            return 1000
    request = quantity.whole(container.resources.requests.get("memory", "0"))
    if is_sidecar(pod, container):
        # KEP-753: a sidecar is not killed before the main containers it serves.
        mains = [quantity.whole(one.resources.requests.get("memory", "0")) for one in pod.spec.containers]
        request = max(request, min(mains, default=0))
    adjust = 1000 - (1000 * request) // memory_bytes
    return min(max(adjust, 3), 999)


def cpu_shares(milli_cpu: int) -> int:
    """cgroup v1 cpu.shares; 2 is the kernel's least."""
    return max(milli_cpu * 1024 // 1000, 2)


def cpu_quota(milli_cpu: int, period_us: int = 100_000) -> int:
    """Microseconds per period; 1 ms is the kernel's least."""
    return max(milli_cpu * period_us // 1000, 1000)
