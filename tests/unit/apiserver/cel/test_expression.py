"""What an expression evaluates to, and what must not end the process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from pilotage.apiserver.cel import CompileError, EvaluationError, Spending, compiled

VARIABLES = {"object": "dyn"}


def evaluate(text: str, **values: Any) -> Any:
    return compiled(text, VARIABLES).evaluate({"object": {"a": 1, "items": [1, 2]}, **values}, Spending())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("object", {"a": 1, "items": [1, 2]}),
        ("object.?a.orValue(2)", 1),
        ("object.?b.orValue(2)", 2),
        ("{'a': [object.?b.orValue('x')], ?'b': object.?b, ?'c': object.?a}", {"a": ["x"], "c": 1}),
        ("[?object.?b, 1 > 2 ? {'a': b'x'} : {}]", [{}]),
    ],
)
def test_values_are_plain(text: str, value: Any) -> None:
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text", ["optional.of(1)", "object.?a", "[object.?a]", "{'a': optional.of(1)}", "{'a': [{'b': dyn(object.?a)}]}"]
)
def test_an_optional_that_nobody_unwrapped_is_an_error(text: str) -> None:
    # In a process of its own: what this guards against is a crash of the runtime.
    script = (
        "from pilotage.apiserver.cel import EvaluationError, Spending, compiled\n"
        "try:\n"
        f"    compiled({text!r}, {{'object': 'dyn'}}).evaluate({{'object': {{'a': 1}}}}, Spending())\n"
        "except EvaluationError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "the value is an optional that nobody unwrapped\n")


@pytest.mark.parametrize(
    "text",
    [
        "[1].indexOf(optional.of(1))",
        "{'is': 'url', 'a': optional.of(1)}.getHost() == ''",
        "[{'a': [object.?a]}].sum()",
        "sets.contains([{'a': dyn(optional.of(1))}], [1])",
        "sets.contains([1, 2].map(x, {'a': optional.of(x)}), [1])",
        "[1].indexOf(true ? optional.of(1) : dyn(1))",
        "[1].indexOf(optional.of(optional.of(1)).value())",
        "[1].indexOf(optional.of(dyn(object.?a)).orValue(1))",
        "cel.bind(x, optional.of(1), [1].indexOf(x))",
    ],
)
def test_no_optional_reaches_our_functions(text: str) -> None:
    with pytest.raises(CompileError, match="an optional must be unwrapped"):
        compiled(text, VARIABLES)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("object.?items.orValue([]).indexOf(2)", 1),
        ("sets.contains([?object.?a, ?object.?b], [1])", True),
        ("[{?'a': object.?a}].indexOf({'a': 1})", 0),
        ("[object.?a.orValue(0), object.a > 0 ? 1 : 2].sum()", 2),
        ("(true ? object.?a : optional.none()).hasValue() && [1].sum() == 1", True),
        ("object.?items.optMap(x, x.sum()).orValue(0)", 3),
        ("[optional.of(1)][0].value()", 1),
    ],
)
def test_optionals_that_are_unwrapped_in_time_are_fine(text: str, value: Any) -> None:
    assert evaluate(text) == value


def test_missing_keys_are_told_in_the_words_users_know() -> None:
    with pytest.raises(EvaluationError, match=r"^no such key: b$"):
        evaluate("object.b")
