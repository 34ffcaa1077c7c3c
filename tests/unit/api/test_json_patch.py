"""JSON Patch: the operations, their refusals, and the round trip over arbitrary documents."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.api.patch import PatchError, json_patch

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab/~", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3),
    max_leaves=8,
)


def test_copies_of_copies_are_bounded() -> None:
    doubling = [{"op": "copy", "from": "/a", "path": f"/a/{number}"} for number in range(60)]
    with pytest.raises(PatchError) as caught:
        json_patch({"a": {"text": "x" * 100}}, doubling)
    assert caught.value.code == 413


@pytest.mark.parametrize(
    ("document", "operation", "expected"),
    [
        pytest.param({"a": 1}, {"op": "add", "path": "/b", "value": 2}, {"a": 1, "b": 2}, id="add a field"),
        pytest.param({"a": [1, 3]}, {"op": "add", "path": "/a/1", "value": 2}, {"a": [1, 2, 3]}, id="insert"),
        pytest.param({"a": [1]}, {"op": "add", "path": "/a/-", "value": 2}, {"a": [1, 2]}, id="append"),
        pytest.param({"a": 1}, {"op": "replace", "path": "", "value": [2]}, [2], id="replace the document"),
        pytest.param({"a": 1}, {"op": "replace", "path": "/a", "value": 2}, {"a": 2}, id="replace a field"),
        pytest.param({"a": [1, 2]}, {"op": "remove", "path": "/a/0"}, {"a": [2]}, id="remove an element"),
        pytest.param({"a": 1}, {"op": "move", "from": "/a", "path": "/b"}, {"b": 1}, id="move"),
        pytest.param({"a": [1]}, {"op": "copy", "from": "/a", "path": "/b"}, {"a": [1], "b": [1]}, id="copy"),
        pytest.param({"a/b": {"~": 1}}, {"op": "remove", "path": "/a~1b/~0"}, {"a/b": {}}, id="escaped names"),
        pytest.param({"a": 1.0}, {"op": "test", "path": "/a", "value": 1}, {"a": 1.0}, id="numbers equal by value"),
    ],
)
def test_operation(document: Any, operation: dict[str, Any], expected: Any) -> None:
    before = copy.deepcopy(document)
    assert json_patch(document, [operation]) == expected
    assert document == before


@pytest.mark.parametrize(
    ("operation", "code", "text"),
    [
        pytest.param({"op": "test", "path": "/a", "value": 2}, 422, "testing value failed", id="test differs"),
        pytest.param({"op": "test", "path": "/l/0", "value": True}, 422, "testing value failed", id="1 is not true"),
        pytest.param({"op": "remove", "path": "/zz"}, 422, "there is no 'zz'", id="remove what is not there"),
        pytest.param({"op": "add", "path": "/x/y", "value": 1}, 422, "there is no 'x'", id="parent missing"),
        pytest.param({"op": "add", "path": "/l/5", "value": 1}, 422, "out of bounds", id="index out of bounds"),
        pytest.param({"op": "add", "path": "/l/01", "value": 1}, 422, "not an array index", id="leading zero"),
        pytest.param({"op": "replace", "path": "/l/-", "value": 1}, 422, "not an array index", id="replace past end"),
        pytest.param({"op": "move", "from": "/o", "path": "/o/p/q"}, 422, "into itself", id="move into itself"),
        pytest.param({"op": "jump", "path": "/a"}, 400, "unknown op", id="unknown op"),
        pytest.param({"op": "add", "path": "/a"}, 400, "value is missing", id="value missing"),
        pytest.param({"op": "add", "path": "a", "value": 1}, 400, "must start with '/'", id="relative pointer"),
        pytest.param({"op": "copy", "path": "/a"}, 400, "from is missing", id="from missing"),
    ],
)
def test_refusal(operation: dict[str, Any], code: int, text: str) -> None:
    with pytest.raises(PatchError, match=text) as refused:
        json_patch({"a": 1, "l": [1], "o": {"p": {}}}, [operation])
    assert refused.value.code == code


@given(JSON, JSON)
def test_removing_what_was_added_gives_the_document_back(document: Any, value: Any) -> None:
    root = {"document": document}
    there = [{"op": "add", "path": "/new", "value": value}]
    assert json_patch(json_patch(root, there), [{"op": "remove", "path": "/new"}]) == root


@given(JSON, JSON)
def test_replacing_everything_gives_the_other_document(left: Any, right: Any) -> None:
    operations = [{"op": "replace", "path": "", "value": right}, {"op": "test", "path": "", "value": right}]
    assert json_patch(left, operations) == right
