"""What a webhook configuration or a policy may say, judged when it is written.

Stands apart from the tables of built-in kinds because expressions are compiled here.
Source: the validation of admissionregistration.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pilotage.api.schema_problems import Problems
from pilotage.api.status import FieldError
from pilotage.apiserver.admission.dynamic.bound import GROUP, VARIABLES
from pilotage.apiserver.admission.dynamic.matching import CONDITION_VARIABLES
from pilotage.apiserver.admission.operation import Document
from pilotage.apiserver.cel import CompileError, Wanted, compiled, compiled_message

TIMEOUT_MAX_S = 30
_ACTIONS = ("Audit", "Deny", "Warn")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_MUTABLE_OPERATIONS = ("*", "CONNECT", "CREATE", "UPDATE")
_REASONS = ("Unauthorized", "Forbidden", "Invalid", "RequestEntityTooLarge")
EXPRESSIONS_MAX = 64


def _webhooks(document: Document, old: Document | None) -> Sequence[FieldError]:
    problems = Problems()
    seen: set[str] = set()
    for index, webhook in enumerate(document.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        name = webhook.get("name") or ""
        if not name:
            problems.required(f"{path}.name")
        elif len(name.split(".")) < 3:
            problems.invalid(f"{path}.name", name, "should be a domain with at least three segments separated by dots")
        if name in seen:
            problems.duplicate(f"{path}.name", name)
        seen.add(name)
        _one_of(webhook, "failurePolicy", ("Fail", "Ignore"), path, problems)
        _one_of(webhook, "matchPolicy", ("Equivalent", "Exact"), path, problems)
        _one_of(webhook, "reinvocationPolicy", ("IfNeeded", "Never"), path, problems)
        if webhook.get("sideEffects") is None:
            problems.required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun")
        _one_of(webhook, "sideEffects", ("None", "NoneOnDryRun"), path, problems)
        if "v1" not in (webhook.get("admissionReviewVersions") or ()):
            text = "must include at least one of v1"
            problems.invalid(f"{path}.admissionReviewVersions", webhook.get("admissionReviewVersions"), text)
        timeout = webhook.get("timeoutSeconds")
        if timeout is not None and not 1 <= timeout <= TIMEOUT_MAX_S:
            problems.invalid(f"{path}.timeoutSeconds", timeout, "the timeout value must be between 1 and 30 seconds")
        _check_client(webhook.get("clientConfig") or {}, f"{path}.clientConfig", problems)
        _check_rules(webhook.get("rules") or (), f"{path}.rules", problems)
        _check_conditions(
            webhook.get("matchConditions") or (), f"{path}.matchConditions", CONDITION_VARIABLES, problems
        )
    return problems.errors


def _check_client(config: Document, path: str, problems: Problems) -> None:
    url, service = config.get("url"), config.get("service")
    if (url is None) is (service is None):
        problems.required(path, "exactly one of url or service is required")
    elif url is not None:
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme != "https" or not parts.netloc:
            problems.invalid(
                f"{path}.url", url, "'https' is the only allowed URL scheme; desired format: https://host[/path]"
            )
        elif parts.username or parts.query or parts.fragment:
            text = "user information, query parameters and fragments are not permitted in the URL"
            problems.invalid(f"{path}.url", url, text)
    else:
        for field in ("namespace", "name"):
            if not (service or {}).get(field):
                problems.required(f"{path}.service.{field}")


def _check_rules(rules: Sequence[Mapping[str, Any]], path: str, problems: Problems) -> None:
    for index, rule in enumerate(rules):
        for field in ("operations", "apiGroups", "apiVersions", "resources"):
            if not rule.get(field):
                problems.required(f"{path}[{index}].{field}")
        for at, operation in enumerate(rule.get("operations") or ()):
            if operation not in _OPERATIONS:
                problems.unsupported(f"{path}[{index}].operations[{at}]", operation, _OPERATIONS)
        if rule.get("scope") not in (None, "*", "Cluster", "Namespaced"):
            problems.unsupported(f"{path}[{index}].scope", rule["scope"], ("*", "Cluster", "Namespaced"))


def _check_conditions(
    conditions: Sequence[Mapping[str, Any]], path: str, variables: Mapping[str, str], problems: Problems
) -> None:
    if len(conditions) > EXPRESSIONS_MAX:
        problems.too_many(path, len(conditions), EXPRESSIONS_MAX)
    for index, condition in enumerate(conditions):
        if not condition.get("name"):
            problems.required(f"{path}[{index}].name")
        _check_expression(condition, "expression", f"{path}[{index}]", variables, ("bool",), problems)


def _check_expression(
    source: Mapping[str, Any],
    field: str,
    path: str,
    variables: Mapping[str, str],
    results: tuple[str, ...],
    problems: Problems,
) -> None:
    text = source.get(field) or ""
    if not text.strip():
        problems.required(f"{path}.{field}", f"{field} is not specified")
        return
    try:
        compiled(text, variables, results=results)
    except CompileError as error:
        problems.invalid(f"{path}.{field}", text, str(error))


def _validating_policy(document: Document, old: Document | None) -> Sequence[FieldError]:
    problems = Problems()
    spec = document.get("spec") or {}
    _check_policy(spec, problems)
    validations = spec.get("validations") or ()
    if not validations and not spec.get("auditAnnotations"):
        problems.required("spec.validations", "validations or auditAnnotations must be specified")
    if len(validations) > EXPRESSIONS_MAX:
        problems.too_many("spec.validations", len(validations), EXPRESSIONS_MAX)
    for index, validation in enumerate(validations):
        path = f"spec.validations[{index}]"
        _check_expression(validation, "expression", path, VARIABLES, ("bool",), problems)
        if validation.get("messageExpression"):
            _check_expression(validation, "messageExpression", path, VARIABLES, ("string",), problems)
        _one_of(validation, "reason", _REASONS, path, problems)
    return problems.errors


def _mutating_policy(document: Document, old: Document | None) -> Sequence[FieldError]:
    problems = Problems()
    spec = document.get("spec") or {}
    _check_policy(spec, problems)
    _check_mutable(spec.get("matchConstraints"), "spec.matchConstraints", problems)
    mutations = spec.get("mutations") or ()
    if not mutations:
        problems.required("spec.mutations", "mutations must contain at least one item")
    if len(mutations) > EXPRESSIONS_MAX:
        problems.too_many("spec.mutations", len(mutations), EXPRESSIONS_MAX)
    for index, mutation in enumerate(mutations):
        _check_mutation(mutation, f"spec.mutations[{index}]", problems)
    if not spec.get("reinvocationPolicy"):
        problems.required("spec.reinvocationPolicy")
    else:
        _one_of(spec, "reinvocationPolicy", ("IfNeeded", "Never"), "spec", problems)
    return problems.errors


# patchType → the field that goes with it, what its expression must make.
_MUTATIONS: Mapping[str, tuple[str, Wanted]] = {
    "ApplyConfiguration": ("applyConfiguration", "Object"),
    "JSONPatch": ("jsonPatch", "list(JSONPatch)"),
}


def _check_mutation(mutation: Document, path: str, problems: Problems) -> None:
    kind = mutation.get("patchType")
    if not kind:
        problems.required(f"{path}.patchType")
    elif kind not in _MUTATIONS:
        problems.unsupported(f"{path}.patchType", kind, tuple(_MUTATIONS))
    else:
        field, wanted = _MUTATIONS[kind]
        source = mutation.get(field)
        if source is None:
            problems.required(f"{path}.{field}", f"must be specified when patchType is {kind}")
        elif not (text := source.get("expression") or "").strip():
            problems.required(f"{path}.{field}.expression")
        else:
            try:
                compiled_message(text, VARIABLES, wanted)
            except CompileError as error:
                problems.invalid(f"{path}.{field}.expression", text, str(error))
        for other, _ in _MUTATIONS.values():
            if other != field and mutation.get(other) is not None:
                problems.invalid(f"{path}.{other}", f"{{{other}}}", f"must not be specified when patchType is {kind}")


def _check_mutable(resources: Document | None, path: str, problems: Problems) -> None:
    """Only what is created or updated can be changed."""
    for rule in (resources or {}).get("resourceRules") or ():
        for operation in rule.get("operations") or ():
            if operation not in _MUTABLE_OPERATIONS:
                problems.unsupported(f"{path}.resourceRules.operations", operation, _MUTABLE_OPERATIONS)


def _check_policy(spec: Document, problems: Problems) -> None:
    """What policies of either sort may say."""
    _one_of(spec, "failurePolicy", ("Fail", "Ignore"), "spec", problems)
    kind = spec.get("paramKind")
    if kind is not None:
        for field in ("apiVersion", "kind"):
            if not kind.get(field):
                problems.required(f"spec.paramKind.{field}")
    constraints = spec.get("matchConstraints")
    if constraints is None:
        problems.required("spec.matchConstraints")
    else:
        if not constraints.get("resourceRules"):
            problems.required("spec.matchConstraints.resourceRules")
        _check_rules(constraints.get("resourceRules") or (), "spec.matchConstraints.resourceRules", problems)
    _check_conditions(spec.get("matchConditions") or (), "spec.matchConditions", VARIABLES, problems)
    for index, variable in enumerate(spec.get("variables") or ()):
        path = f"spec.variables[{index}]"
        if not str(variable.get("name") or "").isidentifier():
            problems.invalid(f"{path}.name", variable.get("name", ""), "name is not a valid CEL identifier")
        _check_expression(variable, "expression", path, VARIABLES, (), problems)


def _validating_binding(document: Document, old: Document | None) -> Sequence[FieldError]:
    problems = Problems()
    spec = document.get("spec") or {}
    _check_binding(spec, problems)
    actions = spec.get("validationActions") or ()
    if not actions:
        problems.required("spec.validationActions", "at least one validation action is required")
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            problems.unsupported(f"spec.validationActions[{index}]", action, _ACTIONS)
    if "Deny" in actions and "Warn" in actions:
        text = "must not contain both Deny and Warn (repeating the same validation failure information in the API "
        problems.invalid("spec.validationActions", list(actions), text + "response and headers serves no purpose)")
    return problems.errors


def _mutating_binding(document: Document, old: Document | None) -> Sequence[FieldError]:
    problems = Problems()
    spec = document.get("spec") or {}
    _check_binding(spec, problems)
    _check_mutable(spec.get("matchResources"), "spec.matchResources", problems)
    return problems.errors


def _check_binding(spec: Document, problems: Problems) -> None:
    """What bindings of either sort may say."""
    if not spec.get("policyName"):
        problems.required("spec.policyName")
    reference = spec.get("paramRef")
    if reference is not None:
        if bool(reference.get("name")) is (reference.get("selector") is not None):
            problems.required("spec.paramRef", "one of name or selector must be specified")
        _one_of(reference, "parameterNotFoundAction", ("Allow", "Deny"), "spec.paramRef", problems)


def _one_of(source: Mapping[str, Any], field: str, values: Sequence[str], path: str, problems: Problems) -> None:
    if source.get(field) is not None and source[field] not in values:
        problems.unsupported(f"{path}.{field}", source[field], values)


RULES: Mapping[tuple[str, str], Callable[[Document, Document | None], Sequence[FieldError]]] = {
    (GROUP, "MutatingWebhookConfiguration"): _webhooks,
    (GROUP, "ValidatingWebhookConfiguration"): _webhooks,
    (GROUP, "MutatingAdmissionPolicy"): _mutating_policy,
    (GROUP, "MutatingAdmissionPolicyBinding"): _mutating_binding,
    (GROUP, "ValidatingAdmissionPolicy"): _validating_policy,
    (GROUP, "ValidatingAdmissionPolicyBinding"): _validating_binding,
}
