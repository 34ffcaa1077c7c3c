"""One column, and the helpers all kinds share: paths, ages, counts, selectors.

Stands apart so that a kind's columns read as a list. Ages follow kubectl's rule of two significant units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilotage.api.timestamp import parse
from pilotage.apiserver.core.record import Document

Cell = str | int | bool | None
Reader = Callable[[Document, datetime], Cell]

NONE = "<none>"
UNKNOWN = "<unknown>"


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and how to fill the cells below it."""

    name: str
    read: Reader
    type: str = "string"
    priority: int = 0  # above 0: only with -o wide
    format: str = ""

    def definition(self) -> Document:
        """The entry of `columnDefinitions`."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": "",
            "priority": self.priority,
        }

    def cell(self, document: Document, now: datetime) -> Cell:
        """The cell of one object. Status may hold anything a client wrote, so a reader that trips shows `<unknown>`."""
        try:
            return self.read(document, now)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return UNKNOWN


def dig(document: Document, path: str) -> Any:
    """The value at a dotted path, None when any step is missing."""
    value: Any = document
    for key in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text(path: str, default: str = "") -> Reader:
    """The value at a path as text."""

    def read(document: Document, now: datetime) -> Cell:
        value = dig(document, path)
        if isinstance(value, bool):
            return "true" if value else "false"
        return default if value is None or value == "" else str(value)

    return read


def number(path: str, default: int = 0) -> Reader:
    """The value at a path as a number."""

    def read(document: Document, now: datetime) -> Cell:
        value = dig(document, path)
        return default if value is None else int(value)

    return read


def count(path: str) -> Reader:
    """How many entries the list or map at a path has."""
    return lambda document, now: len(dig(document, path) or ())


def joined(path: str, default: str = NONE) -> Reader:
    """The list at a path, comma separated."""
    return lambda document, now: ",".join(map(str, dig(document, path) or ())) or default


def age_of(timestamp: str | None, now: datetime) -> str:
    """How long ago, as kubectl writes it."""
    if not timestamp:
        return UNKNOWN
    return duration(int((now - parse(timestamp)).total_seconds()))


def since(path: str) -> Reader:
    """The age of the timestamp at a path."""
    return lambda document, now: age_of(dig(document, path), now)


def duration(seconds: int) -> str:
    """`95` → `95s`, `3700` → `61m`, as k8s.io/apimachinery's HumanDuration: finer the shorter it is."""
    if seconds < 0:
        return "0s" if seconds >= -2 else "<invalid>"
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    hours = seconds // 3600
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    years = days // 365
    if years < 8:
        return _two(years, "y", days % 365, "d")
    return f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def selector_text(selector: Mapping[str, Any] | None) -> str:
    """A LabelSelector as text."""
    selector = selector or {}
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for item in selector.get("matchExpressions") or ():
        values = f" ({','.join(sorted(item.get('values') or ()))})" if item.get("values") else ""
        match item["operator"]:
            case "Exists":
                parts.append(item["key"])
            case "DoesNotExist":
                parts.append("!" + item["key"])
            case operator:
                parts.append(f"{item['key']} {operator.lower()}{values}")
    return ",".join(parts) or NONE


def map_text(value: Mapping[str, str] | None) -> str:
    """A plain map as `a=b,c=d`."""
    return ",".join(f"{key}={item}" for key, item in sorted((value or {}).items())) or NONE


def container_names(path: str) -> Reader:
    """Names of the containers of the pod spec at a path."""
    return lambda document, now: ",".join(item["name"] for item in dig(document, path + ".containers") or ())


def container_images(path: str) -> Reader:
    """Images of the containers of the pod spec at a path."""
    return lambda document, now: ",".join(item.get("image", "") for item in dig(document, path + ".containers") or ())


NAME = Column("Name", text("metadata.name"), format="name")
AGE = Column("Age", since("metadata.creationTimestamp"))


def name_and_age() -> tuple[Column, ...]:
    """What a kind without columns of its own shows."""
    return (NAME, Column("Created At", text("metadata.creationTimestamp"), type="date"))


def condition(document: Document, type_: str) -> Document:
    """A status condition by type, {} when absent."""
    for item in dig(document, "status.conditions") or ():
        if item.get("type") == type_:
            found: Document = item
            return found
    return {}
