"""ResourceQuotas: what a namespace holds, counted from its objects when something is to be added.

Counting from the cache needs no bookkeeping that could drift, and costs nothing where there is no quota. Two creates
that are on their way at the same instant do not see each other; the quota may then be exceeded by the later one.
Left out: scopes, and the quota's status, which is a controller's.

Specification: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from pilotage.api import quantity
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.documents import Documents

_FINISHED = ("Succeeded", "Failed")
_COUNTED = frozenset(
    {"pods", "services", "configmaps", "secrets", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas"}
)
Usage = dict[str, Decimal]


def resource_quota(operation: Operation, documents: Documents) -> None:
    """Raises ApiError Forbidden when a create would exceed a quota of its namespace."""
    if operation.verb != "create" or operation.subresource or not operation.namespace:
        return
    quotas = [item for item in documents.list("", "resourcequotas", operation.namespace) if _applies(item)]
    if not quotas:
        return
    document = operation.document
    assert document is not None
    group, plural = operation.resource.group, operation.resource.plural
    wanted = usage(group, plural, document)
    used: Usage | None = None
    for quota in quotas:
        hard = {name: amount for name, amount in (quota["spec"].get("hard") or {}).items() if name in wanted}
        missing = [name for name in quota["spec"].get("hard") or {} if plural == "pods" and not group
                   and _is_compute(name) and name not in wanted]  # fmt: skip
        if missing:
            raise operation.forbidden(
                f"failed quota: {quota['metadata']['name']}: must specify {','.join(sorted(missing))} for: "
                + ",".join(item["name"] for item in document["spec"].get("containers") or ())
            )
        if not hard:
            continue
        if used is None:
            used = _namespace_usage(documents, group, plural, operation.namespace)
        exceeded = sorted(
            name for name, amount in hard.items() if used.get(name, Decimal(0)) + wanted[name] > quantity.parse(amount)
        )
        if exceeded:
            raise operation.forbidden(
                f"exceeded quota: {quota['metadata']['name']}, requested: {_listed(exceeded, wanted)}, "
                f"used: {_listed(exceeded, used)}, "
                f"limited: {','.join(f'{name}={hard[name]}' for name in exceeded)}"
            )


def _listed(names: list[str], amounts: Usage) -> str:
    return ",".join(f"{name}={quantity.render(amounts.get(name, Decimal(0)))}" for name in names)


def _applies(quota: Document) -> bool:
    spec = quota.get("spec") or {}
    return not spec.get("scopes") and not spec.get("scopeSelector")


def _is_compute(name: str) -> bool:
    return name in ("cpu", "memory") or name.startswith(("requests.cpu", "requests.memory", "limits."))


def _namespace_usage(documents: Documents, group: str, plural: str, namespace: str) -> Usage:
    total: Usage = {}
    for document in documents.list(group, plural, namespace):
        for name, amount in usage(group, plural, document).items():
            total[name] = total.get(name, Decimal(0)) + amount
    return total


def usage(group: str, plural: str, document: Document) -> Usage:
    """What one object counts for, by the names quotas use."""
    if plural == "pods" and not group and (document.get("status") or {}).get("phase") in _FINISHED:
        return {}
    one = Decimal(1)
    counted: Usage = {f"count/{plural}.{group}" if group else f"count/{plural}": one}
    if group:
        return counted
    if plural in _COUNTED:
        counted[plural] = one
    if plural == "pods":
        counted |= _pod_usage(document["spec"])
    elif plural == "services":
        spec = document.get("spec") or {}
        counted["services.loadbalancers"] = Decimal(spec.get("type") == "LoadBalancer")
        takes = spec.get("type") == "NodePort" or (
            spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)
        )
        counted["services.nodeports"] = Decimal(len(spec.get("ports") or ()) if takes else 0)
    elif plural == "persistentvolumeclaims":
        requests = ((document.get("spec") or {}).get("resources") or {}).get("requests") or {}
        if "storage" in requests:
            counted["requests.storage"] = quantity.parse(requests["storage"])
    return counted


def _pod_usage(spec: Document) -> Usage:
    counted: Usage = {}
    for kind in ("requests", "limits"):
        sums: Usage = {}
        for container in spec.get("containers") or ():
            for name, amount in _amounts(container, kind).items():
                sums[name] = sums.get(name, Decimal(0)) + quantity.parse(amount)
        for container in spec.get("initContainers") or ():
            for name, amount in _amounts(container, kind).items():
                sums[name] = max(sums.get(name, Decimal(0)), quantity.parse(amount))
        for name, total in sums.items():
            counted[f"{kind}.{name}"] = total
            if kind == "requests":
                counted[name] = total
    return counted


def _amounts(container: Document, kind: str) -> Mapping[str, str]:
    found: Mapping[str, str] = (container.get("resources") or {}).get(kind) or {}
    return found
