"""LimitRanges: defaults for containers that ask for nothing, and bounds on what pods and claims may ask for.

Specification: https://kubernetes.io/docs/concepts/policy/limit-range/
"""

from __future__ import annotations

from collections.abc import Iterator

from pilotage.api import quantity
from pilotage.api.quotas import pod_total
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.documents import Documents

_ANNOTATION = "kubernetes.io/limit-ranger"


def limit_ranger(operation: Operation, documents: Documents) -> None:
    """Complete and judge a pod or a claim; raises ApiError Forbidden with everything that is out of bounds."""
    document = operation.document
    if document is None or operation.kind not in (("", "Pod"), ("", "PersistentVolumeClaim")):
        return
    pod = operation.kind == ("", "Pod")
    if operation.subresource not in (("", "resize") if pod else ("",)):
        return
    if pod and operation.verb == "update" and operation.subresource != "resize":
        return  # what a pod asks for changes through `resize` alone
    limits = [
        limit
        for item in documents.list("", "limitranges", operation.namespace)
        for limit in (item.get("spec") or {}).get("limits") or ()
    ]
    if not limits:
        return
    if pod and operation.verb == "create":
        _fill_pod(document, limits)
    wrong = [problem for limit in limits for problem in (_pod if pod else _claim)(document, limit)]
    if wrong:
        raise operation.forbidden(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")


def _fill_pod(pod: Document, limits: list[Document]) -> None:
    """Defaults, and an annotation that says which values they are."""
    told: list[str] = []
    for field, label in (("containers", "container"), ("initContainers", "init container")):
        for container in pod["spec"].get(field) or ():
            filled: dict[str, list[str]] = {"requests": [], "limits": []}
            for limit in limits:
                if limit.get("type") == "Container":
                    _fill(container, limit, filled)
            for kind, names in filled.items():
                if names:
                    told.append(f"{', '.join(sorted(names))} {kind[:-1]} for {label} {container['name']}")
    if told:
        annotations = {**(pod["metadata"].get("annotations") or {})}
        annotations[_ANNOTATION] = f"LimitRanger plugin set: {'; '.join(told)}"
        pod["metadata"]["annotations"] = annotations


def _fill(container: Document, limit: Document, filled: dict[str, list[str]]) -> None:
    resources = container.setdefault("resources", {})
    given = dict(resources.get("limits") or {})
    for kind, source in (("limits", "default"), ("requests", "defaultRequest")):
        for name, amount in (limit.get(source) or {}).items():
            if kind == "requests" and name in given:
                continue  # A limit without a request already became the request.
            if name not in (resources.get(kind) or {}):
                resources.setdefault(kind, {})[name] = amount
                filled[kind].append(name)


def _pod(pod: Document, limit: Document) -> Iterator[str]:
    if limit.get("type") == "Container":
        for field in ("initContainers", "containers"):
            for container in pod["spec"].get(field) or ():
                yield from _violations(container.get("resources") or {}, limit, "Container")
    elif limit.get("type") == "Pod":
        total = {
            kind: {name: quantity.render(amount) for name, amount in pod_total(pod["spec"], kind).items()}
            for kind in ("requests", "limits")
        }
        yield from _violations(total, limit, "Pod")


def _claim(claim: Document, limit: Document) -> Iterator[str]:
    if limit.get("type") != "PersistentVolumeClaim":
        return
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    for name, asked in requests.items():
        least, most = (limit.get("min") or {}).get(name), (limit.get("max") or {}).get(name)
        if least is not None and quantity.parse(asked) < quantity.parse(least):
            yield f"minimum {name} usage per PersistentVolumeClaim is {least}, but request is {asked}"
        if most is not None and quantity.parse(asked) > quantity.parse(most):
            yield f"maximum {name} usage per PersistentVolumeClaim is {most}, but request is {asked}"


def _violations(resources: Document, limit: Document, what: str) -> Iterator[str]:
    """One for each bound that is broken: what is wrong with the limit follows from the request, and the other way."""
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, bound in (limit.get("min") or {}).items():
        asked, capped = requests.get(name), limits.get(name)
        said = f"minimum {name} usage per {what} is {bound}"
        if asked is None:
            yield f"{said}.  No request is specified"
        elif quantity.parse(asked) < quantity.parse(bound):
            yield f"{said}, but request is {asked}"
        elif capped is not None and quantity.parse(capped) < quantity.parse(bound):
            yield f"{said}, but limit is {capped}"
    for name, bound in (limit.get("max") or {}).items():
        asked, capped = requests.get(name), limits.get(name)
        said = f"maximum {name} usage per {what} is {bound}"
        if capped is None:
            yield f"{said}.  No limit is specified"
        elif quantity.parse(capped) > quantity.parse(bound):
            yield f"{said}, but limit is {capped}"
        elif asked is not None and quantity.parse(asked) > quantity.parse(bound):
            yield f"{said}, but request is {asked}"
    for name, bound in (limit.get("maxLimitRequestRatio") or {}).items():
        asked, capped = requests.get(name), limits.get(name)
        said = f"{name} max limit to request ratio per {what} is {bound}"
        if asked is None or quantity.parse(asked) == 0:
            yield f"{said}, but no request is specified or request is 0"
        elif capped is None or quantity.parse(capped) == 0:
            yield f"{said}, but no limit is specified or limit is 0"
        elif quantity.parse(capped) / quantity.parse(asked) > quantity.parse(bound):
            ratio = quantity.parse(capped) / quantity.parse(asked)
            yield f"{said}, but provided ratio is {ratio:.6f}"
