"""One API request on its way to the registry: who asks, for what, with which options.

Stands apart so that the registry and the pipeline see neither HTTP nor headers. Made by the HTTP front once per
request; `now` is read once, so that everything a request stamps carries the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from pilotage.api.catalogue import Resource
from pilotage.api.status import ApiError
from pilotage.apiserver.authentication import UserInfo
from pilotage.apiserver.core.options import WriteOptions
from pilotage.storage import ConflictError


@dataclass(slots=True, kw_only=True)
class Call:
    """A request for one resource. Warnings and what was allocated for its write collect on the way."""

    resource: Resource
    namespace: str  # "" for cluster-scoped resources and for all namespaces
    name: str  # "" for the collection
    subresource: str
    user: UserInfo
    now: datetime
    options: WriteOptions = field(default_factory=WriteOptions)
    user_agent: str = ""
    applied: bool = False  # by server-side apply, which records its own managers
    warnings: list[str] = field(default_factory=list)  # sent as Warning headers, RFC 9110 §5.5, RFC 7234 §5.5
    allocated: list[Callable[[], None]] = field(default_factory=list)  # how to give each allocation back
    reserved: list[Callable[[], None]] = field(default_factory=list)  # how to end each reservation, come what may

    @property
    def key(self) -> str:
        """The key of the object within its resource."""
        return f"{self.namespace}/{self.name}" if self.resource.namespaced else self.name

    @property
    def manager(self) -> str:
        """Whose fields a write touches: the fieldManager parameter, else the program's name."""
        return self.options.field_manager or self.user_agent.partition("/")[0][:128] or "unknown"

    @contextmanager
    def provisional(self) -> Iterator[Callable[[], None]]:
        """Give back what was allocated inside unless the function yielded is called: the write has happened.

        A failure that leaves open whether it did happen (cancellation, the store gone) gives nothing back: an address
        that is lost until the next start is better than one that two Services have. Reservations end with the write,
        however it went: from then on what is stored speaks for itself.
        """
        kept = False

        def keep() -> None:
            nonlocal kept
            kept = True

        try:
            yield keep
        except (ApiError, ConflictError):
            self._give_back()
            self._end_reservations()
            raise
        else:
            if not kept:
                self._give_back()
            self._end_reservations()
        finally:
            self.allocated.clear()
            self.reserved.clear()

    def _give_back(self) -> None:
        while self.allocated:
            self.allocated.pop()()

    def _end_reservations(self) -> None:
        while self.reserved:
            self.reserved.pop()()
