"""Whether an optional could reach one of our functions: the runtime ends the process when it hands one to Python.

Stands apart from the compiler because it reads the checked expression, as the runtime writes it down. An optional stays
visible in the types unless it is put where any value may be; such places are few, and an expression that calls one of
our functions may not use them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

OURS = "kubernetes_"  # begins the name of every overload of our functions
# Types are forgotten by the first, an optional would hide in an optional by the others.
_FORGETFUL = frozenset(("to_dyn", "optional_of", "optional_ofNonZeroValue"))
_makes_optionals = re.compile(r"\.\s*\?|\[\s*\?|optional|first|last").search


def escapes(text: str, program: Any) -> bool:
    """Whether one may, in a compiled expression of this text."""
    if not _makes_optionals(text):
        return False
    # Its other reader is the gateway; here only expressions that have optionals need it.
    from cel.expr import checked_pb2
    from google.protobuf import any_pb2

    checked = checked_pb2.CheckedExpr()
    any_pb2.Any.FromString(program.serialize()).Unpack(checked)
    if not any(_ours(reference) for reference in checked.reference_map.values()):
        return False
    return any(_optional(checked, child) for node in _nodes(checked.expr) for child in _hiding(checked, node))


def _ours(reference: Any) -> bool:
    return any(each.startswith(OURS) for each in reference.overload_id)


def _optional(checked: Any, node: Any) -> bool:
    return bool(checked.type_map[node.id].abstract_type.name == "optional_type")


def _nodes(node: Any) -> Iterator[Any]:
    """An expression and everything in it."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        match node.WhichOneof("expr_kind"):
            case "select_expr":
                waiting.append(node.select_expr.operand)
            case "call_expr":
                waiting += _operands(node.call_expr)
            case "list_expr":
                waiting += node.list_expr.elements
            case "struct_expr":
                for entry in node.struct_expr.entries:
                    waiting += (entry.map_key, entry.value)
            case "comprehension_expr":
                loop = node.comprehension_expr
                waiting += (loop.iter_range, loop.accu_init, loop.loop_condition, loop.loop_step, loop.result)


def _operands(call: Any) -> list[Any]:
    return [*((call.target,) if call.HasField("target") else ()), *call.args]


def _hiding(checked: Any, node: Any) -> list[Any]:
    """The parts of a node that may be of any type there, or that Python is given."""
    kind = node.WhichOneof("expr_kind")
    if kind == "list_expr":
        unwrapped = set(node.list_expr.optional_indices)
        return [each for index, each in enumerate(node.list_expr.elements) if index not in unwrapped]
    if kind == "struct_expr":
        return [entry.value for entry in node.struct_expr.entries if not entry.optional_entry]
    if kind != "call_expr":
        return []
    reference = checked.reference_map[node.id]
    if _ours(reference) or not _FORGETFUL.isdisjoint(reference.overload_id):
        return _operands(node.call_expr)
    if "conditional" in reference.overload_id and not _optional(checked, node):
        return list(node.call_expr.args)
    return []
