"""A collector of field errors that speaks Kubernetes' wording.

Shared by the rules of every kind (`schema_rules_*`), by the API server's strategies and by admission, so that
`Invalid value`, `Required value` and their kin are worded in one place.

Source: the error types of Kubernetes' API conventions, "Response Status Kind" (causes).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pilotage.api.status import FieldError

ERRORS_MAX = 100  # A hostile object must not make an endless answer.


class Problems:
    """Field errors in the order they were found."""

    __slots__ = ("errors",)

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def _add(self, field: str, reason: str, message: str) -> None:
        if len(self.errors) < ERRORS_MAX:
            self.errors.append(FieldError(field=field, reason=reason, message=message))

    def required(self, field: str, detail: str = "") -> None:
        self._add(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")

    def invalid(self, field: str, value: Any, detail: str) -> None:
        self._add(field, "FieldValueInvalid", f"Invalid value: {printed(value)}: {detail}")

    def unsupported(self, field: str, value: Any, supported: Iterable[str]) -> None:
        values = ", ".join(f'"{item}"' for item in supported)
        text = f"Unsupported value: {printed(value)}"
        self._add(field, "FieldValueNotSupported", f"{text}: supported values: {values}" if values else text)

    def duplicate(self, field: str, value: Any) -> None:
        self._add(field, "FieldValueDuplicate", f"Duplicate value: {printed(value)}")

    def forbidden(self, field: str, detail: str) -> None:
        self._add(field, "FieldValueForbidden", f"Forbidden: {detail}")

    def not_found(self, field: str, value: Any) -> None:
        self._add(field, "FieldValueNotFound", f"Not found: {printed(value)}")

    def too_long(self, field: str, limit: int) -> None:
        self._add(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")

    def too_many(self, field: str, count: int, limit: int) -> None:
        self._add(field, "FieldValueTooMany", f"Too many: {count}: must have at most {limit} items")

    def check(self, field: str, value: Any, message: str | None) -> None:
        """Record `message` as why `value` is invalid, unless it is None."""
        if message is not None:
            self.invalid(field, value, message)


def printed(value: Any) -> str:
    """A value as messages show it: JSON, bounded."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= 1000 else f"{text[:1000]}…"
