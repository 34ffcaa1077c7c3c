"""Rules of Pods that several components share: terminal, active, available, and from template to Pod.

Stands apart because every workload controller, the endpoint controllers, the scheduler and the agent must mean the same
by "ready" and "available". Pure; `now` is an argument. Source: Kubernetes documentation "Pod Lifecycle".
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pilotage.api import timestamp
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Pod, PodTemplateSpec
from pilotage.api.meta_v1 import Object


def is_terminal(pod: Pod) -> bool:
    """Its containers have ended for good; it holds no address and no resources."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_active(pod: Pod) -> bool:
    """It counts towards a workload's replicas."""
    return not is_terminal(pod) and not pod.metadata.is_deleting


def ready_since(pod: Pod) -> datetime | None:
    """When the pod last became ready; None while it is not."""
    condition = pod.status.condition("Ready")
    if condition is None or condition.status != "True":
        return None
    text = condition.last_transition_time or pod.metadata.creation_timestamp
    return timestamp.parse(text) if text else None


def available_in_s(pod: Pod, min_ready_seconds: int, now: datetime) -> float | None:
    """0 if the pod is available (ready for long enough), else the seconds until it will be; None while not ready."""
    if not pod.status.is_ready:
        return None
    since = ready_since(pod)
    if min_ready_seconds == 0 or since is None:
        return 0.0
    return max((since + timedelta(seconds=min_ready_seconds) - now).total_seconds(), 0.0)


def template_of(template: Mapping[str, Any]) -> PodTemplateSpec:
    """The typed view of a workload's template."""
    return convert(PodTemplateSpec, template)


def from_template(
    template: Mapping[str, Any],
    *,
    owner: Object,
    name: str = "",
    generate_name: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    finalizers: tuple[str, ...] = (),
    spec: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document of a new Pod owned by `owner`; `labels`, `annotations` and `spec` go over what the template says."""
    meta = template.get("metadata") or {}
    metadata: dict[str, Any] = {
        "namespace": owner.metadata.namespace,
        "labels": {**(meta.get("labels") or {}), **(labels or {})},
        "annotations": {**(meta.get("annotations") or {}), **(annotations or {})},
        "ownerReferences": [controller_reference(owner)],
    }
    metadata["name" if name else "generateName"] = name or generate_name
    if finalizers or meta.get("finalizers"):
        metadata["finalizers"] = [*(meta.get("finalizers") or ()), *finalizers]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**(template.get("spec") or {}), **(spec or {})},
    }


def controller_reference(owner: Object) -> dict[str, Any]:
    """The ownerReference by which `owner` manages an object, on the wire."""
    return {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
