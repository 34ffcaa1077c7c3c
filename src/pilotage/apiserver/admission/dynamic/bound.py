"""What validating and mutating policies share: bindings say where and with which parameters, variables are computed.

Stands apart so that either sort of policy is only about what it does with a write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.api.codec import convert
from pilotage.api.labels import SelectorError, from_label_selector
from pilotage.api.meta_v1 import LabelSelector
from pilotage.apiserver.admission.dynamic.matching import (
    CONDITION_VARIABLES,
    conditions_hold,
    matched,
    selected,
)
from pilotage.apiserver.admission.dynamic.review import request_of, shown_as
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.cel import AUTHORIZER, CompileError, EvaluationError, Expression, Spending, compiled
from pilotage.apiserver.documents import Documents

GROUP = "admissionregistration.k8s.io"
VARIABLES = {**CONDITION_VARIABLES, "namespaceObject": "dyn", "params": "dyn", "variables": "map"}

Bound = tuple[Document, Document]  # a policy and one of its bindings

_ANYTHING = [
    {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*", "*/*"], "scope": "*"},
]


class Evaluation:
    """The expressions of one policy over one state of an object."""

    def __init__(self, spec: Document, values: Mapping[str, Any], spending: Spending) -> None:
        self._spending = spending
        self._broken: dict[str, str] = {}  # variable → why it has no value: told by the first expression that needs it
        computed: dict[str, Any] = {}
        self._values = {**values, "variables": computed}
        for variable in spec.get("variables") or ():
            try:
                computed[variable["name"]] = self.value(compiled(variable["expression"], VARIABLES))
            except (CompileError, EvaluationError) as error:
                self._broken[variable["name"]] = str(error)

    def value(self, expression: Expression) -> Any:
        """The value of an expression. Raises EvaluationError."""
        try:
            return expression.evaluate(self._values, self._spending)
        except EvaluationError as error:
            name = str(error).removeprefix("no such key: ")
            if name not in self._broken:
                raise
            why = f"composited variable {name!r} fails to evaluate: {self._broken[name]}"
            raise EvaluationError(why) from None


class BoundPolicies:
    """The policies of one sort."""

    policies: str  # their plural
    bindings: str  # that of their bindings

    def __init__(
        self,
        documents: Documents,
        equivalents: Callable[[Resource], Sequence[Resource]],
        by_kind: Callable[[str, str, str], Resource | None],
    ) -> None:
        self._documents = documents
        self._equivalents = equivalents
        self._by_kind = by_kind

    def bound(self) -> list[Bound]:
        """Every policy with each of its bindings, in the order of their names."""
        policies = {each["metadata"]["name"]: each for each in self._documents.list(GROUP, self.policies)}
        if not policies:
            return []
        found = [
            (policies[name], binding)
            for binding in self._documents.list(GROUP, self.bindings)
            if (name := (binding.get("spec") or {}).get("policyName")) in policies
        ]
        return sorted(found, key=lambda pair: (pair[0]["metadata"]["name"], pair[1]["metadata"]["name"]))

    def matching(self, operation: Operation, policy: Document, binding: Document) -> Resource | None:
        """The resource in the version a policy wants, None when it is not concerned."""
        found = self._constrained(operation, policy["spec"].get("matchConstraints") or {})
        narrower = binding["spec"].get("matchResources")
        if found is None or not narrower:
            return found
        wanted = narrower if narrower.get("resourceRules") else {**narrower, "resourceRules": _ANYTHING}
        return found if self._constrained(operation, wanted) is not None else None

    def _constrained(self, operation: Operation, constraints: Mapping[str, Any]) -> Resource | None:
        exact = constraints.get("matchPolicy") == "Exact"
        others = self._equivalents(operation.resource)
        if matched(operation, others, constraints.get("excludeResourceRules") or (), exact=exact) is not None:
            return None
        found = matched(operation, others, constraints.get("resourceRules") or (), exact=exact)
        return found if found is not None and selected(operation, self._documents, constraints) else None

    def values(self, operation: Operation, resource: Resource, params: Document | None) -> dict[str, Any]:
        """What expressions see of a write, in the version a policy wants."""
        namespaced = operation.resource.namespaced
        return {
            "object": shown_as(operation.document, operation.resource, resource),
            "oldObject": shown_as(operation.old, operation.resource, resource),
            "request": request_of(operation, resource, ""),
            "authorizer": AUTHORIZER,
            "namespaceObject": self._documents.get("", "namespaces", "", operation.namespace) if namespaced else None,
            "params": params,
            "variables": {},
        }

    def hold(
        self, operation: Operation, resource: Resource, spec: Document, params: Document | None, spending: Spending
    ) -> bool:
        """Whether all conditions of a policy hold. Raises ConditionError."""
        conditions = spec.get("matchConditions") or ()
        if not conditions:
            return True
        return conditions_hold(conditions, self.values(operation, resource, params), spending, VARIABLES)

    def parameters(self, operation: Operation, policy: Document, binding: Document) -> list[Document | None]:
        """The parameters to evaluate with, one after the other. Raises LookupError when there must be some."""
        kind, reference = policy["spec"].get("paramKind"), binding["spec"].get("paramRef")
        if not kind or not reference:
            return [None]
        group, _, version = kind["apiVersion"].rpartition("/")
        resource = self._by_kind(group, version, kind["kind"])
        if resource is None:
            raise LookupError(
                f"failed to find resource referenced by paramKind: '{kind['apiVersion']}, Kind={kind['kind']}'"
            )
        namespace = (reference.get("namespace") or operation.namespace) if resource.namespaced else ""
        if resource.namespaced and not namespace:
            raise LookupError("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
        found: list[Document | None] = []
        if reference.get("name"):
            document = self._documents.get(resource.group, resource.plural, namespace, reference["name"])
            found = [document] if document is not None else []
        else:
            try:
                selector = from_label_selector(convert(LabelSelector, reference.get("selector") or {}))
            except SelectorError:
                selector = None
            for document in self._documents.list(resource.group, resource.plural, namespace):
                if selector is not None and selector.matches(document["metadata"].get("labels") or {}):
                    found.append(document)
        if not found and reference.get("parameterNotFoundAction") != "Allow":
            raise LookupError("no params found for policy binding with `Deny` parameterNotFoundAction")
        return found
