"""Where others have a say in a write: the seam between the write pipeline and what is configured while the server runs.

Stands apart because the pipeline must not know webhooks and policies, and because most writes concern nobody: one cheap
question decides whether anything has to be awaited.
"""

from __future__ import annotations

from typing import Protocol

from pilotage.apiserver.admission.operation import Document, Operation


class Hooks(Protocol):
    """Who else completes and judges writes."""

    def concern(self, operation: Operation) -> bool:
        """Whether anybody has a say in this operation."""
        ...

    async def mutate(self, operation: Operation) -> Document | None:
        """The document as others want it, None when it stays. Raises ApiError when one refuses."""
        ...

    async def judge(self, operation: Operation) -> None:
        """Ask everybody about the final document. Raises ApiError when one refuses."""
        ...


class NoHooks:
    """Nobody has a say."""

    def concern(self, operation: Operation) -> bool:
        return False

    async def mutate(self, operation: Operation) -> Document | None:
        return None

    async def judge(self, operation: Operation) -> None:
        return None


NO_HOOKS: Hooks = NoHooks()
