"""The slow path: what happens to a question that is not the cluster's, as an ordered chain of steps.

A step answers, or asks the next one and may look at what comes back; the last one must answer. One file a step. What
names the steps, and in which order, is `server`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pilotage.dns.core.upstream import Reply
from pilotage.dns.core.wire import Query

Handler = Callable[[Query], Awaitable[Reply]]


class Step(Protocol):
    """One link. Never raises for what the network does: a failure is a `Reply` too."""

    async def resolve(self, query: Query, following: Handler) -> Reply: ...


def link(steps: Sequence[Step], last: Handler) -> Handler:
    """The handler that runs `steps` in order and ends at `last`."""
    handler = last
    for step in reversed(steps):
        handler = _bind(step, handler)
    return handler


def _bind(step: Step, following: Handler) -> Handler:
    async def handle(query: Query) -> Reply:
        return await step.resolve(query, following)

    return handle
