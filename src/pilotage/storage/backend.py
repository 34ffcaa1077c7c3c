"""The store's contract: keys to bytes under one store-wide integer revision.

Apart from its implementations so that the API server depends on a shape, not on SQLite: `memory`, `sqlite` and `etcd`
all pass one test suite. The vocabulary is etcd's on purpose (create revision, mod revision, version,
transaction, compaction), because that is the store Kubernetes semantics were written for.
Called by the API server alone. It knows no kind, no JSON and no namespace.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


class EventType(enum.Enum):
    """What happened to a key."""

    PUT = "PUT"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """A key as of one revision: `create_revision <= mod_revision`."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int  # writes since the key was created, 1 for the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change. A DELETE carries an empty value and the revision of the deletion as its `mod_revision`."""

    type: EventType
    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One step of a transaction: put `value`, or delete when it is None."""

    key: str
    value: bytes | None  # None: delete the key
    expected: int | None  # required mod revision; 0: must be absent; None: whatever it is
    ttl_s: float | None = None  # a backend with leases deletes the key after this long; None: it stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Keys in byte order as of `revision`."""

    revision: int
    items: tuple[KeyValue, ...]
    more: bool  # the limit cut the answer short


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Changes in revision order, and the revision up to which the watcher has now seen everything."""

    revision: int
    events: tuple[Event, ...]


class Watch(Protocol):
    """An open watch: iterate it for batches; close it when done."""

    def __aiter__(self) -> AsyncIterator[Batch]:
        """Yield batches until closed; raise OverrunError if this watcher fell too far behind."""

    async def close(self) -> None:
        """Stop; pending iteration ends. Safe to call twice."""


class Backend(Protocol):
    """A revisioned key-value store.

    Every write is acknowledged only when it is as durable as the backend can make it, and shows up on watches before
    its caller is woken. Revisions grow, are never reused, and one transaction is one revision.
    """

    @property
    def revision(self) -> int:
        """The newest committed revision."""

    @property
    def compacted_revision(self) -> int:
        """The oldest revision a watch may start after."""

    @property
    def failure(self) -> str | None:
        """Why writes fail at the moment; None when all is well."""

    @property
    def leases(self) -> bool:
        """Whether keys with a time to live go by themselves; otherwise their owner must delete them."""

    async def get(self, key: str) -> KeyValue | None:
        """Return the key's committed state."""

    async def list(self, prefix: str, *, limit: int = 0, start_after: str = "") -> Listing:
        """Return keys that begin with `prefix`, in order, after `start_after`; `limit` 0 is no limit."""

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that must not exist; return its revision. Raises ConflictError."""

    async def update(self, key: str, value: bytes, expected: int, *, ttl_s: float | None = None) -> int:
        """Write a key that must be at `expected`; return its new revision. Raises ConflictError.

        `ttl_s` counts from this write on, and only where there are `leases`.
        """

    async def delete(self, key: str, expected: int | None = None) -> int:
        """Remove a key; return the deletion's revision. Raises ConflictError, also when it is absent."""

    async def txn(self, operations: Sequence[Operation]) -> int:
        """Carry out all operations at one revision, or none. Raises ConflictError for the first that does not hold."""

    async def watch(self, prefix: str, after: int) -> Watch:
        """Follow changes with a revision greater than `after`. Raises CompactedError."""

    async def compact(self, revision: int) -> None:
        """Forget history up to and including `revision`; current values stay."""

    async def close(self) -> None:
        """Finish what was accepted, end all watches, release the file."""
