"""What every plugin is asked about: one write, before it happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pilotage.api.catalogue import Resource
from pilotage.api.status import ApiError, StatusDetails
from pilotage.apiserver.authentication.user import UserInfo

Document = dict[str, Any]
Undo = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A create, update or delete. Plugins may change `document` in place, never `old`."""

    verb: Literal["create", "update", "delete"]
    resource: Resource
    namespace: str
    name: str
    subresource: str
    user: UserInfo
    document: Document | None  # None: delete
    old: Document | None  # None: create
    warnings: list[str] = field(default_factory=list)  # for the client, whatever becomes of the write

    dry_run: bool = False

    @property
    def kind(self) -> tuple[str, str]:
        """Group and kind."""
        return self.resource.group, self.resource.kind

    def forbidden(self, why: str) -> ApiError:
        """403 about this object, worded as Kubernetes words admission's refusals."""
        named = f' "{self.name}"' if self.name else ""
        details = StatusDetails(name=self.name, group=self.resource.group, kind=self.resource.plural)
        return ApiError("Forbidden", f"{self.resource.group_resource}{named} is forbidden: {why}", details=details)
