"""MutatingAdmissionPolicies: CEL completes a write.

Stands apart from the validating ones because policies come in turn, each finds what those before it left, and those
that want it come once more when something changed after them. All failures of a round are told at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pilotage.api.catalogue import Resource
from pilotage.api.status import ApiError, StatusCause, StatusDetails
from pilotage.apiserver.admission.dynamic.bound import VARIABLES, Bound, BoundPolicies, Evaluation
from pilotage.apiserver.admission.dynamic.matching import ConditionError
from pilotage.apiserver.admission.dynamic.mutations import MutationError, completed, configured, patched
from pilotage.apiserver.admission.dynamic.review import shown_as
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.cel import (
    Asker,
    CompileError,
    EvaluationError,
    Spending,
    asking,
    compiled_message,
    configuration,
    operations,
)


class MutatingPolicies(BoundPolicies):
    """The mutating policies of one server."""

    policies, bindings = "mutatingadmissionpolicies", "mutatingadmissionpolicybindings"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Invocation:
    """One policy with one of its parameters."""

    bound: Bound
    resource: Resource  # in the version the policy wants
    params: Document | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Why a policy could not do what it should."""

    bound: Bound
    message: str
    reason: str


class Course:
    """What mutating policies do to one write, in two rounds at most."""

    def __init__(self, policies: MutatingPolicies, bound: Sequence[Bound], asker: Asker) -> None:
        self._policies = policies
        self._bound = bound
        self._asker = asker
        self._spending = Spending()
        self._failures: list[_Failure] = []
        self._again: list[tuple[_Invocation, Document]] = []  # with what they left of the object

    def first(self, operation: Operation) -> Document:
        """The document after every policy that is concerned. Raises ApiError when one fails that must not."""
        assert operation.document is not None
        document = operation.document
        concerned = [(pair, self._policies.matching(operation, *pair)) for pair in self._bound]
        with asking(self._asker):
            for pair, resource in concerned:
                if resource is None:
                    continue
                for params in self._params(operation, pair):
                    invocation = _Invocation(bound=pair, resource=resource, params=params)
                    document = self._invoke(replace(operation, document=document), invocation)
        self._refuse(operation)
        return document

    def again(self, operation: Operation) -> Document:
        """The document after those that want to see what changed after them. Raises ApiError as `first` does."""
        assert operation.document is not None
        document = operation.document
        invoked, self._again = self._again, []
        with asking(self._asker):
            for invocation, left in invoked:
                if document != left:
                    document = self._invoke(replace(operation, document=document), invocation)
        self._refuse(operation)
        return document

    def _params(self, operation: Operation, bound: Bound) -> Sequence[Document | None]:
        try:
            return self._policies.parameters(operation, *bound)
        except LookupError as error:
            self._failed(bound, f"failed to configure binding: {error.args[0]}", "Forbidden")
            return ()

    def _invoke(self, operation: Operation, invocation: _Invocation) -> Document:
        assert operation.document is not None
        spec = invocation.bound[0]["spec"]
        document = operation.document
        try:
            if not self._policies.hold(operation, invocation.resource, spec, invocation.params, self._spending):
                return document
        except ConditionError as error:
            self._failed(invocation.bound, str(error))
            return document
        for mutation in spec.get("mutations") or ():
            try:
                document = self._mutated(replace(operation, document=document), invocation, mutation)
            except (CompileError, EvaluationError, MutationError) as error:
                self._failed(invocation.bound, str(error))
        if spec.get("reinvocationPolicy") == "IfNeeded":
            self._again.append((invocation, document))
        return document

    def _mutated(self, operation: Operation, invocation: _Invocation, mutation: Document) -> Document:
        resource = invocation.resource
        values = self._policies.values(operation, resource, invocation.params)
        evaluation = Evaluation(invocation.bound[0]["spec"], values, self._spending)
        shown: Document = values["object"]
        if mutation.get("patchType") == "JSONPatch":
            source = (mutation.get("jsonPatch") or {}).get("expression") or ""
            patch = operations(evaluation.value(compiled_message(source, VARIABLES, "list(JSONPatch)")))
            changed = patched(shown, patch)
        else:
            source = (mutation.get("applyConfiguration") or {}).get("expression") or ""
            wanted = configuration(evaluation.value(compiled_message(source, VARIABLES, "Object")))
            changed = configured(shown, resource, wanted)
        if changed == shown:
            assert operation.document is not None
            return operation.document
        whole = shown_as(completed(changed, resource), resource, operation.resource)
        assert whole is not None
        return whole

    def _failed(self, bound: Bound, message: str, reason: str = "Invalid") -> None:
        if bound[0]["spec"].get("failurePolicy") != "Ignore":
            self._failures.append(_Failure(bound=bound, message=message, reason=reason))

    def _refuse(self, operation: Operation) -> None:
        if not self._failures:
            return
        told = [
            f"policy '{policy['metadata']['name']}' with binding '{binding['metadata']['name']}' "
            f"denied request: {failure.message}"
            for failure in self._failures
            for policy, binding in (failure.bound,)
        ]
        details = StatusDetails(
            name=operation.name,
            group=operation.resource.group,
            kind=operation.resource.plural,
            causes=tuple(StatusCause(message=text) for text in told),
        )
        # As Kubernetes: the first failure gives message and reason, the code stays that of a refusal.
        raise ApiError(self._failures[0].reason, told[0], code=403, details=details)
