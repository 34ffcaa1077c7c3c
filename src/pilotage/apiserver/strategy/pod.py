"""Pods: the status they start with, and their quality of service.

Called by `prepare`; `quality` also by whoever wants to know.

Specification: https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
"""

from __future__ import annotations

from typing import Any

from pilotage.api import quantity

_Object = dict[str, Any]

_COUNTED = ("cpu", "memory")


def create(pod: _Object) -> None:
    """Every pod starts pending; one with scheduling gates says so from the start (KEP-3521)."""
    spec = pod.get("spec") or {}
    pod["status"] = {"phase": "Pending", "qosClass": quality(spec)}
    if spec.get("schedulingGates"):
        gated = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }
        pod["status"]["conditions"] = [gated]


def update(old: _Object, new: _Object) -> None:
    """The class a pod was admitted with stays."""
    if "qosClass" not in new.get("status", {}):
        new["status"] = {**new.get("status", {}), "qosClass": quality(old.get("spec") or {})}


def quality(spec: _Object) -> str:
    """Guaranteed when every container's limits are its requests, BestEffort when none asks for anything.

    What the pod asks for as a whole counts instead of what its containers do (KEP-2837).
    """
    guaranteed, best_effort = True, True
    whole = spec.get("resources") or {}
    for_itself = any(name in (whole.get(kind) or {}) for name in _COUNTED for kind in ("requests", "limits"))
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    for container in [spec] if for_itself else containers:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in _COUNTED:
            limit, request = limits.get(name), requests.get(name, limits.get(name))
            if request is not None and quantity.parse(request) > 0:
                best_effort = False
            if limit is None or request is None or quantity.parse(limit) != quantity.parse(request):
                guaranteed = False
    if best_effort:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def with_resources(old: _Object, new: _Object) -> _Object:
    """The stored spec with the resources of the new one, the containers' and the pod's: what `resize` may change."""
    spec = {key: value for key, value in old.items() if key != "resources"}
    if "resources" in new:
        spec["resources"] = new["resources"]
    for field in ("containers", "initContainers"):
        wanted = {item.get("name"): item for item in new.get(field) or ()}
        if field in old:
            spec[field] = [
                {**item, **{k: wanted[item["name"]][k] for k in _RESIZED if k in wanted[item["name"]]}}
                if item["name"] in wanted
                else item
                for item in old[field]
            ]
    return spec


_RESIZED = ("resources", "resizePolicy")
