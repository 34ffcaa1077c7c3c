"""Label and field selectors: from query text or LabelSelector to a predicate.

Stands apart because the API server, informers, controllers and the scheduler must agree to the letter. Source:
Kubernetes documentation "Labels and Selectors", "Field Selectors"; apimachinery accepts `=`, `==`, `!=`, `in`,
`notin`, `key`, `!key` (and `gt`/`lt` for node affinity).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pilotage.api.meta_v1 import LabelSelector
from pilotage.kit.errors import PilotageError

# A qualified name: optional DNS subdomain prefix, "/", then up to 63 of [-A-Za-z0-9_.]; the value has no prefix.
_KEY = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SET = re.compile(r"^(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^\s=!]+)\s*(?P<operator>==|=|!=)\s*(?P<value>\S*)$")
_BARE = re.compile(r"^(?P<negation>!?)\s*(?P<key>[^\s=!()]+)$")


class SelectorError(PilotageError):
    """The text is no selector; the message quotes the part that is not understood."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one key. Operators: in, notin, exists, !, gt, lt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case "gt" | "lt":
                bound = next(iter(self.values), "")
                try:
                    return value is not None and (
                        int(value) > int(bound) if self.operator == "gt" else int(value) < int(bound)
                    )
                except ValueError:
                    return False
        raise SelectorError(f"unknown operator {self.operator!r}")

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" if len(self.values) == 1:
                return f"{self.key}={next(iter(self.values))}"
            case "notin" if len(self.values) == 1:
                return f"{self.key}!={next(iter(self.values))}"
        return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; without any, everything matches."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def __str__(self) -> str:
        """The text form, usable as a `labelSelector` parameter."""
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING = Selector()


def parse_selector(text: str) -> Selector:
    """The `labelSelector` parameter → Selector; raises `SelectorError`."""
    requirements: list[Requirement] = []
    for part in _split(text):
        if match := _SET.match(part):
            values = frozenset(value.strip() for value in match["values"].split(","))
            requirements.append(Requirement(_label_key(match["key"]), match["operator"], values))
        elif match := _EQUALITY.match(part):
            operator = "notin" if match["operator"] == "!=" else "in"
            requirements.append(Requirement(_label_key(match["key"]), operator, frozenset((match["value"],))))
        elif match := _BARE.match(part):
            requirements.append(Requirement(_label_key(match["key"]), "!" if match["negation"] else "exists"))
        else:
            raise SelectorError(f"unable to parse requirement: {part[:200]!r}")
    for requirement in requirements:
        for value in requirement.values:
            if not _VALUE.fullmatch(value):
                raise SelectorError(f"invalid label value {value[:80]!r} in selector")
    return Selector(tuple(requirements))


def parse_field_selector(text: str) -> Selector:
    """The `fieldSelector` parameter → Selector over field paths; only `=`, `==` and `!=` exist."""
    requirements = []
    for part in _split(text):
        match = _EQUALITY.match(part)
        if match is None:
            raise SelectorError(f"invalid field selector: {part[:200]!r}; must be key=value or key!=value")
        operator = "notin" if match["operator"] == "!=" else "in"
        requirements.append(Requirement(match["key"], operator, frozenset((match["value"],))))
    return Selector(tuple(requirements))


_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!", "Gt": "gt", "Lt": "lt"}


def requirement(key: str, operator: str, values: tuple[str, ...] = ()) -> Requirement:
    """From the API's operators (In, NotIn, Exists, DoesNotExist, Gt, Lt); raises `SelectorError`."""
    if operator not in _OPERATORS:
        raise SelectorError(f"{operator!r} is not a valid selector operator")
    return Requirement(key, _OPERATORS[operator], frozenset(values))


def from_label_selector(selector: LabelSelector | None) -> Selector | None:
    """None (nothing matches) stays None; an empty selector matches everything (API conventions)."""
    if selector is None:
        return None
    return Selector(
        tuple(Requirement(key, "in", frozenset((value,))) for key, value in selector.match_labels.items())
        + tuple(requirement(item.key, item.operator, item.values) for item in selector.match_expressions)
    )


def from_match_labels(labels: Mapping[str, str]) -> Selector:
    """A plain map (Service.spec.selector) → Selector; the caller decides what an empty map means."""
    return Selector(tuple(Requirement(key, "in", frozenset((value,))) for key, value in labels.items()))


def _label_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise SelectorError(f"invalid label key {key[:80]!r} in selector")
    return key


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses; empty parts are dropped."""
    parts: list[str] = []
    depth = start = 0
    for index, letter in enumerate(text):
        if letter == "(":
            depth += 1
        elif letter == ")":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part]
