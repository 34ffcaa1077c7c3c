"""What an object counts for under a ResourceQuota, and which pods a quota looks at.

Stands apart because admission asks it before a write and the quota's status after one, and both must mean the same.
Pure: documents in, exact amounts by the names quotas use out. Called by the API server's ledger of usage.

Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/ and the evaluators of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pilotage.api import quantity

_Object = Mapping[str, Any]
Usage = dict[str, Decimal]

_ONE = Decimal(1)
_FINISHED = ("Succeeded", "Failed")
_COUNTED = frozenset(
    {"pods", "services", "configmaps", "secrets", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas"}
)
# Asked of every container once a quota limits them; everything else may be left out.
CONTAINER_REQUIRED = frozenset({"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"})
# Resources a pod's request is also known by without a prefix.
_PLAIN = frozenset({"cpu", "memory", "ephemeral-storage"})
_RESIZABLE = frozenset({"cpu", "memory"})
_COMPUTE = frozenset({"pods", "cpu", "memory", "ephemeral-storage"})

SCOPES = ("BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating",
          "VolumeAttributesClass")  # fmt: skip


def usage(group: str, plural: str, document: _Object) -> Usage:
    """What one object counts for. Finished pods count only as objects (`count/pods`)."""
    counted: Usage = {f"count/{plural}.{group}" if group else f"count/{plural}": _ONE}
    if group:
        return counted
    if plural == "pods":
        if not _finished(document):
            counted["pods"] = _ONE
            counted |= _pod_usage(document)
        return counted
    if plural in _COUNTED:
        counted[plural] = _ONE
    if plural == "services":
        counted |= _service_usage(document.get("spec") or {})
    elif plural == "persistentvolumeclaims":
        counted |= _claim_usage(document)
    return counted


def _finished(pod: _Object) -> bool:
    return (pod.get("status") or {}).get("phase") in _FINISHED


def _service_usage(spec: _Object) -> Usage:
    balanced = spec.get("type") == "LoadBalancer"
    takes = spec.get("type") == "NodePort" or (balanced and spec.get("allocateLoadBalancerNodePorts", True))
    ports = len(spec.get("ports") or ()) if takes else 0
    return {"services.loadbalancers": Decimal(balanced), "services.nodeports": Decimal(ports)}


def _claim_usage(claim: _Object) -> Usage:
    spec = claim.get("spec") or {}
    asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    amount = quantity.parse(asked) if asked is not None else Decimal(0)
    given = ((claim.get("status") or {}).get("allocatedResources") or {}).get("storage")
    if given is not None:
        amount = max(amount, quantity.parse(given))  # A claim that was shrunk again may still hold what it had.
    counted: Usage = {"requests.storage": amount}
    if name := spec.get("storageClassName"):
        suffix = f"{name}.storageclass.storage.k8s.io"
        counted |= {f"{suffix}/requests.storage": amount, f"{suffix}/persistentvolumeclaims": _ONE}
    return counted


def _pod_usage(pod: _Object) -> Usage:
    counted: Usage = {}
    for kind in ("requests", "limits"):
        for name, total in _held(pod, kind).items():
            if kind == "requests" and (name in _PLAIN or name.startswith("hugepages-")):
                counted[name] = total
            if kind == "requests" or name in _PLAIN:
                counted[f"{kind}.{name}"] = total
    return counted


def _held(pod: _Object, kind: str) -> Usage:
    """The most of what a pod asks for, was granted and is still held to while it is resized (KEP-1287, KEP-5419).

    What its node can never give it does not count.
    """
    status = pod.get("status") or {}
    wanted = pod_total(pod["spec"], kind)
    shown = [_amounts(status, kind)]
    if kind == "requests":
        shown.append(status.get("allocatedResources") or {})
    given: Usage = {}
    for amounts in shown:
        for name in _RESIZABLE & amounts.keys():
            given[name] = max(given.get(name, Decimal(0)), quantity.parse(amounts[name]))
    impossible = any(
        item.get("type") == "PodResizePending" and item.get("reason") == "Infeasible"
        for item in status.get("conditions") or ()
    )
    if impossible:
        return wanted | given
    return wanted | {name: max(amount, wanted.get(name, Decimal(0))) for name, amount in given.items()}


def pod_total(spec: _Object, kind: str) -> Usage:
    """A pod's `requests` or `limits`: containers and sidecars together, or an init container that needs more.

    A total stated for the whole pod (KEP-2837) takes the place of its containers'; overhead comes on top.
    """
    running: Usage = {}
    peak: Usage = {}
    for container in spec.get("initContainers") or ():
        amounts = {name: quantity.parse(amount) for name, amount in _amounts(container, kind).items()}
        if container.get("restartPolicy") == "Always":  # KEP-753: it runs on, so all later ones add to it
            _add(running, amounts)
            amounts = dict(running)
        else:
            amounts = {name: value + running.get(name, Decimal(0)) for name, value in amounts.items()}
        for name, value in amounts.items():
            peak[name] = max(peak.get(name, Decimal(0)), value)
    for container in spec.get("containers") or ():
        _add(running, {name: quantity.parse(amount) for name, amount in _amounts(container, kind).items()})
    total = {name: max(running.get(name, Decimal(0)), peak.get(name, Decimal(0))) for name in running | peak}
    total |= {name: quantity.parse(amount) for name, amount in _amounts(spec, kind).items()}
    for name, amount in (spec.get("overhead") or {}).items():
        if kind == "requests" or name in total:
            total[name] = total.get(name, Decimal(0)) + quantity.parse(amount)
    return total


def _add(total: Usage, amounts: Mapping[str, Decimal]) -> None:
    for name, value in amounts.items():
        total[name] = total.get(name, Decimal(0)) + value


def _amounts(owner: _Object, kind: str) -> Mapping[str, str]:
    found: Mapping[str, str] = (owner.get("resources") or {}).get(kind) or {}
    return found


# Scopes


def in_scope(quota_spec: _Object, group: str, plural: str, document: _Object) -> bool:
    """Whether a quota with these scopes counts the object at all. A quota without scopes counts everything."""
    expressions = _expressions(quota_spec)
    if not expressions:
        return True
    if group:
        return False
    if plural == "persistentvolumeclaims":
        return all(
            item.get("scopeName") == "VolumeAttributesClass" and _compares(item, _attributes_classes(document))
            for item in expressions
        )
    return plural == "pods" and all(_matches(item, document) for item in expressions)


def _expressions(quota_spec: _Object) -> list[_Object]:
    plain = [{"scopeName": name, "operator": "Exists"} for name in quota_spec.get("scopes") or ()]
    return [*plain, *((quota_spec.get("scopeSelector") or {}).get("matchExpressions") or ())]


def _matches(expression: _Object, pod: _Object) -> bool:
    spec = pod["spec"]
    match expression.get("scopeName"):
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return best_effort(spec)
        case "NotBestEffort":
            return not best_effort(spec)
        case "PriorityClass":
            return _compares(expression, (spec.get("priorityClassName") or "",))
        case "CrossNamespacePodAffinity":
            return _crosses_namespaces(spec)
    return False


def _compares(expression: _Object, present: Iterable[str]) -> bool:
    values = {value for value in present if value}
    wanted = set(expression.get("values") or ())
    match expression.get("operator"):
        case "In":
            return bool(values & wanted)
        case "NotIn":
            return not values & wanted
        case "Exists":
            return bool(values)
        case "DoesNotExist":
            return not values
    return False


def _attributes_classes(claim: _Object) -> tuple[str, ...]:
    spec, status = claim.get("spec") or {}, claim.get("status") or {}
    target = (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName")
    return (
        spec.get("volumeAttributesClassName") or "",
        status.get("currentVolumeAttributesClassName") or "",
        target or "",
    )


def best_effort(spec: _Object) -> bool:
    """Whether a pod asks for no processor time and no memory."""
    owners = (spec, *(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
    return not any(
        quantity.parse(amount) > 0
        for owner in owners
        for kind in ("requests", "limits")
        for name, amount in _amounts(owner, kind).items()
        if name in ("cpu", "memory")
    )


def _crosses_namespaces(spec: _Object) -> bool:
    affinity = spec.get("affinity") or {}
    for field in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(field) or {}
        terms = list(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        preferred = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [item.get("podAffinityTerm") or {} for item in preferred]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


def missing_from_containers(hard: Iterable[str], pod: _Object) -> dict[str, list[str]]:
    """Resource → the containers that do not say how much of it they need although a quota limits it."""
    spec = pod["spec"]
    wanted = sorted(CONTAINER_REQUIRED.intersection(hard))
    found: dict[str, list[str]] = {}
    for name in wanted:
        kind, dot, resource = name.partition(".")
        if not dot:
            kind, resource = "requests", name
        if resource in _amounts(spec, kind):
            continue
        without = [
            item["name"]
            for item in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
            if resource not in _amounts(item, kind)
        ]
        if without:
            found[name] = without
    return found


def counted_by(name: str) -> tuple[str, str] | None:
    """The resource (group, plural) whose objects a quota's name counts; None for a name nothing counts."""
    if name.startswith("count/"):
        plural, _, group = name[len("count/") :].partition(".")
        return group, plural
    if name in _COUNTED or name in _COMPUTE:
        return "", name if name in _COUNTED else "pods"
    if name.startswith("services."):
        return "", "services"
    if name == "requests.storage" or ".storageclass.storage.k8s.io/" in name:
        return "", "persistentvolumeclaims"
    if name.startswith(("requests.", "limits.", "hugepages-")):
        return "", "pods"
    return None


def scope_allows(scope: str, name: str) -> bool:
    """Whether a quota with this scope may limit a resource of this name."""
    counted = counted_by(name)
    if scope == "VolumeAttributesClass":
        return counted == ("", "persistentvolumeclaims")
    if scope == "BestEffort":
        return name in ("pods", "count/pods")
    return counted == ("", "pods")
