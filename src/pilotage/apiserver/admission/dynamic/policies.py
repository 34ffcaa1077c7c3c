"""ValidatingAdmissionPolicies: CEL judges a write.

Stands apart from webhooks because nothing leaves the process: everything is known at once. Compiled expressions are
shared by text, so a policy costs its evaluation alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilotage.api.catalogue import Resource
from pilotage.api.status import REASONS, ApiError, StatusCause, StatusDetails
from pilotage.apiserver.admission.dynamic.bound import VARIABLES, Bound, BoundPolicies, Evaluation
from pilotage.apiserver.admission.dynamic.matching import ConditionError
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.cel import Asker, CompileError, EvaluationError, Spending, asking, compiled


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """What one policy has against a write."""

    message: str
    reason: str = "Invalid"


class ValidatingPolicies(BoundPolicies):
    """The validating policies of one server."""

    policies, bindings = "validatingadmissionpolicies", "validatingadmissionpolicybindings"

    def judge(self, operation: Operation, bound: Sequence[Bound], asker: Asker) -> None:
        """Ask every policy that is concerned; raises ApiError when one denies."""
        spending = Spending()
        for pair in bound:
            resource = self.matching(operation, *pair)
            if resource is None:
                continue
            with asking(asker):
                for finding in self._findings(operation, resource, pair, spending):
                    _act(operation, *pair, finding)

    def _findings(
        self, operation: Operation, resource: Resource, bound: Bound, spending: Spending
    ) -> Iterable[_Finding]:
        spec = bound[0]["spec"]
        lenient = spec.get("failurePolicy") == "Ignore"
        try:
            for params in self.parameters(operation, *bound):
                if self.hold(operation, resource, spec, params, spending):
                    evaluation = Evaluation(spec, self.values(operation, resource, params), spending)
                    yield from _evaluate(spec, evaluation, lenient=lenient)
        except (ConditionError, LookupError) as error:
            if not lenient:
                yield _Finding(message=str(error.args[0] if error.args else error))


def _evaluate(spec: Document, evaluation: Evaluation, *, lenient: bool) -> Iterable[_Finding]:
    for validation in spec.get("validations") or ():
        expression = validation["expression"]
        try:
            if evaluation.value(compiled(expression, VARIABLES, results=("bool",))) is True:
                continue
        except (CompileError, EvaluationError) as error:
            if not lenient:
                yield _Finding(message=f"expression {expression!r} resulted in error: {error}")
            continue
        yield _Finding(message=_message(validation, evaluation), reason=validation.get("reason") or "Invalid")


def _message(validation: Document, evaluation: Evaluation) -> str:
    if validation.get("messageExpression"):
        try:
            text = evaluation.value(compiled(validation["messageExpression"], VARIABLES, results=("string",)))
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
