"""ValidatingAdmissionPolicies: CEL judges a write, bindings say where and with which parameters.

Stands apart from webhooks because nothing leaves the process: everything is known at once. Compiled expressions are
shared by text, so a policy costs its evaluation alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.api.codec import convert
from pilotage.api.labels import SelectorError, from_label_selector
from pilotage.api.meta_v1 import LabelSelector
from pilotage.api.status import REASONS, ApiError, StatusCause, StatusDetails
from pilotage.apiserver.admission.dynamic.matching import (
    CONDITION_VARIABLES,
    ConditionError,
    conditions_hold,
    matched,
    selected,
)
from pilotage.apiserver.admission.dynamic.review import request_of, shown_as
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.cel import AUTHORIZER, Asker, CompileError, EvaluationError, Spending, asking, compiled
from pilotage.apiserver.documents import Documents

GROUP = "admissionregistration.k8s.io"
POLICIES, BINDINGS = "validatingadmissionpolicies", "validatingadmissionpolicybindings"
VARIABLES = {**CONDITION_VARIABLES, "namespaceObject": "dyn", "params": "dyn", "variables": "map"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """What one policy has against a write."""

    message: str
    reason: str = "Invalid"


class Policies:
    """The policies of one server."""

    def __init__(
        self,
        documents: Documents,
        equivalents: Callable[[Resource], Sequence[Resource]],
        by_kind: Callable[[str, str, str], Resource | None],
    ) -> None:
        self._documents = documents
        self._equivalents = equivalents
        self._by_kind = by_kind

    def bindings(self) -> list[tuple[Document, Document]]:
        """Every policy with each of its bindings."""
        policies = {each["metadata"]["name"]: each for each in self._documents.list(GROUP, POLICIES)}
        if not policies:
            return []
        return [
            (policies[name], binding)
            for binding in self._documents.list(GROUP, BINDINGS)
            if (name := (binding.get("spec") or {}).get("policyName")) in policies
        ]

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

    def judge(self, operation: Operation, bound: Sequence[tuple[Document, Document]], asker: Asker) -> None:
        """Ask every policy that is concerned; raises ApiError when one denies."""
        spending = Spending()
        for policy, binding in bound:
            resource = self.matching(operation, policy, binding)
            if resource is None:
                continue
            with asking(asker):
                for finding in self._findings(operation, resource, policy, binding, spending):
                    _act(operation, policy, binding, finding)

    def _findings(
        self, operation: Operation, resource: Resource, policy: Document, binding: Document, spending: Spending
    ) -> Iterable[_Finding]:
        spec = policy["spec"]
        lenient = spec.get("failurePolicy") == "Ignore"
        request = request_of(operation, resource, "")
        values: dict[str, Any] = {
            "object": shown_as(operation.document, operation.resource, resource),
            "oldObject": shown_as(operation.old, operation.resource, resource),
            "request": request,
            "authorizer": AUTHORIZER,
            "namespaceObject": self._namespace(operation),
            "params": None,
            "variables": {},
        }
        try:
            if not conditions_hold(spec.get("matchConditions") or (), values, spending, VARIABLES):
                return
            for params in self._params(operation, spec, binding["spec"]):
                yield from self._evaluate(spec, {**values, "params": params}, spending, lenient=lenient)
        except (ConditionError, LookupError) as error:
            if not lenient:
                yield _Finding(message=str(error.args[0] if error.args else error))

    def _evaluate(
        self, spec: Document, values: dict[str, Any], spending: Spending, *, lenient: bool
    ) -> Iterable[_Finding]:
        broken: dict[str, str] = {}
        computed: dict[str, Any] = {}
        values["variables"] = computed
        for variable in spec.get("variables") or ():
            try:
                computed[variable["name"]] = compiled(variable["expression"], VARIABLES).evaluate(values, spending)
            except (CompileError, EvaluationError) as error:
                broken[variable["name"]] = str(error)  # told by the first expression that needs it
        for validation in spec.get("validations") or ():
            expression = validation["expression"]
            try:
                if compiled(expression, VARIABLES, results=("bool",)).evaluate(values, spending) is True:
                    continue
            except (CompileError, EvaluationError) as error:
                name = str(error).removeprefix("no such key: ")
                why = (
                    f"composited variable {name!r} fails to evaluate: {broken[name]}" if name in broken else str(error)
                )
                if not lenient:
                    yield _Finding(message=f"expression {expression!r} resulted in error: {why}")
                continue
            yield _Finding(message=_message(validation, values, spending), reason=validation.get("reason") or "Invalid")

    def _namespace(self, operation: Operation) -> Document | None:
        if not operation.resource.namespaced:
            return None
        return self._documents.get("", "namespaces", "", operation.namespace)

    def _params(self, operation: Operation, spec: Document, binding: Document) -> list[Document | None]:
        """The parameters to evaluate with, one after the other. Raises LookupError when there must be some."""
        kind, reference = spec.get("paramKind"), binding.get("paramRef")
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


_ANYTHING = [
    {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*", "*/*"], "scope": "*"},
]


def _message(validation: Document, values: Mapping[str, Any], spending: Spending) -> str:
    if validation.get("messageExpression"):
        try:
            text = compiled(validation["messageExpression"], VARIABLES, results=("string",)).evaluate(values, spending)
        except (CompileError, EvaluationError):
            text = ""
        if isinstance(text, str) and text.strip() and "\n" not in text.strip():
            return text.strip()
    message: str = validation.get("message") or f"failed expression: {validation['expression'].strip()}"
    return message


def _act(operation: Operation, policy: Document, binding: Document, finding: _Finding) -> None:
    """Warn of a finding, and raise it as ApiError, as the binding says."""
    actions = binding["spec"].get("validationActions") or ()
    by = f"ValidatingAdmissionPolicy '{policy['metadata']['name']}' with binding '{binding['metadata']['name']}'"
    if "Warn" in actions:
        operation.warnings.append(f"Validation failed for {by}: {finding.message}")
    if "Deny" in actions:
        text = f"{by} denied request: {finding.message}"
        refusal = operation.forbidden(text)
        details = StatusDetails(
            name=refusal.details.name,
            group=refusal.details.group,
            kind=refusal.details.kind,
            causes=(StatusCause(message=text),),
        )
        raise ApiError(finding.reason, str(refusal), code=REASONS.get(finding.reason, 422), details=details)
