"""The class a pod names becomes the number the scheduler compares."""

from __future__ import annotations

from collections.abc import Mapping

from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.documents import Documents

_GROUP = "scheduling.k8s.io"
# https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/
SYSTEM: Mapping[str, int] = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


def priority(operation: Operation, documents: Documents) -> None:
    """Complete a new pod; raises ApiError Forbidden for an unknown class or a number of its own."""
    if operation.verb != "create" or operation.kind != ("", "Pod") or operation.subresource:
        return
    assert operation.document is not None
    spec = operation.document["spec"]
    name = spec.get("priorityClassName", "")
    value, policy = 0, "PreemptLowerPriority"
    if name:
        found = documents.get(_GROUP, "priorityclasses", "", name)
        if found is None and name not in SYSTEM:
            raise operation.forbidden(f"no PriorityClass with name {name} was found")
        value = found.get("value", 0) if found is not None else SYSTEM[name]
        policy = (found or {}).get("preemptionPolicy", policy)
    else:
        default = _default(documents)
        if default is not None:
            spec["priorityClassName"] = default["metadata"]["name"]
            value, policy = default.get("value", 0), default.get("preemptionPolicy", policy)
    given = spec.get("priority")
    if given is not None and given != value:
        raise operation.forbidden(
            f"the integer value of priority ({given}) must not be provided in pod spec; priority admission controller "
            f"computed {value} from the given PriorityClass name"
        )
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", policy)


def _default(documents: Documents) -> Document | None:
    defaults = [item for item in documents.list(_GROUP, "priorityclasses") if item.get("globalDefault")]
    return min(defaults, key=lambda item: item.get("value", 0), default=None)
