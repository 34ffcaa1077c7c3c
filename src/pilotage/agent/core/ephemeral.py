"""Limits on local storage that a pod sets itself: sizeLimit of an emptyDir, ephemeral-storage of containers and pods.

Stands apart from `eviction` because these hold however much the node has left. Source: "Local ephemeral storage" in the
Kubernetes documentation; the words are the kubelet's. Fed by the worker's measurements.
"""

from collections.abc import Mapping

from pilotage.agent.core import qos
from pilotage.api import quantity
from pilotage.api.core_v1 import Pod

RESOURCE = "ephemeral-storage"


def is_limited(pod: Pod) -> bool:
    """Whether anything is to be measured at all."""
    sized = any(one.empty_dir is not None and one.empty_dir.size_limit for one in pod.spec.volumes)
    return sized or RESOURCE in pod.spec.resources.limits or bool(_limits(pod))


def exceeded(pod: Pod, volumes: Mapping[str, int], containers: Mapping[str, int]) -> str:
    """What is wrong with the first limit that is exceeded; empty if none is.

    `volumes`: bytes of each emptyDir on disk; `containers`: bytes of each one's writable layer and logs.
    """
    for volume in pod.spec.volumes:
        source = volume.empty_dir
        if source is None or not source.size_limit or source.medium == "Memory":
            continue  # a tmpfs has its size from the kernel
        if volumes.get(volume.name, 0) > quantity.whole(source.size_limit):
            return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{source.size_limit}". '
    limits = _limits(pod)
    whole = qos.pod_limits(pod).get(RESOURCE, 0)
    if whole and sum(volumes.values()) + sum(containers.values()) > whole:
        shown = quantity.render(whole, binary=True)
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {shown}. "
    for name, limit in limits.items():
        if containers.get(name, 0) > quantity.whole(limit):
            return f'Container {name} exceeded its local ephemeral storage limit "{limit}". '
    return ""


def _limits(pod: Pod) -> dict[str, str]:
    """By container."""
    return {one.name: one.resources.limits[RESOURCE] for one in pod.spec.containers if RESOURCE in one.resources.limits}
