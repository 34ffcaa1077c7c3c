"""Which key is at which revision, and which revision comes next: the rule book both local backends share.

Apart from them because conflict detection must be the same in memory and on disk, and must happen when a write is
*accepted*, before it is durable: the order of acceptance is the order of revisions. Pure; it keeps no values.
Fed by a backend's `txn`; what it returns is what the backend commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pilotage.storage.backend import Event, EventType, KeyValue, Operation
from pilotage.storage.errors import ConflictError


class Ledger:
    """The accepted state: revision per key. May run ahead of the committed state by the writes in flight."""

    def __init__(self, revision: int = 0, entries: Iterable[KeyValue] = ()) -> None:
        self.revision = revision
        self._entries: dict[str, tuple[int, int, int]] = {
            entry.key: (entry.create_revision, entry.mod_revision, entry.version) for entry in entries
        }

    def accept(self, operations: Sequence[Operation]) -> tuple[Event, ...]:
        """Check every operation, then assign the next revision to all of them.

        A key may appear once in a transaction. Raises ConflictError and changes nothing if one does not hold;
        deleting an absent key does not hold.
        """
        if not operations:
            raise ValueError("a transaction needs at least one operation")
        entries = self._entries
        for operation in operations:
            entry = entries.get(operation.key)
            actual = entry[1] if entry is not None else 0
            expected = operation.expected
            if (expected is not None and expected != actual) or (operation.value is None and actual == 0):
                raise ConflictError(operation.key, expected if expected is not None else -1, actual)
        if len(operations) > 1 and len({operation.key for operation in operations}) != len(operations):
            raise ValueError("a transaction names a key twice")
        self.revision = revision = self.revision + 1
        events: list[Event] = []
        for operation in operations:
            created, _, version = entries.get(operation.key) or (revision, 0, 0)
            if operation.value is None:
                del entries[operation.key]
            else:
                entries[operation.key] = (created, revision, version + 1)
            events.append(
                Event(
                    type=EventType.DELETE if operation.value is None else EventType.PUT,
                    key=operation.key,
                    value=operation.value or b"",
                    create_revision=created,
                    mod_revision=revision,
                    version=version + 1,
                )
            )
        return tuple(events)
