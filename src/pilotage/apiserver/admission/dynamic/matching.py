"""Whom a write concerns: rules, selectors and conditions of webhooks and policies.

Stands apart because both match alike. A rule that names another version of the same resource matches too unless
`matchPolicy` is Exact; what is shown then is the object in that version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.api.codec import convert
from pilotage.api.labels import SelectorError, from_label_selector
from pilotage.api.meta_v1 import LabelSelector
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.cel import CompileError, EvaluationError, Spending, compiled
from pilotage.apiserver.documents import Documents

OPERATIONS = {"create": "CREATE", "update": "UPDATE", "delete": "DELETE"}
CONDITION_VARIABLES = {
    "object": "dyn",
    "oldObject": "dyn",
    "request": "map",
    "authorizer": "map",
}


def matched(
    operation: Operation,
    equivalents: Sequence[Resource],
    rules: Iterable[Mapping[str, Any]],
    *,
    exact: bool,
) -> Resource | None:
    """The resource in the version some rule names, None when none does."""
    listed = tuple(rules)
    for resource in (operation.resource,) if exact else (operation.resource, *equivalents):
        if any(_rule_matches(rule, operation, resource) for rule in listed):
            return resource
    return None


def _rule_matches(rule: Mapping[str, Any], operation: Operation, resource: Resource) -> bool:
    if not _among(rule.get("operations"), OPERATIONS[operation.verb]):
        return False
    if not _among(rule.get("apiGroups"), resource.group) or not _among(rule.get("apiVersions"), resource.version):
        return False
    scope = rule.get("scope") or "*"
    namespaced = resource.namespaced
    if scope != "*" and (scope == "Namespaced") is not namespaced:
        return False
    names = rule.get("resourceNames")
    if names and operation.name not in names:
        return False
    return any(_resource_matches(each, resource.plural, operation.subresource) for each in rule.get("resources") or ())


def _among(values: Sequence[str] | None, value: str) -> bool:
    return values is not None and ("*" in values or value in values)


def _resource_matches(pattern: str, plural: str, subresource: str) -> bool:
    wanted, slash, wanted_subresource = pattern.partition("/")
    if wanted not in ("*", plural):
        return False
    if not slash:
        return not subresource
    return wanted_subresource == "*" or wanted_subresource == subresource


def selected(operation: Operation, documents: Documents, source: Mapping[str, Any]) -> bool:
    """Whether the namespace and the object have the labels that are asked for."""
    objects = source.get("objectSelector")
    if objects and not any(_labels_match(objects, each) for each in (operation.document, operation.old)):
        return False
    wanted = source.get("namespaceSelector")
    if not wanted:
        return True
    if operation.kind == ("", "Namespace"):
        return _labels_match(wanted, operation.document or operation.old)
    if not operation.resource.namespaced:
        return True
    return _labels_match(wanted, documents.get("", "namespaces", "", operation.namespace))


def _labels_match(selector: Mapping[str, Any], document: Document | None) -> bool:
    if document is None:
        return False
    try:
        parsed = from_label_selector(convert(LabelSelector, selector))
    except SelectorError:
        return False
    return parsed is not None and parsed.matches(document["metadata"].get("labels") or {})


class ConditionError(Exception):
    """A match condition has no value."""


def conditions_hold(
    conditions: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    spending: Spending,
    variables: Mapping[str, str] = CONDITION_VARIABLES,
) -> bool:
    """Whether all match conditions hold; one that is false counts more than one that cannot be evaluated.

    Raises ConditionError.
    """
    failed = ""
    for condition in conditions:
        try:
            value = compiled(condition["expression"], variables, results=("bool",)).evaluate(values, spending)
        except (CompileError, EvaluationError) as error:
            failed = failed or f"match condition {condition.get('name', '')!r}: {error}"
            continue
        if value is not True:
            return False
    if failed:
        raise ConditionError(failed)
    return True
