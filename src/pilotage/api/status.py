"""The API's `Status`: errors as Kubernetes states them, on both sides of the wire.

Stands apart because the server raises what the client catches. Codes and reasons: Kubernetes API conventions,
"Response Status Kind". The message names what was asked for and why it was refused.
"""

from collections.abc import Sequence
from typing import Any

from pilotage.api.codec import Value
from pilotage.kit.errors import PilotageError

# reason → HTTP code
REASONS: dict[str, int] = {
    "BadRequest": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "NotAcceptable": 406,
    "Conflict": 409,
    "AlreadyExists": 409,
    "Gone": 410,
    "Expired": 410,
    "RequestEntityTooLarge": 413,
    "UnsupportedMediaType": 415,
    "Invalid": 422,
    "TooManyRequests": 429,
    "InternalError": 500,
    "ServiceUnavailable": 503,
    "Timeout": 504,
    "ServerTimeout": 504,
}


class FieldError(Value):
    """One wrong field: `reason` as in Kubernetes (FieldValueRequired, FieldValueInvalid, FieldValueNotSupported …)."""

    field: str
    reason: str
    message: str


class StatusCause(Value):
    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(Value):
    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: tuple[StatusCause, ...] = ()
    retry_after_seconds: int = 0


class Status(Value):
    """What an API server answers instead of an object."""

    status: str = "Failure"
    message: str = ""
    reason: str = ""
    details: StatusDetails = StatusDetails()
    code: int = 0


class ApiError(PilotageError):
    """An API request was refused; `str()` is the message people read."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        code: int = 0,
        details: StatusDetails | None = None,
        continue_token: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code or REASONS.get(reason, 500)
        self.details = details or StatusDetails()
        self.continue_token = continue_token  # of a list that can go on after all, from another moment

    @classmethod
    def from_status(cls, status: Status, code: int) -> "ApiError":
        """What the client raises for a Status it received."""
        return cls(status.reason, status.message or f"HTTP {code}", code=code, details=status.details)

    def to_wire(self) -> dict[str, Any]:
        """The Status document."""
        details: dict[str, Any] = {}
        if self.details.name:
            details["name"] = self.details.name
        if self.details.group:
            details["group"] = self.details.group
        if self.details.kind:
            details["kind"] = self.details.kind
        if self.details.uid:
            details["uid"] = self.details.uid
        if self.details.causes:
            details["causes"] = [
                {"reason": cause.reason, "message": cause.message, "field": cause.field}
                for cause in self.details.causes
            ]
        if self.details.retry_after_seconds:
            details["retryAfterSeconds"] = self.details.retry_after_seconds
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_token} if self.continue_token else {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }
        if details:
            body["details"] = details
        return body


def not_found(plural: str, name: str, group: str = "") -> ApiError:
    qualified = f"{plural}.{group}" if group else plural
    return ApiError(
        "NotFound", f'{qualified} "{name}" not found', details=StatusDetails(name=name, group=group, kind=plural)
    )


def already_exists(plural: str, name: str, group: str = "") -> ApiError:
    qualified = f"{plural}.{group}" if group else plural
    details = StatusDetails(name=name, group=group, kind=plural)
    return ApiError("AlreadyExists", f'{qualified} "{name}" already exists', details=details)


def conflict(plural: str, name: str, group: str = "", why: str = "") -> ApiError:
    qualified = f"{plural}.{group}" if group else plural
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {qualified} "{name}": {why}'
    return ApiError("Conflict", message, details=StatusDetails(name=name, group=group, kind=plural))


def invalid(kind: str, name: str, errors: Sequence[FieldError], group: str = "") -> ApiError:
    """422 with one cause per field, worded as Kubernetes words it."""
    listed = [f"{error.field}: {error.message}" for error in errors]
    text = listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]"
    qualified = f"{kind}.{group}" if group else kind
    causes = tuple(StatusCause(reason=error.reason, message=error.message, field=error.field) for error in errors)
    details = StatusDetails(name=name, group=group, kind=kind, causes=causes)
    return ApiError("Invalid", f'{qualified} "{name}" is invalid: {text}', details=details)


def is_not_found(error: BaseException) -> bool:
    return isinstance(error, ApiError) and error.reason == "NotFound"


def is_already_exists(error: BaseException) -> bool:
    return isinstance(error, ApiError) and error.reason == "AlreadyExists"


def is_conflict(error: BaseException) -> bool:
    return isinstance(error, ApiError) and error.reason == "Conflict"


def is_gone(error: BaseException) -> bool:
    """The resourceVersion asked for is too old: list again."""
    return isinstance(error, ApiError) and error.code == 410
