"""Expressions of the Common Expression Language, as Kubernetes uses them.

Purpose: rules of custom resources and of admission policies: compiled once, type-checked, evaluated within a bound.
Inputs → outputs: the text of an expression and the types of its variables → a compiled expression or a reason why not;
values → a result or an evaluation error.
Invariants: an evaluation ends after ten thousand steps of its loops; patterns take linear time; a compiled expression
is shared and keeps nothing of what it was asked.
Reading order: `expression`, then `library` (the functions Kubernetes adds to CEL), `pattern`, `optionals`; `messages`
(the types that mutating policies make).
Specifications: https://kubernetes.io/docs/reference/using-api/cel/, https://github.com/google/cel-spec
"""

from pilotage.apiserver.cel.expression import (
    BudgetError,
    CompileError,
    EvaluationError,
    Expression,
    Spending,
    Variables,
    compiled,
)
from pilotage.apiserver.cel.library import AUTHORIZER, Asker, asking
from pilotage.apiserver.cel.messages import Wanted, compiled_message, configuration, operations
from pilotage.apiserver.cel.pattern import PatternError, pattern

__all__ = [
    "AUTHORIZER",
    "Asker",
    "BudgetError",
    "CompileError",
    "EvaluationError",
    "Expression",
    "PatternError",
    "Spending",
    "Variables",
    "Wanted",
    "asking",
    "compiled",
    "compiled_message",
    "configuration",
    "operations",
    "pattern",
]
