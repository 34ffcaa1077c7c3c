"""What a front end found wrong with somebody's object: a value, because bad input is no exception.

Stands apart because every front end and the shell that turns it into an Event share it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pilotage.api.core_v1 import ObjectReference


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One defect of one object; equal problems are one problem, however often they are found."""

    about: ObjectReference
    reason: str  # CamelCase, stable
    message: str  # one sentence for people: what is wrong and what happens meanwhile


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """By object, then reason and message."""

    def key(problem: Problem) -> tuple[str, ...]:
        about = problem.about
        return about.kind, about.namespace, about.name, problem.reason, problem.message

    return tuple(sorted(problems, key=key))
