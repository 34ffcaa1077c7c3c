"""What a front end found wrong with somebody's object: a value, because bad input is no exception.

Stands apart because every front end and the shell that turns it into an Event share it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One defect of one object; equal problems are one problem, however often they are found."""

    kind: str  # of the object, e.g. "Ingress"
    namespace: str
    name: str
    uid: str
    reason: str  # CamelCase, stable
    message: str  # one sentence for people: what is wrong and what happens meanwhile
