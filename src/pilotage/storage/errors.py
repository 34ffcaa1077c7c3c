"""What can go wrong with the store, as types.

    StorageError                    root; catching it means "the store said no"
    ├── ConflictError               an operation's expected revision is not the key's; carries the actual one
    ├── CompactedError              a watch asks for revisions that are no longer kept
    ├── OverrunError                a watcher fell further behind than its queue allows
    ├── UnavailableError            the write may or may not be durable, or the store is closed
    ├── TooLargeError               the store takes no values of this size
    └── CorruptError                the store's file failed its integrity check; nothing was opened

The API server translates the first three into 409, 410 and a closed watch; the fourth is a 500, the fifth a 413, and
the last ends the process at start.
"""

from __future__ import annotations

from pilotage.kit import PilotageError


class StorageError(PilotageError):
    """The store refused or failed an operation."""


class ConflictError(StorageError):
    """The key is not at the revision the writer expected."""

    def __init__(self, key: str, expected: int, actual: int) -> None:
        super().__init__(f"key {key!r} is at revision {actual}, expected {expected}")
        self.key = key
        self.expected = expected  # 0: the key had to be absent
        self.actual = actual  # 0: the key is absent; may be a revision that is accepted but not yet durable


class CompactedError(StorageError):
    """The history starts later than the revision asked for."""

    def __init__(self, requested: int, oldest: int) -> None:
        super().__init__(f"revision {requested} has been compacted, the oldest to start after is {oldest}")
        self.requested = requested
        self.oldest = oldest


class OverrunError(StorageError):
    """The watcher did not keep up and was cut off; it must list again."""


class UnavailableError(StorageError):
    """The store is closed, or a commit failed and its writes are in doubt."""


class TooLargeError(StorageError):
    """The value is larger than the store accepts; nothing was written."""


class CorruptError(StorageError):
    """The file is damaged or belongs to something else."""
