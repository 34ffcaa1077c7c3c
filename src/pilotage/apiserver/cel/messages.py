"""Message literals of mutating policies, `Object.spec{replicas: 1}` and `JSONPatch{op: "remove", …}`.

Stands apart because the runtime makes messages of compiled-in types only, and the fields of an Object are those of
whatever is written. So a literal is rewritten into a map literal with one more entry, the name of its type; everything
else stays as it is, line by line. This is done on tokens: text inside of strings and comments is never looked at. The
value of an expression is then checked, because a type's name must be the path of the field it is in, and freed of the
names. Differs from Kubernetes: what it tells of types when a policy is written is told here when it is evaluated,
unless the whole expression is one literal.

Source: KEP-3962, https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from pilotage.apiserver.cel.expression import (
    EXPRESSION_CHARACTERS_MAX,
    CompileError,
    EvaluationError,
    Expression,
    Variables,
    compiled,
)

OBJECT, PATCH = "Object", "JSONPatch"
PATCH_FIELDS = ("op", "path", "from", "value")
# A key no field of Kubernetes has: of the private use area.
TYPE = "\ue000type"

Wanted = Literal["Object", "list(JSONPatch)"]

_token = re.compile(
    r"""
    (?P<space>  (?: [\t\n\f\r ] | //[^\n]* )+ )
  | (?P<string> [bB]?[rR] (?: ""\"[\s\S]*?""\" | '''[\s\S]*?''' | "[^"\n\r]*" | '[^'\n\r]*' )
              | [bB]? (?: ""\"(?:\\[\s\S]|[^\\])*?""\" | '''(?:\\[\s\S]|[^\\])*?'''
                        | "(?:\\[^\n\r]|[^"\\\n\r])*" | '(?:\\[^\n\r]|[^'\\\n\r])*' ) )
  | (?P<number> 0x[0-9a-fA-F]+[uU]? | (?: [0-9]+\.[0-9]+ | \.[0-9]+ | [0-9]+ )(?:[eE][+-]?[0-9]+)?[uU]? )
  | (?P<name>   [A-Za-z_][A-Za-z0-9_]* )
  | (?P<quoted> `[^`\n\r]*` )
  | (?P<mark>   [\s\S] )
    """,
    re.VERBOSE,
).match


@dataclass(slots=True)
class _Open:
    """A bracket that is not closed yet."""

    bracket: str
    message: str = ""  # its type, when it is a message's that is rewritten
    first: bool = False  # whether the expression begins with it
    awaits: str = ""  # of a message: what comes next, a "field", its ":", or a value ("")


@dataclass(slots=True)
class _Rewriting:
    """The tokens so far: `written[i]` stands for `tokens[i]`, in between is what nobody reads."""

    written: list[str] = field(default_factory=list)
    significant: list[int] = field(default_factory=list)  # where in `written` the tokens are that are no space
    tokens: list[tuple[str, str]] = field(default_factory=list)  # kind and text, one for each of `significant`
    opened: list[_Open] = field(default_factory=list)
    whole: str = ""  # the type of the literal that began and has ended


def rewritten(text: str) -> tuple[str, str]:
    """The expression without message literals, and its type if it is nothing but one literal.

    Raises CompileError for what is no message literal; what else is wrong the compiler will find.
    """
    state = _Rewriting()
    for kind, symbol in _tokens(text):
        if kind == "space":
            state.written.append(symbol)
        elif kind == "mark" and symbol in "\"'`":
            return text, ""  # a string without an end
        else:
            _take(state, kind, symbol)
    return "".join(state.written), state.whole


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        found = _token(text, position)
        assert found is not None and found.lastgroup is not None  # any character is a mark
        yield found.lastgroup, found.group()
        position = found.end()


def _take(state: _Rewriting, kind: str, symbol: str) -> None:
    inside = state.opened[-1] if state.opened else None
    state.whole = ""  # something follows
    output = symbol
    if symbol == "}" and inside is not None and inside.message and inside.awaits == ":":
        raise _unexpected(symbol, "':'")
    if inside is not None and inside.message and inside.awaits and symbol != "}":
        output = _field(inside, kind, symbol)
    elif symbol == "{" and kind == "mark":
        output = _open(state)
    elif symbol in ("(", "["):
        state.opened.append(_Open(symbol))
    elif symbol in ("}", ")", "]") and inside is not None:
        state.opened.pop()
        if inside.first:
            state.whole = inside.message or "map"
    elif symbol == "," and inside is not None and inside.message:
        inside.awaits = "field"
    state.significant.append(len(state.written))
    state.tokens.append((kind, symbol))
    state.written.append(output)


def _field(inside: _Open, kind: str, symbol: str) -> str:
    """A field's name as the key of a map, or what stands around it."""
    if inside.awaits == ":":
        if symbol != ":":
            raise _unexpected(symbol, "':'")
        inside.awaits = ""
        return symbol
    if symbol == "?" and inside.awaits == "field":
        inside.awaits = "name"  # after the mark of an optional one
        return symbol
    if kind not in ("name", "quoted") or symbol in ("true", "false", "null", "in"):
        raise _unexpected(symbol, "the name of a field")
    name = symbol.strip("`")
    if inside.message == PATCH and name not in PATCH_FIELDS:
        raise CompileError(f"compilation failed: undefined field '{name}'")
    inside.awaits = ":"
    return json.dumps(name)


def _unexpected(symbol: str, wanted: str) -> CompileError:
    return CompileError(f"compilation failed: Syntax error: mismatched input {symbol[:40]!r} expecting {wanted}")


def _open(state: _Rewriting) -> str:
    """A brace begins a message when a type's name stands before it, a map otherwise."""
    tokens = state.tokens
    start = len(tokens)
    names: list[str] = []
    while start > 0 and tokens[start - 1][0] == "name":
        start -= 1
        names.insert(0, tokens[start][1])
        if start == 0 or tokens[start - 1][1] != ".":
            break
        start -= 1
    name = ".".join(names)
    known = name in (OBJECT, PATCH) or name.startswith(f"{OBJECT}.")
    state.opened.append(_Open("{", name if known else "", start == 0, "field" if known else ""))
    if not known:
        return "{"
    for index in state.significant[start:]:
        state.written[index] = ""
    return f'{{"{TYPE}": dyn("{name}"), '


def compiled_message(text: str, variables: Variables, wanted: Wanted) -> Expression:
    """An expression that makes an Object or JSONPatches, for `configuration` or `operations`. Raises CompileError."""
    return _compiled(text.strip(), tuple(sorted(variables.items())), wanted)


@lru_cache(maxsize=1024)
def _compiled(text: str, variables: tuple[tuple[str, str], ...], wanted: Wanted) -> Expression:
    if len(text) > EXPRESSION_CHARACTERS_MAX:
        raise CompileError(f"expression too long: may not be more than {EXPRESSION_CHARACTERS_MAX} characters")
    changed, whole = rewritten(text)
    try:
        expression = compiled(changed, dict(variables))
    except CompileError as error:
        raise CompileError(_without_columns(str(error)) if changed != text else str(error)) from None
    possible = ("list", "dyn") if wanted != OBJECT else ("map", "dyn")
    if expression.result not in possible or (whole and whole != wanted):
        raise CompileError(f"must evaluate to {wanted} but got {whole or expression.result}")
    return expression


def _without_columns(message: str) -> str:
    """A compiler's complaint about rewritten text: the lines are those of the original, nothing else is."""
    lines = [line for line in message.split("\n") if not line.startswith(" | ")]
    return re.sub(r"<input>:(\d+):\d+", r"<input>:\1", "\n".join(lines))


def configuration(value: Any) -> dict[str, Any]:
    """The object an expression made. Raises EvaluationError."""
    name = value.get(TYPE, "map") if isinstance(value, dict) else type(value).__name__
    if name != OBJECT:
        raise EvaluationError(f"must evaluate to {OBJECT} but got {name}")
    made: dict[str, Any] = plain(value)
    return made


def operations(value: Any) -> list[dict[str, Any]]:
    """The JSON patch an expression made. Raises EvaluationError."""
    made: list[dict[str, Any]] = []
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict) or each.get(TYPE) != PATCH:
            raise EvaluationError(f"type mismatch: {PATCH}Type.expression should evaluate to array of {PATCH}")
        for name in ("op", "path", "from"):
            if not isinstance(each.get(name, ""), str):
                kind = type(each[name]).__name__
                raise EvaluationError(f"unexpected type {kind} for {PATCH}Type '{name}' field")
        operation = {"op": each.get("op", ""), "path": each.get("path", "")}
        if each.get("from"):
            operation["from"] = each["from"]
        if "value" in each:
            operation["value"] = plain(each["value"])
        made.append(operation)
    return made


def plain(value: Any, path: str = "") -> Any:
    """What an expression made, as JSON has it. Raises EvaluationError.

    `path` is the name messages must have here; without one the first to come, on the way down, says it.
    """
    if isinstance(value, dict):
        return _plain_map(value, path)
    if isinstance(value, list):
        return [plain(item, path) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, datetime.timedelta):
        return f"{value.total_seconds():.9f}".rstrip("0").rstrip(".") + "s"
    if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise EvaluationError(f"{str(value)[:80]} could not be marshalled to JSON")


def _plain_map(value: dict[Any, Any], path: str) -> dict[str, Any]:
    name = value.get(TYPE)
    if name is not None and path and name != path:
        why = "which matches field name path from root Object type"
        raise EvaluationError(f'type mismatch: unexpected type name "{name}", expected "{path}", {why}')
    result: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise EvaluationError(f"map key {json.dumps(str(key))} is not a string")
        if key != TYPE:
            # Below a map, whose keys name no fields, the path stays.
            result[key] = plain(item, f"{name}.{key}" if name is not None else path)
    return result
