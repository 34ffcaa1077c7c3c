"""Quality of service: the class of a pod and what the kernel is told about its processes.

Stands apart because status, cgroups and the OCI document need the same answer. Source: "Pod Quality of Service
Classes" and "Node-pressure eviction" in the Kubernetes documentation; KEP-2837 for resources of a whole pod. Leaves
out control groups (`groups`).
"""

from collections.abc import Callable, Mapping

from pilotage.agent.core.pod_spec import containers_in_order, is_sidecar
from pilotage.api import quantity
from pilotage.api.core_v1 import Container, Pod, ResourceRequirements

_COUNTED = ("cpu", "memory")
_OF_THE_NODE = ("kubernetes.io/config.mirror", "kubernetes.io/config.source")  # of a static pod and what shows it
CRITICAL_PRIORITY = 2_000_000_000  # system-cluster-critical and above


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort. What the pod states as a whole counts instead of its containers."""
    whole = pod.spec.resources
    stated = [whole] if _counted(whole) else [one.resources for one in containers_in_order(pod)]
    guaranteed, any_set = True, False
    for resources in stated:
        for name in _COUNTED:
            limit = quantity.parse(resources.limits.get(name, "0"))
            request = quantity.parse(resources.requests.get(name, str(limit)))
            any_set = any_set or limit > 0 or request > 0
            guaranteed = guaranteed and limit > 0 and request == limit
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _counted(resources: ResourceRequirements) -> bool:
    return any(name in (*resources.requests, *resources.limits) for name in _COUNTED)


def is_critical(pod: Pod) -> bool:
    """The cluster, or this node, does not work without it: never evicted, always admitted if there is room."""
    return pod.spec.priority >= CRITICAL_PRIORITY or any(name in pod.metadata.annotations for name in _OF_THE_NODE)


def amount(resource: str, text: str) -> int:
    """A quantity as it is counted: thousandths for cpu, whole ones for everything else."""
    return quantity.milli(text) if resource == "cpu" else quantity.whole(text)


def pod_requests(pod: Pod) -> dict[str, int]:
    """What the pod reserves: its containers with all sidecars, or the greatest moment of its beginning (KEP-753).

    Requests of the pod itself replace those of its containers (KEP-2837); overhead comes on top.
    """
    total = _greatest_moment(pod, _requests) | _amounts(pod.spec.resources.requests)
    return _sum(total, _amounts(pod.spec.overhead))


def pod_limits(pod: Pod) -> dict[str, int]:
    """What the pod as a whole may have; a resource that some container may use without bound is absent."""
    whole = _amounts(pod.spec.resources.limits)
    found = _greatest_moment(pod, lambda container: _amounts(container.resources.limits))
    for container in containers_in_order(pod):
        bounded = _amounts(container.resources.limits)
        found = {name: value for name, value in found.items() if bounded.get(name)}
    overhead = _amounts(pod.spec.overhead)
    return {name: value + overhead.get(name, 0) for name, value in (found | whole).items()}


def _greatest_moment(pod: Pod, of: Callable[[Container], dict[str, int]]) -> dict[str, int]:
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in pod.spec.init_containers:
        moment = _sum(sidecars, of(container))
        if is_sidecar(pod, container):
            sidecars = moment
        peak = _greatest(peak, moment)
    return _greatest(_sum(sidecars, *(of(one) for one in pod.spec.containers)), peak)


def _requests(container: Container) -> dict[str, int]:
    return _amounts(container.resources.limits | container.resources.requests)  # a limit alone is also the request


def _amounts(stated: Mapping[str, str]) -> dict[str, int]:
    return {name: amount(name, text) for name, text in stated.items()}


def _sum(*parts: dict[str, int]) -> dict[str, int]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def _greatest(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one | other}


def oom_score_adjust(pod: Pod, container: Container, memory_bytes: int) -> int:
    """/proc/PID/oom_score_adj of a container on a node with `memory_bytes`: less to lose, killed first."""
    if is_critical(pod) and pod.spec.priority_class_name == "system-node-critical":
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
    request += _shared_by_containers(pod)
    adjust = 1000 - (1000 * request) // memory_bytes
    return min(max(adjust, 3), 999)


def _shared_by_containers(pod: Pod) -> int:
    """Bytes a container: what the pod asks for as a whole beyond what its containers do, in equal parts (KEP-2837)."""
    if "memory" not in pod.spec.resources.requests:
        return 0
    asked = sum(quantity.whole(one.resources.requests.get("memory", "0")) for one in pod.spec.containers)
    rest = quantity.whole(pod.spec.resources.requests["memory"]) - asked
    return max(rest, 0) // max(len(pod.spec.containers), 1)


def cpu_shares(milli_cpu: int) -> int:
    """cgroup v1 cpu.shares; 2 is the kernel's least."""
    return max(milli_cpu * 1024 // 1000, 2)


def cpu_quota(milli_cpu: int, period_us: int = 100_000) -> int:
    """Microseconds per period; 1 ms is the kernel's least."""
    return max(milli_cpu * period_us // 1000, 1000)
