"""Compiling and evaluating one expression.

Stands apart as the only module that speaks to the CEL runtime: types by name, errors in the words Kubernetes' users
know, a budget for all rules of a request. The runtime bounds the steps of one evaluation; `Spending` bounds the time
all of them take together, because everybody else waits meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any

from pilotage.apiserver.cel.library import declarations
from pilotage.apiserver.cel.optionals import escapes

# As much text as kube-apiserver lets one expression have before its estimated cost refuses it, roughly.
EXPRESSION_CHARACTERS_MAX = 16_384
# What all rules of one request may take.
SECONDS_MAX = 0.5
# Values that double with each step could fill the memory; real rules bind a handful.
BINDINGS_MAX = 16

# Names of CEL types: dyn, bool, int, double, string, bytes, timestamp, duration, map, list; `list<T>` and `map<T>` too.
Variables = Mapping[str, str]


class CompileError(Exception):
    """The text is no expression, or one of the wrong type."""


class EvaluationError(Exception):
    """The expression has no value for these variables."""


class BudgetError(EvaluationError):
    """The evaluation would take too long."""


class Spending:
    """The time left for the rules of one request."""

    __slots__ = ("_left_s",)

    def __init__(self, seconds: float = SECONDS_MAX) -> None:
        self._left_s = seconds

    def take(self, seconds: float) -> None:
        """Spend. Raises BudgetError when nothing was left."""
        if self._left_s <= 0:
            raise BudgetError("operation cancelled: actual cost limit exceeded")
        self._left_s -= seconds


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A compiled expression."""

    text: str
    result: str  # the name of the type it was checked to have; dyn when only evaluation will tell
    _program: Any
    _environment: Any
    _optionals: bool  # whether an optional may hide in the value

    def evaluate(self, values: Mapping[str, Any], spending: Spending) -> Any:
        """The value as plain Python. Raises EvaluationError."""
        spending.take(0)
        started = perf_counter()
        try:
            value = self._program.eval(self._environment.Activation(dict(values)))
            kind = value.type().name()
            plain = _plain(value) if self._optionals else value.plain_value()
        except (RuntimeError, TypeError, ValueError) as error:
            raise _failure(str(error)) from None
        finally:
            spending.take(perf_counter() - started)
        if kind == "ERROR" or kind.lower() == "*error*":
            raise _failure(str(plain))
        return plain


# What makes optionals: their operators, their functions, and those of lists that return them.
_may_make_optionals = re.compile(r"\?|opt|first|last").search


def _plain(value: Any) -> Any:
    """The value as plain Python, part by part: the runtime ends the process over an optional inside a map."""
    kind = value.type().name()
    if kind.startswith("MAP"):
        return {key: _plain(item) for key, item in value.value().items()}
    if kind.startswith("LIST"):
        return [_plain(item) for item in value.value()]
    return value.plain_value()


# What the runtime says → what cel-go, and so every user of Kubernetes, says.
_WORDING = (
    (re.compile(r'Key not found in map : "?([^"]*)"?'), r"no such key: \1"),
    (re.compile(r"No matching overloads found : .*"), "no such overload"),
    (re.compile(r"Index error: index=(-?\d+) size=\d+"), r"index out of bounds: \1"),
    (re.compile(r"divide by zero"), "division by zero"),
    (re.compile(r"Unable to convert function return value[\s\S]*"), "the value is an optional that nobody unwrapped"),
    (re.compile(r"Iteration budget exceeded.*"), "operation cancelled: actual cost limit exceeded"),
)


def _failure(message: str) -> EvaluationError:
    message = re.sub(r"^[A-Z_]+: ", "", message)
    for wording, replacement in _WORDING:
        changed, count = wording.subn(replacement, message)
        if count:
            message = changed
            break
    kind = BudgetError if "cost limit" in message else EvaluationError
    return kind(message[:500])


@lru_cache(maxsize=4096)
def _compiled(text: str, variables: tuple[tuple[str, str], ...]) -> Expression:
    if len(text) > EXPRESSION_CHARACTERS_MAX:
        raise CompileError(f"expression too long: may not be more than {EXPRESSION_CHARACTERS_MAX} characters")
    if text.count("cel.bind") > BINDINGS_MAX:
        raise CompileError(f"too many bindings: may not be more than {BINDINGS_MAX}")
    environment = _environment(variables)
    try:
        program = environment.compile(text)
    except (RuntimeError, ValueError) as error:
        message = re.sub(r"^[A-Z_]+: ", "", str(error)).removesuffix(" [INVALID_ARGUMENT]")
        raise CompileError(f"compilation failed: {message[:1000]}") from None
    if escapes(text, program):
        raise CompileError("compilation failed: an optional must be unwrapped before it is an element or an argument")
    optionals = _may_make_optionals(text) is not None
    return Expression(text, _name_of(program.return_type().name()), program, environment, optionals)


def compiled(text: str, variables: Variables, *, results: tuple[str, ...] = ()) -> Expression:
    """The expression over these variables; `results` are the types it may have. Raises CompileError."""
    found = _compiled(text, tuple(sorted(variables.items())))
    if results and found.result not in (*results, "dyn"):
        raise CompileError(f"cel expression must evaluate to {'a ' + results[0] if len(results) == 1 else results}")
    return found


def _name_of(name: str) -> str:
    lower = name.lower()
    return lower if lower.isalpha() else lower.partition("<")[0]


@lru_cache(maxsize=512)
def _environment(variables: tuple[tuple[str, str], ...]) -> Any:
    # Fourteen megabytes of code: loaded by the first server that has a rule, not by every process of a cluster.
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_bindings, ext_encoders, ext_math, ext_optional, ext_strings

    return cel.NewEnv(
        variables={name: _type(kind) for name, kind in variables},
        extensions=[
            ext_bindings.ExtBindings(),
            ext_encoders.ExtEncoders(),
            ext_math.ExtMath(),
            ext_optional.ExtOptional(),
            ext_strings.ExtStrings(),
            cel.CelExtension("kubernetes", declarations()),
        ],
    )


def _type(name: str) -> Any:
    from cel_expr_python import cel

    kinds = cel.Type
    if name.startswith("list<"):
        return kinds.List(_type(name[5:-1]))
    if name.startswith("map<"):
        return kinds.Map(kinds.STRING, _type(name[4:-1]))
    return {
        "dyn": kinds.DYN,
        "bool": kinds.BOOL,
        "int": kinds.INT,
        "double": kinds.DOUBLE,
        "string": kinds.STRING,
        "bytes": kinds.BYTES,
        "timestamp": kinds.TIMESTAMP,
        "duration": kinds.DURATION,
        "map": kinds.Map(kinds.STRING, kinds.DYN),
        "list": kinds.List(kinds.DYN),
    }[name]
