"""What binding and eviction do to a pod, and which container a stream means.

Stands apart as the pure half of the pod subresources. Source: Kubernetes' pod registry; "API-initiated Eviction" and
"Disruptions" in its documentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pilotage.api.status import ApiError, StatusCause, StatusDetails, conflict
from pilotage.api.timestamp import render
from pilotage.apiserver.core.columns.column import condition
from pilotage.apiserver.core.record import Document

# A pod that was allowed to be evicted counts against the budget until the controller has seen it go.
EVICTION_RETRY_S = 10


def bound(pod: Document, binding: Document, now: datetime) -> Document:
    """The pod assigned to the binding's node. Raises ApiError when it may not be assigned."""
    name = pod["metadata"]["name"]
    target = binding.get("target") or {}
    node = target.get("name")
    if target.get("kind", "Node") != "Node" or not node:
        raise ApiError("Invalid", f'Binding "{name}" is invalid: target: must be a Node with a name')
    if pod["metadata"].get("deletionTimestamp"):
        raise conflict("pods/binding", name, why=f"pod {name} is being deleted, cannot be assigned to a host")
    spec = dict(pod.get("spec") or {})
    if spec.get("nodeName"):
        raise conflict("pods/binding", name, why=f'pod {name} is already assigned to node "{spec["nodeName"]}"')
    if spec.get("schedulingGates"):
        raise conflict("pods/binding", name, why=f"pod {name} has non-empty .spec.schedulingGates")
    spec["nodeName"] = node
    metadata = dict(pod["metadata"])
    for field in ("annotations", "labels"):
        if added := (binding.get("metadata") or {}).get(field):
            metadata[field] = {**(metadata.get(field) or {}), **added}
    status = dict(pod.get("status") or {})
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": render(now)}
    others = [item for item in status.get("conditions") or () if item.get("type") != "PodScheduled"]
    status["conditions"] = [*others, scheduled]
    status.pop("nominatedNodeName", None)  # a promise that is kept, or void (KEP-5278)
    return {**pod, "metadata": metadata, "spec": spec, "status": status}


def needs_budget(pod: Document) -> bool:
    """False for pods whose eviction disturbs nobody: not yet running, finished, or already on their way out."""
    phase = (pod.get("status") or {}).get("phase", "Pending")
    return phase == "Running" and not pod["metadata"].get("deletionTimestamp")


def take_disruption(budgets: Iterable[Document], pod: Document, now: datetime) -> Document | None:
    """The budget with one disruption fewer; None when the pod is under no budget or is not ready and may go anyway.

    Raises ApiError TooManyRequests when the budget does not allow it.
    """
    matching = list(budgets)
    if not matching:
        return None
    if len(matching) > 1:
        raise ApiError(
            "InternalError",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )
    budget = matching[0]
    name = budget["metadata"]["name"]
    status = dict(budget.get("status") or {})
    ready = condition(pod, "Ready").get("status") == "True"
    if not ready:
        healthy, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
        policy = (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy", "IfHealthyBudget")
        if policy == "AlwaysAllow" or (healthy >= desired > 0):
            return None
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        raise _refused(name, "The disruption budget is still being processed by the server.", EVICTION_RETRY_S)
    allowed = status.get("disruptionsAllowed", 0)
    if allowed <= 0:
        message = (
            f"The disruption budget {name} needs {status.get('desiredHealthy', 0)} healthy pods "
            f"and has {status.get('currentHealthy', 0)} currently"
        )
        raise _refused(name, message, 0)
    status["disruptionsAllowed"] = allowed - 1
    status["disruptedPods"] = {**(status.get("disruptedPods") or {}), pod["metadata"]["name"]: render(now)}
    return {**budget, "status": status}


def announced(pod: Document, now: datetime) -> Document:
    """The pod with the condition that says why it goes (KEP-3329); Jobs decide by it whether that is a failure."""
    status = dict(pod.get("status") or {})
    if status.get("phase") in ("Succeeded", "Failed") or pod["metadata"].get("deletionTimestamp"):
        return pod
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": render(now),
    }
    others = [item for item in status.get("conditions") or () if item.get("type") != "DisruptionTarget"]
    return {**pod, "status": {**status, "conditions": [*others, target]}}


def _refused(budget: str, cause: str, retry_after_s: int) -> ApiError:
    return ApiError(
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
        details=StatusDetails(
            name=budget,
            causes=(StatusCause(reason="DisruptionBudget", message=cause),),
            retry_after_seconds=retry_after_s,
        ),
    )


def container_of(pod: Document, wanted: str) -> str:
    """The container a log or exec request means: the named one, or the only one. Raises ApiError BadRequest."""
    spec = pod.get("spec") or {}
    name = pod["metadata"]["name"]
    regular = [item["name"] for item in spec.get("containers") or ()]
    special = [item["name"] for field in ("initContainers", "ephemeralContainers") for item in spec.get(field) or ()]
    if wanted:
        if wanted not in regular and wanted not in special:
            raise ApiError("BadRequest", f"container {wanted[:80]} is not valid for pod {name}")
        return wanted
    if len(regular) == 1 and not special:
        return str(regular[0])
    choices = f"choose one of: [{' '.join(regular)}]"
    if special:
        choices += f" or one of the init or ephemeral containers: [{' '.join(special)}]"
    raise ApiError("BadRequest", f"a container name must be specified for pod {name}, {choices}")
