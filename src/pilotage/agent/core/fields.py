"""The downward API: fields of the pod and resources of its containers, as text.

Stands apart because variables and volumes read the same fields. Source: "Downward API" in the Kubernetes
documentation. `NodeFacts` holds what the pod object does not know yet while its containers start.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING

from pilotage.agent.core.pod_spec import container_named
from pilotage.api import quantity
from pilotage.api.core_v1 import ObjectFieldSelector, Pod, ResourceFieldSelector
from pilotage.kit.errors import PilotageError

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class FieldError(PilotageError):
    """A reference that cannot be resolved; shown as CreateContainerConfigError or FailedMount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a pod may ask about the node it runs on."""

    name: str
    ip: str
    allocatable: Mapping[str, str] = field(default_factory=dict)
    further_ips: tuple[str, ...] = ()  # of another family


def resolve(pod: Pod, selector: ObjectFieldSelector, *, node: NodeFacts, pod_ips: tuple[str, ...]) -> str:
    """The value of one field; raises `FieldError` for a path that is not supported."""
    path = selector.field_path
    if match := _SUBSCRIPT.fullmatch(path):
        mapping = pod.metadata.labels if match[1] == "labels" else pod.metadata.annotations
        return mapping.get(match[2], "")
    match path:
        case "metadata.name":
            return pod.metadata.name
        case "metadata.namespace":
            return pod.metadata.namespace
        case "metadata.uid":
            return pod.metadata.uid
        case "metadata.labels":
            return _mapping(pod.metadata.labels)
        case "metadata.annotations":
            return _mapping(pod.metadata.annotations)
        case "spec.nodeName":
            return node.name
        case "spec.serviceAccountName":
            return pod.spec.service_account_name
        case "status.hostIP":
            return node.ip
        case "status.hostIPs":
            return ",".join((node.ip, *node.further_ips))
        case "status.podIP":
            return pod_ips[0] if pod_ips else ""
        case "status.podIPs":
            return ",".join(pod_ips)
    raise FieldError(f"unsupported fieldPath: {path}")


def resolve_resource(pod: Pod, selector: ResourceFieldSelector, *, container: str, node: NodeFacts) -> str:
    """`limits.cpu` and its like, divided by the divisor and rounded up; a missing limit is what the node allows."""
    kind, _, name = selector.resource.partition(".")
    if kind not in ("limits", "requests") or not name:
        raise FieldError(f"unsupported container resource : {selector.resource}")
    try:
        resources = container_named(pod, selector.container_name or container).resources
    except KeyError:
        raise FieldError(f"container {selector.container_name} not found") from None
    text = (resources.limits if kind == "limits" else resources.requests).get(name)
    if text is None and kind == "requests":
        text = resources.limits.get(name, "0")
    value = quantity.parse(text if text is not None else node.allocatable.get(name, "0"))
    divisor = quantity.parse(selector.divisor or "1")
    if divisor <= 0:
        divisor = quantity.parse("1")
    return str(int((value / divisor).to_integral_value(ROUND_CEILING)))


def _mapping(values: Mapping[str, str]) -> str:
    """`key="value"` lines, sorted, the value quoted as Go's %q does for plain text."""
    return "\n".join(f"{key}={json.dumps(values[key], ensure_ascii=False)}" for key in sorted(values))
