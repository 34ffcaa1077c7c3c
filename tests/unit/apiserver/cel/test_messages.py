"""Message literals become maps, exactly, and say what type they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.apiserver.cel import (
    CompileError,
    EvaluationError,
    Spending,
    compiled_message,
    configuration,
    operations,
)
from pilotage.apiserver.cel.messages import TYPE, Wanted, rewritten

VARIABLES = {"object": "dyn", "variables": "map"}


def made(text: str) -> Any:
    return configuration(evaluated(text, "Object"))


def evaluated(text: str, wanted: Wanted) -> Any:
    values = {"object": {"spec": {"replicas": 2}, "names": ["a", "b"]}, "variables": {}}
    return compiled_message(text, VARIABLES, wanted).evaluate(values, Spending())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Object{}", {}),
        ("Object{\n}", {}),
        (" Object { spec : Object . spec { replicas : 1 , } , } ", {"spec": {"replicas": 1}}),
        ("Object{spec: Object.spec{a: 1, b: 'x', c: [1, 2], d: {'k': 'v'}}}",
         {"spec": {"a": 1, "b": "x", "c": [1, 2], "d": {"k": "v"}}}),
        ("Object{spec: Object.spec{containers: object.names.map(n, Object.spec.containers{name: n})}}",
         {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
        ("Object{?a: optional.none(), ?b: optional.of(1), ?c: object.?missing, ?d: object.?names}",
         {"b": 1, "d": ["a", "b"]}),
        ("object.spec.replicas > 1 ? Object{a: 1} : Object{b: 'x'}", {"a": 1}),
        ("object.spec.replicas > 9 ? Object{a: 1} : Object{b: 'x'}", {"b": "x"}),
        ("Object{a: object.spec.replicas > 1 ? {'b': 1} : {}, c: 2}", {"a": {"b": 1}, "c": 2}),
        (".Object{a: 1}", {"a": 1}),
        ("true ? .Object{a: 1} : .Object{}", {"a": 1}),
        ("cel.bind(x, 1, Object{a: x})", {"a": 1}),
        ("(Object{a: 1})", {"a": 1}),
        ("Object{namespace: 'x', package: 1}", {"namespace": "x", "package": 1}),
        ("Object{`foo-bar`: 1}", {"foo-bar": 1}),
        ("Object{a: Object{b: 1}.b}", {"a": 1}),
        ("Object{a: has(Object{b: 1}.b), b: has(Object{}.b)}", {"a": True, "b": False}),
        ("Object{a: Object{b: 1} == Object{b: 1}, c: Object{b: 1} == Object{b: 2}}", {"a": True, "c": False}),
        ("Object{a: 1 in {1: 2}, b: 'x' in {}}", {"a": True, "b": False}),
        # What looks like a literal inside of strings and comments stays as it is.
        ("Object{a: 'Object{b: 1}'}", {"a": "Object{b: 1}"}),
        ('Object{a: "Object{\\"b\\": 1}"}', {"a": 'Object{"b": 1}'}),
        ('Object{a: """Object{b: "1"}""", b: 2}', {"a": 'Object{b: "1"}', "b": 2}),
        ("Object{a: '''it's {\n}''', b: 2}", {"a": "it's {\n}", "b": 2}),
        ("Object{a: r'\\{', b: R\"\\'}\", c: r'''\\}'\"{'''}", {"a": "\\{", "b": "\\'}", "c": "\\}'\"{"}),
        ("Object{a: '\\'}', b: \"\\\\\"}", {"a": "'}", "b": "\\"}),
        ("Object{a: b'x', b: br'{\\d'}", {"a": "eA==", "b": "e1xk"}),
        ("Object{ // Object{ ' \n a: 1 // }\n}", {"a": 1}),
        ("Object{a: '//', b: 4 / 2}", {"a": "//", "b": 2}),
        ("Object{a: 1e3, b: 0x1F, c: 5u, d: 1.5, e: -2, f: null}",
         {"a": 1000.0, "b": 31, "c": 5, "d": 1.5, "e": -2, "f": None}),
        ("Object{a: timestamp('2020-01-01T00:00:00Z'), b: duration('90s'), c: duration('1.5s')}",
         {"a": "2020-01-01T00:00:00Z", "b": "90s", "c": "1.5s"}),
    ],
)  # fmt: skip
def test_literals(text: str, value: Any) -> None:
    assert made(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[]", []),
        ('[JSONPatch{op: "remove", path: "/a"}]', [{"op": "remove", "path": "/a"}]),
        ('[JSONPatch{op: "add", path: "/a/" + jsonpatch.escapeKey("x/y~z"), value: Object.spec{b: [Object.spec.b{}]}}]',
         [{"op": "add", "path": "/a/x~1y~0z", "value": {"b": [{}]}}]),
        ("true ? [JSONPatch{op: 'a', from: '/b'}] : []", [{"op": "a", "path": "", "from": "/b"}]),
        ("[JSONPatch{op: 'a'}] + object.names.map(n, JSONPatch{op: n, value: 1})",
         [{"op": "a", "path": ""}, {"op": "a", "path": "", "value": 1}, {"op": "b", "path": "", "value": 1}]),
    ],
)  # fmt: skip
def test_lists_of_patches(text: str, value: Any) -> None:
    assert operations(evaluated(text, "list(JSONPatch)")) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[{'op': 'add'}]", "should evaluate to array of JSONPatch"),
        ("[Object{}]", "should evaluate to array of JSONPatch"),
        ("object.names", "should evaluate to array of JSONPatch"),
        ("object.spec", "should evaluate to array of JSONPatch"),
        ("[JSONPatch{op: 1}]", "unexpected type int for JSONPatchType 'op' field"),
        ("[JSONPatch{op: 'add', value: Object.spec{a: Object.spec.b{}}}]", 'unexpected type name "Object.spec.b"'),
    ],
)
def test_lists_that_are_no_patch(text: str, why: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        operations(evaluated(text, "list(JSONPatch)"))
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted", "why"),
    [
        ("'text'", "Object", "must evaluate to Object but got string"),
        ("Object.spec.metadata{}", "Object", "must evaluate to Object but got Object.spec.metadata"),
        ("{'spec': {'replicas': 1}}", "Object", "must evaluate to Object but got map"),
        ("[Object{}]", "Object", "must evaluate to Object but got list"),
        ("JSONPatch{op: 'add'}", "list(JSONPatch)", "must evaluate to list(JSONPatch) but got JSONPatch"),
        ("1", "list(JSONPatch)", "must evaluate to list(JSONPatch) but got int"),
        ("[JSONPatch{ops: 'add'}]", "list(JSONPatch)", "undefined field 'ops'"),
        ("Object{'a': 1}", "Object", "expecting the name of a field"),
        ("Object{a.b: 1}", "Object", "expecting ':'"),
        ("Object{a + 'b': 1}", "Object", "expecting ':'"),
        ("Object{a}", "Object", "expecting ':'"),
        ("Object{, a: 1}", "Object", "expecting the name of a field"),
        ("Object{a: 1,, b: 1}", "Object", "expecting the name of a field"),
        ("Object{true: 1}", "Object", "expecting the name of a field"),
        ("Object{?: 1}", "Object", "expecting the name of a field"),
        ("Object{a: 1", "Object", "Syntax error"),
        ("Object{a: 1}}", "Object", "Syntax error"),
        ("Object{a: 'x}", "Object", "Syntax error"),
        ("Objects{a: 1}", "Object", "undeclared reference to 'Objects'"),
        ("x.Object{a: 1}", "Object", "undeclared reference to 'x.Object'"),
        ("object.names[0] Object{}", "Object", "Syntax error"),
        ("object.names[0].Object{}", "Object", "Syntax error"),
        ("Object", "Object", "undeclared reference to 'Object'"),
        ("", "Object", "Syntax error"),
        ("Object{}" * 4000, "Object", "expression too long"),
    ],
)
def test_what_is_no_such_literal(text: str, wanted: Any, why: str) -> None:
    with pytest.raises(CompileError) as caught:
        compiled_message(text, VARIABLES, wanted)
    assert why in str(caught.value)


def test_errors_name_the_line_and_no_rewritten_text() -> None:
    with pytest.raises(CompileError) as caught:
        compiled_message("Object{\n  spec: Object.spec{\n    replicas: objct.x\n  }\n}", VARIABLES, "Object")
    assert "<input>:3: undeclared reference to 'objct.x'" in str(caught.value)
    assert TYPE not in str(caught.value) and " | " not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Object{spec: Object.specx{}}", 'unexpected type name "Object.specx", expected "Object.spec"'),
        ("Object{spec: Object{}}", 'unexpected type name "Object", expected "Object.spec"'),
        ("Object{a: [[Object.b{}]]}", 'unexpected type name "Object.b", expected "Object.a"'),
        ("Object{a: {'k': Object.a.k{}}}", 'unexpected type name "Object.a.k", expected "Object.a"'),
        ("Object{a: Object.a{b: true ? Object.a.c{} : Object.a.b{}}}", 'expected "Object.a.b"'),
        ("Object{a: {1: 2}}", 'map key "1" is not a string'),
        ("Object{a: 1.0 / 0.0}", "could not be marshalled to JSON"),
        ("Object{a: type(1)}", "could not be marshalled to JSON"),
        ("Object{a: object.?spec}", "an optional that nobody unwrapped"),
        ("Object{a: object.missing}", "no such key: missing"),
        ("object", "must evaluate to Object but got map"),
        ("true ? Object.spec{} : Object.spec{}", "must evaluate to Object but got Object.spec"),
    ],
)
def test_values_that_are_no_configuration(text: str, why: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        made(text)
    assert why in str(caught.value)


# Properties

names = st.sampled_from(["a", "b1", "_c", "namespace", "Object", "JSONPatch", "r", "b", "br"])
strings = st.text(alphabet="ab'\"`\\{}[]:,?/ \n.Objectr$", max_size=12)
spaces = st.sampled_from(["", " ", "\n", " // Object{ ' \"\n", "\t"])


def string_literal(text: str, style: int) -> str:
    escaped = json.dumps(text)[1:-1]
    if style == 1:
        return "'" + escaped.replace('\\"', '"').replace("'", "\\'") + "'"
    if style == 2:
        return '"""' + escaped + '"""'
    if style == 3 and "'" not in text and "\n" not in text and not text.endswith("\\"):  # which the runtime refuses
        return f"r'{text}'"
    return f'"{escaped}"'


@st.composite
def literals(draw: Any, path: str = "Object", depth: int = 0) -> tuple[str, Any]:
    """A literal of the type `path`, and its value."""
    fields = draw(st.lists(names, unique=True, max_size=3))
    parts: list[str] = []
    value: dict[str, Any] = {}
    for name in fields:
        text, item = draw(values(f"{path}.{name}", depth + 1))
        gap = draw(spaces)
        match draw(st.integers(0, 3)):
            case 0:
                parts.append(f"{gap}?{name}{gap}:{gap}optional.of({text}){gap}")
                value[name] = item
            case 1:
                parts.append(f"{gap}?{name}: 1 == 1 ? optional.none() : optional.of({text})")
            case _:
                parts.append(f"{gap}{name}{gap}:{gap}{text}{gap}")
                value[name] = item
    comma = "," if parts and draw(st.booleans()) else ""
    gap = draw(spaces)
    return f"{path.replace('.', gap + '.' + gap)}{gap}{{{','.join(parts)}{comma}}}", value


def values(path: str, depth: int) -> st.SearchStrategy[tuple[str, Any]]:
    scalars = st.one_of(
        st.tuples(strings, st.integers(0, 3)).map(lambda drawn: (string_literal(*drawn), drawn[0])),
        st.integers(-9, 9).map(lambda number: (f"{number}", number)),
        st.booleans().map(lambda truth: ("true" if truth else "false", truth)),
    )
    if depth > 2:
        return scalars
    message = literals(path, depth)
    return st.one_of(
        scalars,
        message,
        st.lists(message, max_size=2).map(
            lambda items: (f"[{', '.join(text for text, _ in items)}]", [value for _, value in items])
        ),
        message.map(lambda item: (f"{{'k': dyn({item[0]})}}", {"k": item[1]})),
        st.tuples(message, message).map(lambda pair: (f"(1 < 2 ? {pair[0][0]} : {pair[1][0]})", pair[0][1])),
    )


@given(literals())
def test_any_literal_has_its_value(literal: tuple[str, Any]) -> None:
    text, value = literal
    assert made(text) == value
    assert rewritten(text)[1] == "Object"


@given(st.text(alphabet="Object.{}[]():,?'\"`\\ \nabr1/", max_size=40))
def test_any_text_is_refused_or_has_a_value(text: str) -> None:
    try:
        changed, _ = rewritten(text)
    except CompileError:
        return
    assert changed.count("\n") == text.count("\n")


@given(strings)
def test_text_without_literals_stays_as_it_is(text: str) -> None:
    source = f"[{json.dumps(text)}, r'''x''', {{'a': [1]}}['a'][0] == 1 ? object : variables]"
    assert rewritten(source)[0] == source
