"""The CEL rules of a definition: compiled with it, asked of every object written under it.

Stands apart from `validator` because rules see values of CEL's types and, in an update, the value before. A rule that
speaks of `oldSelf` holds only where a value replaces one that can be told to be the same.
Source: https://kubernetes.io/docs/reference/using-api/cel/, "Validation rules" of custom resources; KEP-2876.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pilotage.api.schema_problems import Problems
from pilotage.api.status import FieldError
from pilotage.apiserver.cel import BudgetError, CompileError, EvaluationError, Expression, Spending, compiled
from pilotage.apiserver.custom.shape import Node, RuleSource, cel_type, for_rules

MISSING: Any = object()
_OLD = "previous"  # a list of one or none, from which an optional oldSelf is made


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, compiled."""

    source: RuleSource
    holds: Expression
    message: Expression | None
    transition: bool


class Rules:
    """All rules of one shape. Problems found while compiling them go where the maker says."""

    def __init__(self, shape: Node, problems: Problems, path: str) -> None:
        self._rules: dict[int, tuple[Rule, ...]] = {}
        self._shape = shape
        self._compile(shape, problems, path)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def _compile(self, node: Node, problems: Problems, path: str) -> None:
        if not node.rules_below:
            return
        made = []
        for index, source in enumerate(node.rules):
            rule = _compiled(source, node, problems, f"{path}.x-kubernetes-validations[{index}]")
            if rule is not None:
                made.append(rule)
        if made:
            self._rules[id(node)] = tuple(made)
        for name, child in node.properties.items():
            self._compile(child, problems, f"{path}.properties[{name}]")
        if node.additional is not None:
            self._compile(node.additional, problems, f"{path}.additionalProperties")
        if node.items is not None:
            self._compile(node.items, problems, f"{path}.items")

    def check(self, document: dict[str, Any], old: dict[str, Any] | None, problems: Problems) -> None:
        """Ask every rule about an object."""
        before = MISSING if old is None else _visible(old)
        try:
            self._check(_visible(document), before, self._shape, "", problems, Spending())
        except BudgetError as error:
            text = (
                f"validation failed due to running out of cost budget, no further validation rules will be run: {error}"
            )
            problems.invalid("", "object", text)

    def _check(self, value: Any, old: Any, node: Node, path: str, problems: Problems, spending: Spending) -> None:
        if not node.rules_below or value is None:
            return
        rules = self._rules.get(id(node))
        if rules:
            variables = {"self": for_rules(value, node)}
            for rule in rules:
                self._ask(rule, variables, value, old, node, path, problems, spending)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for name, item in value.items():
                child = node.properties.get(name) or node.additional
                if child is not None and child.rules_below:
                    here = f"{path}.{name}" if path else name
                    self._check(item, before.get(name, MISSING), child, here, problems, spending)
        elif isinstance(value, list) and node.items is not None and node.items.rules_below:
            known = _by_key(old, node.list_keys) if node.list_type == "map" and isinstance(old, list) else {}
            for index, item in enumerate(value):
                was = known.get(_key(item, node.list_keys), MISSING) if known else MISSING
                self._check(item, was, node.items, f"{path}[{index}]", problems, spending)

    def _ask(
        self,
        rule: Rule,
        variables: dict[str, Any],
        value: Any,
        old: Any,
        node: Node,
        path: str,
        problems: Problems,
        spending: Spending,
    ) -> None:
        if rule.transition:
            if old is MISSING and not rule.source.optional_old:
                return
            if rule.source.optional_old:
                variables = {**variables, _OLD: [] if old is MISSING else [for_rules(old, node)]}
            else:
                variables = {**variables, "oldSelf": for_rules(old, node)}
        elif old is not MISSING and old == value:
            return  # what an update leaves unchanged was judged when it was written
        kind = node.type or "object"
        try:
            if rule.holds.evaluate(variables, spending) is True:
                return
        except BudgetError:
            raise
        except EvaluationError as error:
            told = rule.source.message or rule.source.rule.strip()
            problems.invalid(path, kind, f"{error} evaluating rule: {told}")
            return
        where = f"{path}{rule.source.field_path}".lstrip(".")
        _report(problems, rule.source.reason, where, kind, _message(rule, variables, spending))


def _visible(document: dict[str, Any]) -> dict[str, Any]:
    """An object as rules at its root see it: of its metadata only the name."""
    metadata = {key: value for key, value in document.get("metadata", {}).items() if key in ("name", "generateName")}
    return {**document, "metadata": metadata}


def _message(rule: Rule, variables: dict[str, Any], spending: Spending) -> str:
    if rule.message is not None:
        try:
            text = rule.message.evaluate(variables, spending)
        except EvaluationError:
            text = ""
        if isinstance(text, str) and text.strip() and "\n" not in text.strip():
            return text.strip()
    return rule.source.message or f"failed rule: {rule.source.rule.strip()}"


def _report(problems: Problems, reason: str, path: str, kind: str, message: str) -> None:
    match reason:
        case "FieldValueRequired":
            problems.required(path, message)
        case "FieldValueForbidden":
            problems.forbidden(path, message)
        case "FieldValueDuplicate":
            text = f'Duplicate value: "{kind}"'
            problems.errors.append(FieldError(field=path, reason="FieldValueDuplicate", message=text))
        case _:
            problems.invalid(path, kind, message)


def _compiled(source: RuleSource, node: Node, problems: Problems, path: str) -> Rule | None:
    if not source.rule.strip():
        problems.required(f"{path}.rule", "rule is not specified")
        return None
    kind = cel_type(node)
    variables = {"self": kind, _OLD: "list"} if source.optional_old else {"self": kind}
    transition = source.optional_old
    try:
        try:
            holds = compiled(_with_old(source, source.rule), variables, results=("bool",))
        except CompileError as error:
            if "undeclared reference to 'oldSelf" not in str(error):
                raise
            transition, variables = True, {"self": kind, "oldSelf": kind}
            holds = compiled(source.rule, variables, results=("bool",))
    except CompileError as error:
        problems.invalid(f"{path}.rule", source.rule, str(error))
        return None
    message = None
    if source.message_expression:
        try:
            message = compiled(_with_old(source, source.message_expression), variables, results=("string",))
        except CompileError as error:
            problems.invalid(f"{path}.messageExpression", source.message_expression, str(error))
    return Rule(source=source, holds=holds, message=message, transition=transition)


def _with_old(source: RuleSource, text: str) -> str:
    """The text with `oldSelf` bound to an optional value, where the rule asked for one."""
    if not source.optional_old:
        return text
    return f"cel.bind(oldSelf, size({_OLD}) > 0 ? optional.of({_OLD}[0]) : optional.none(), ({text}))"


def _key(item: Any, keys: tuple[str, ...]) -> tuple[str, ...] | None:
    return tuple(str(item.get(key)) for key in keys) if isinstance(item, dict) else None


def _by_key(items: list[Any], keys: tuple[str, ...]) -> dict[Any, Any]:
    return {_key(item, keys): item for item in items}
