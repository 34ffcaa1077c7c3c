"""Additional printer columns: small JSON paths into an object, printed in tables.

Stands apart from the columns of built-in kinds because these are data: parsed once when a definition is accepted.
Source: `additionalPrinterColumns` of custom resources; https://kubernetes.io/docs/reference/kubectl/jsonpath/ as far as
columns use it (fields, indices, `[*]`, filters for equality).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pilotage.apiserver.core.columns.column import AGE, NAME, Cell, Column, age_of
from pilotage.apiserver.core.record import Document

_STEP = re.compile(
    r"""\.(?P<field>(?:[^.\[\\]|\\.)+)
      | \[(?P<index>-?\d+)\]
      | \[(?P<all>\*)\]
      | \['(?P<quoted>[^']+)'\]
      | \[\?\(\s*@\.(?P<key>[\w.\-/]+)\s*==\s*(?P<value>"[^"]*"|'[^']*'|[\w.\-]+)\s*\)\]""",
    re.VERBOSE,
)
PATH_CHARACTERS_MAX = 1_024

Step = tuple[str, str, str]  # what, name or number or key, value


class PathError(ValueError):
    """The text is no path."""


def parse_path(text: str) -> tuple[Step, ...]:
    """The steps of a JSON path. Raises PathError."""
    path = text.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    if not path.startswith((".", "[")) or len(path) > PATH_CHARACTERS_MAX:
        raise PathError(f"{text[:80]!r} is not a simple JSON path with a leading dot")
    steps: list[Step] = []
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            raise PathError(f"unexpected {path[at : at + 20]!r} in the JSON path {text[:80]!r}")
        at = found.end()
        if found["field"]:
            steps.append(("field", re.sub(r"\\(.)", r"\1", found["field"]), ""))
        elif found["quoted"]:
            steps.append(("field", found["quoted"], ""))
        elif found["index"]:
            steps.append(("index", found["index"], ""))
        elif found["all"]:
            steps.append(("all", "", ""))
        else:
            steps.append(("filter", found["key"], found["value"].strip("\"'")))
    return tuple(steps)


def first(document: Any, steps: tuple[Step, ...]) -> Any:
    """The first value at a path; None when there is none."""
    if not steps:
        return document
    (what, name, wanted), rest = steps[0], steps[1:]
    if what == "field":
        return first(document.get(name), rest) if isinstance(document, dict) else None
    if isinstance(document, dict) and what == "all":
        document = list(document.values())
    if not isinstance(document, list):
        return None
    if what == "index":
        index = int(name)
        return first(document[index], rest) if -len(document) <= index < len(document) else None
    for item in document:
        if what == "all" or _text(first(item, tuple(("field", key, "") for key in name.split(".")))) == wanted:
            found = first(item, rest)
            if found is not None:
                return found
    return None


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def columns(definitions: list[Mapping[str, Any]] | None) -> tuple[Column, ...]:
    """The columns of a version: the name first; the age where nothing is said. Raises PathError."""
    if not definitions:
        return (NAME, AGE)
    return (NAME, *(_column(each) for each in definitions))


def _column(definition: Mapping[str, Any]) -> Column:
    steps, kind = parse_path(definition["jsonPath"]), definition["type"]

    def read(document: Document, now: datetime) -> Cell:
        value = first(document, steps)
        if value is None:
            return None
        match kind:
            case "date":
                return age_of(str(value), now)
            case "integer":
                return int(value)
            case "number":
                return str(value)
            case "boolean":
                return value if isinstance(value, bool) else None
            case _:
                return _text(value)

    return Column(
        definition["name"],
        read,
        type=kind,
        priority=definition.get("priority") or 0,
        format=definition.get("format") or "",
    )
