"""LimitRanges: defaults for containers that ask for nothing, and bounds on what they may ask for.

Specification: https://kubernetes.io/docs/concepts/policy/limit-range/
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from pilotage.api import quantity
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.documents import Documents


def limit_ranger(operation: Operation, documents: Documents) -> None:
    """Complete and judge a new pod; raises ApiError Forbidden with everything that is out of bounds."""
    if operation.verb != "create" or operation.kind != ("", "Pod") or operation.subresource:
        return
    pod = operation.document
    assert pod is not None
    limits = [
        limit
        for item in documents.list("", "limitranges", operation.namespace)
        for limit in (item.get("spec") or {}).get("limits") or ()
    ]
    if not limits:
        return
    for limit in limits:
        if limit.get("type") == "Container":
            for container in _containers(pod):
                _fill(container, limit)
    wrong: list[str] = []
    for limit in limits:
        if limit.get("type") == "Container":
            for container in _containers(pod):
                wrong += _violations(container.get("resources") or {}, limit, "Container")
        elif limit.get("type") == "Pod":
            wrong += _violations(_total(pod), limit, "Pod")
    if wrong:
        raise operation.forbidden(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")


def _containers(pod: Document) -> Iterator[Document]:
    yield from pod["spec"].get("initContainers") or ()
    yield from pod["spec"].get("containers") or ()


def _fill(container: Document, limit: Document) -> None:
    resources = container.setdefault("resources", {})
    given = dict(resources.get("limits") or {})
    for kind, source in (("limits", "default"), ("requests", "defaultRequest")):
        for name, amount in (limit.get(source) or {}).items():
            if kind == "requests" and name in given:
                continue  # A limit without a request already became the request.
            resources.setdefault(kind, {}).setdefault(name, amount)


def _total(pod: Document) -> Document:
    """Sums over containers, as a container's resources; an init container counts when it needs more than they do."""
    total: Document = {}
    for kind in ("requests", "limits"):
        sums: dict[str, Decimal] = {}
        for container in pod["spec"].get("containers") or ():
            for name, amount in ((container.get("resources") or {}).get(kind) or {}).items():
                sums[name] = sums.get(name, Decimal(0)) + quantity.parse(amount)
        for container in pod["spec"].get("initContainers") or ():
            for name, amount in ((container.get("resources") or {}).get(kind) or {}).items():
                sums[name] = max(sums.get(name, Decimal(0)), quantity.parse(amount))
        total[kind] = {name: quantity.render(value) for name, value in sums.items()}
    return total


def _violations(resources: Document, limit: Document, what: str) -> Iterator[str]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, bound in (limit.get("min") or {}).items():
        asked = requests.get(name)
        if asked is None:
            yield f"minimum {name} usage per {what} is {bound}.  No request is specified"
        elif quantity.parse(asked) < quantity.parse(bound):
            yield f"minimum {name} usage per {what} is {bound}, but request is {asked}"
    for name, bound in (limit.get("max") or {}).items():
        capped = limits.get(name)
        if capped is None:
            yield f"maximum {name} usage per {what} is {bound}.  No limit is specified"
        elif quantity.parse(capped) > quantity.parse(bound):
            yield f"maximum {name} usage per {what} is {bound}, but limit is {capped}"
