"""A YAML document whose every part knows its line, for configuration files that are refused with file and line.

Apart from the plugins, which each read their own part, so that all of them complain in the same way. Collects every
problem before it raises: who corrects a file wants the whole list. Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

import yaml

from pilotage.kit.errors import UsageError

T = TypeVar("T")
PROBLEMS_MAX = 20


class Problems:
    """What is wrong with one file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: list[tuple[int, str]] = []

    def add(self, node: yaml.Node, message: str) -> None:
        self.found.append((node.start_mark.line + 1, message))

    def check(self) -> None:
        """Raises `UsageError` with one line per problem, in the order of the file."""
        if self.found:
            lines = [f"{self.path}:{line}: {message}" for line, message in sorted(self.found)[:PROBLEMS_MAX]]
            raise UsageError("\n".join(lines))


class Section:
    """One mapping. What is read and wrong becomes a problem and yields the default; `end` finds unknown keys."""

    def __init__(self, node: yaml.Node | None, problems: Problems, what: str) -> None:
        self.problems = problems
        self.what = what
        self.node = node if node is not None else yaml.MappingNode("tag:yaml.org,2002:map", [])
        self._asked: set[str] = set()
        self._items: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value in self._items:
                    problems.add(key, f"{what}: {key.value!r} is given twice")
                self._items[str(key.value)] = (key, value)
        elif node is not None and not _is_null(node):
            problems.add(node, f"{what}: must be a mapping of options")

    def problem(self, message: str, key: str = "") -> None:
        node = self._items[key][1] if key in self._items else self.node
        if node.start_mark is None:  # an empty section has no place of its own
            self.problems.found.append((1, f"{self.what}: {message}"))
        else:
            self.problems.add(node, f"{self.what}: {message}")

    def has(self, key: str) -> bool:
        return key in self._items

    def _node(self, key: str) -> yaml.Node | None:
        self._asked.add(key)
        item = self._items.get(key)
        return None if item is None or _is_null(item[1]) else item[1]

    def text(self, key: str, default: str | None = "", *, choices: Iterable[str] = ()) -> str:
        """One scalar as text; without a default it is required."""
        node = self._node(key)
        allowed = tuple(choices)
        if node is None:
            if default is None:
                self.problem(f"{key} is missing")
            return default or ""
        if not isinstance(node, yaml.ScalarNode):
            self.problem(f"{key} must be one value", key)
        elif allowed and node.value not in allowed:
            self.problem(f"{key}: {node.value!r} is not one of {', '.join(allowed)}", key)
        else:
            return str(node.value)
        return default or (allowed[0] if allowed else "")

    def convert(self, key: str, function: Callable[[str], T], default: T | None = None) -> T:
        """One scalar through `function`, whose ValueError or UsageError becomes a problem."""
        text = self.text(key, None if default is None else "")
        try:
            if text:
                return function(text)
        except (ValueError, UsageError) as error:
            self.problem(f"{key}: {error}", key)
        return default  # type: ignore[return-value]  # never used: a problem was noted

    def integer(self, key: str, default: int, *, least: int = 0, most: int = 1 << 31) -> int:
        return int(self._number(key, default, least, most, int))

    def number(self, key: str, default: float, *, least: float = 0.0, most: float = 1e9) -> float:
        return self._number(key, default, least, most, float)

    def _number(self, key: str, default: float, least: float, most: float, kind: type[int] | type[float]) -> float:
        text = self.text(key)
        if not text:
            return default
        try:
            value = kind(text.removesuffix("s"))
        except ValueError:
            self.problem(f"{key}: {text!r} is not a number", key)
            return default
        if not least <= value <= most:
            self.problem(f"{key}: {value} is not between {least} and {most}", key)
            return default
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        text = self.text(key, "true" if default else "false")
        if text.lower() not in ("true", "false", "yes", "no"):
            self.problem(f"{key}: {text!r} is not true or false", key)
        return text.lower() in ("true", "yes")

    def texts(self, key: str, default: Iterable[str] = ()) -> tuple[str, ...]:
        """A list of scalars; a single one stands for a list of one."""
        node = self._node(key)
        if node is None:
            return tuple(default)
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(item, yaml.ScalarNode) for item in nodes):
            self.problem(f"{key} must be a list of values", key)
            return tuple(default)
        return tuple(str(item.value) for item in nodes)

    def convert_all(self, key: str, function: Callable[[str], T], default: Iterable[T] = ()) -> tuple[T, ...]:
        """A list of scalars through `function`; each that fails is a problem."""
        node = self._node(key)
        texts = self.texts(key)
        if node is None:
            return tuple(default)
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        values = []
        for item, text in zip(nodes, texts, strict=False):
            try:
                values.append(function(text))
            except (ValueError, UsageError) as error:
                self.problems.add(item, f"{self.what}: {key}: {error}")
        return tuple(values)

    def sections(self, key: str) -> tuple[Section, ...]:
        """A list of mappings."""
        node = self._node(key)
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode):
            self.problem(f"{key} must be a list", key)
            return ()
        return tuple(Section(item, self.problems, f"{self.what}.{key}") for item in node.value)

    def section(self, key: str) -> Section | None:
        """One mapping; None when absent."""
        node = self._node(key)
        if node is None and key not in self._items:
            return None
        return Section(node, self.problems, key)

    def entries(self) -> tuple[tuple[str, Section], ...]:
        """Every key with its value as a section, in order: for `- plugin: {options}`."""
        self._asked.update(self._items)
        found = []
        for name, (key, value) in self._items.items():
            section = Section(None if _is_null(value) else value, self.problems, name)
            if section.node.start_mark is None:
                section.node.start_mark = key.start_mark
            found.append((name, section))
        return tuple(found)

    def end(self) -> None:
        """Everything was read: what is left nobody knows."""
        for name, (key, _) in self._items.items():
            if name not in self._asked:
                near = difflib.get_close_matches(name, self._asked, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(self._asked))}"
                self.problems.add(key, f"{self.what}: {name!r} is unknown{hint}")


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def open_document(text: str, path: str) -> Section:
    """The top mapping of `text`. Raises `UsageError` for what is no YAML; other problems are collected."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}:{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}:1: {error}") from error
    return Section(node, Problems(path), "file")
