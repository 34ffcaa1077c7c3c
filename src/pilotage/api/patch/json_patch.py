"""JSON Patch: a list of operations carried out in order, all or nothing.

Apart from the other patches because it alone addresses array elements by index and can test. Called by the API
server's PATCH handler for `application/json-patch+json`. The input document is never modified.

Specification: RFC 6902, pointers by RFC 6901.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pilotage.api.patch.errors import PatchError, PatchTestFailed

OPERATIONS_MAX = 10_000  # As the Kubernetes API server: a longer patch costs more than replacing the object.

# As the Kubernetes API server: a copy of a copy doubles, and thirty of them would fill any memory.
COPIED_BYTES_MAX = 3 * 1024 * 1024

_encode = msgspec.json.Encoder().encode
_VALUE_REQUIRED = frozenset({"add", "replace", "test"})
_FROM_REQUIRED = frozenset({"move", "copy"})
_OPERATIONS = _VALUE_REQUIRED | _FROM_REQUIRED | {"remove"}


def json_patch(document: Any, operations: Any, *, lenient: bool = False) -> Any:
    """The document after all operations; raises PatchError at the first that cannot be carried out.

    `lenient`: a member that is not there is null to a test, and may be replaced, as in Kubernetes' mutating policies.
    """
    if not isinstance(operations, Sequence) or isinstance(operations, (str, bytes)):
        raise PatchError.malformed("a JSON patch must be an array of operations")
    if len(operations) > OPERATIONS_MAX:
        raise PatchError.too_large(f"the JSON patch has {len(operations)} operations, at most {OPERATIONS_MAX} allowed")
    root = copy.deepcopy(document)
    copied = 0
    for index, operation in enumerate(operations):
        where = f"operation {index}"
        copied += _copied_bytes(root, operation, where)
        if copied > COPIED_BYTES_MAX:
            raise PatchError.too_large(f"the JSON patch copies more than {COPIED_BYTES_MAX} bytes in all")
        root = _carry_out(root, operation, where, lenient=lenient)
    return root


def _copied_bytes(root: Any, operation: Any, where: str) -> int:
    """How much a `copy` adds to the document, as JSON; 0 for every other operation."""
    if not isinstance(operation, Mapping) or operation.get("op") != "copy":
        return 0
    return len(_encode(_get(root, _tokens(operation.get("from"), f"{where}: from"), where)))


def _carry_out(root: Any, operation: Any, where: str, *, lenient: bool) -> Any:
    if not isinstance(operation, Mapping):
        raise PatchError.malformed(f"{where} is not an object")
    name = operation.get("op")
    if name not in _OPERATIONS:
        raise PatchError.malformed(f"{where}: unknown op {str(name)[:50]!r}")
    path = _tokens(operation.get("path"), f"{where} ({name}): path")
    where = f"{where} ({name} {operation['path'][:200]!r})"
    if name in _VALUE_REQUIRED and "value" not in operation:
        raise PatchError.malformed(f"{where}: value is missing")
    if name == "remove":
        return _remove(root, path, where)
    if name == "test":
        if not equal(_get(root, path, where, lenient=lenient), operation["value"]):
            raise PatchTestFailed.unprocessable(f"{where}: testing value failed")
        return root
    if name == "replace":
        _get(root, path, where, lenient=lenient)
        return _set(root, path, copy.deepcopy(operation["value"]), where, insert=False)
    if name == "add":
        return _set(root, path, copy.deepcopy(operation["value"]), where, insert=True)
    source = _tokens(operation.get("from"), f"{where}: from")
    moved = _get(root, source, where)
    if name == "copy":
        return _set(root, path, copy.deepcopy(moved), where, insert=True)
    if path[: len(source)] == source and len(path) > len(source):
        raise PatchError.unprocessable(f"{where}: cannot move a value into itself")
    return _set(_remove(root, source, where), path, moved, where, insert=True)


def equal(left: Any, right: Any) -> bool:
    """JSON equality: numbers by value, and a boolean is never a number (as Python would have it)."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def _tokens(pointer: Any, where: str) -> list[str]:
    if not isinstance(pointer, str):
        raise PatchError.malformed(f"{where} is missing or not a string")
    if pointer == "":
        return []
    if not pointer.startswith("/"):
        raise PatchError.malformed(f"{where} must start with '/': {pointer[:200]!r}")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]  # RFC 6901 section 4


def _index(array: list[Any], token: str, where: str, *, insert: bool) -> int:
    if insert and token == "-":  # noqa: S105 - a path token
        return len(array)
    if not token.isascii() or not token.isdigit() or (len(token) > 1 and token[0] == "0"):
        raise PatchError.unprocessable(f"{where}: {token[:200]!r} is not an array index")
    index = int(token) if len(token) < 10 else len(array) + 1  # Ten digits: out of bounds without parsing them.
    if index > len(array) or (index == len(array) and not insert):
        raise PatchError.unprocessable(f"{where}: index {token[:20]} is out of bounds of an array of {len(array)}")
    return index


def _get(root: Any, path: list[str], where: str, *, lenient: bool = False) -> Any:
    here = root
    for depth, token in enumerate(path, 1):
        if isinstance(here, dict):
            if token not in here:
                if lenient and depth == len(path):
                    return None
                raise PatchError.unprocessable(f"{where}: there is no {token[:200]!r}")
            here = here[token]
        elif isinstance(here, list):
            here = here[_index(here, token, where, insert=False)]
        else:
            raise PatchError.unprocessable(
                f"{where}: {token[:200]!r} is looked up in a value that is no object or array"
            )
    return here


def _set(root: Any, path: list[str], value: Any, where: str, *, insert: bool) -> Any:
    if not path:
        return value
    parent = _get(root, path[:-1], where)
    if isinstance(parent, dict):
        parent[path[-1]] = value
    elif isinstance(parent, list):
        index = _index(parent, path[-1], where, insert=insert)
        if insert:
            parent.insert(index, value)
        else:
            parent[index] = value
    else:
        raise PatchError.unprocessable(f"{where}: the parent is no object or array")
    return root


def _remove(root: Any, path: list[str], where: str) -> Any:
    if not path:
        raise PatchError.unprocessable(f"{where}: the whole document cannot be removed")
    parent = _get(root, path[:-1], where)
    if isinstance(parent, list):
        del parent[_index(parent, path[-1], where, insert=False)]
    elif isinstance(parent, dict) and path[-1] in parent:
        del parent[path[-1]]
    else:
        raise PatchError.unprocessable(f"{where}: there is no {path[-1][:200]!r}")
    return root
