"""One API request on its way to the registry: who asks, for what, with which options.

Stands apart so that the registry and the pipeline see neither HTTP nor headers. Made by the HTTP front once per
request; `now` is read once, so that everything a request stamps carries the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pilotage.api.catalogue import Resource
from pilotage.apiserver.authentication import UserInfo
from pilotage.apiserver.core.options import WriteOptions


@dataclass(slots=True, kw_only=True)
class Call:
    """A request for one resource. Mutable in one respect only: warnings collect on the way."""

    resource: Resource
    namespace: str  # "" for cluster-scoped resources and for all namespaces
    name: str  # "" for the collection
    subresource: str
    user: UserInfo
    now: datetime
    options: WriteOptions = field(default_factory=WriteOptions)
    user_agent: str = ""
    warnings: list[str] = field(default_factory=list)  # sent as Warning headers, RFC 9110 §5.5, RFC 7234 §5.5

    @property
    def key(self) -> str:
        """The key of the object within its resource."""
        return f"{self.namespace}/{self.name}" if self.resource.namespaced else self.name

    @property
    def manager(self) -> str:
        """Whose fields a write touches: the fieldManager parameter, else the program's name."""
        return self.options.field_manager or self.user_agent.partition("/")[0][:128] or "unknown"
