"""The refusals of a patch, as the API answers them.

A malformed patch is the client's mistake in any state of the object (400); one that does not fit this object is
unprocessable (422); an apply that would take over somebody's field is a conflict (409).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pilotage.api.status import ApiError, StatusCause, StatusDetails


class PatchError(ApiError):
    """The patch cannot be carried out."""

    @classmethod
    def malformed(cls, message: str) -> PatchError:
        return cls("BadRequest", message)

    @classmethod
    def unprocessable(cls, message: str) -> PatchError:
        return cls("Invalid", f"the server rejected our request due to an error in our request: {message}")

    @classmethod
    def too_large(cls, message: str) -> PatchError:
        return cls("RequestEntityTooLarge", message)


class PatchTestFailed(PatchError):
    """A value was not what a `test` of a JSON patch says."""


class ApplyConflict(PatchError):
    """Server-side apply met fields that other managers own with other values. `conflicts`: owner → field paths."""

    def __init__(self, conflicts: Mapping[str, Sequence[str]]) -> None:
        self.conflicts = {owner: tuple(paths) for owner, paths in sorted(conflicts.items())}
        pairs = [(owner, path) for owner, paths in self.conflicts.items() for path in paths]
        if len(pairs) == 1:
            message = f"Apply failed with 1 conflict: conflict with {pairs[0][0]}: {pairs[0][1]}"
        else:
            lines: list[str] = []
            for owner, paths in self.conflicts.items():
                lines.append(f"conflicts with {owner}:")
                lines.extend(f"- {path}" for path in paths)
            message = f"Apply failed with {len(pairs)} conflicts: " + "\n".join(lines)
        causes = tuple(
            StatusCause(reason="FieldManagerConflict", message=f"conflict with {owner}", field=path)
            for owner, path in pairs
        )
        super().__init__("Conflict", message, details=StatusDetails(causes=causes))
