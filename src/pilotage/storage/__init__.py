"""A revisioned key-value store with watch and compaction, behind one Backend.

Purpose: keep the API server's objects as bytes, durably, in one total order.
Inputs → outputs: operations with expected revisions → a new revision, and a stream of events in revision order.
Invariants: one transaction is one revision; revisions only grow and are never reused, also after kill -9; a write is
acknowledged only once durable and is on every watch before its caller wakes; what is in memory is bounded except the
index of keys.
Reading order: `backend` (the contract), `ledger` (who may write), `history` (who is told), `memory`, `sqlite`,
`etcd` (by `etcd_gateway`); `copies` for administrators.
Specifications: the data model of etcd v3 (https://etcd.io/docs/v3.5/learning/data_model/), SQLite's WAL
(https://sqlite.org/wal.html).
"""

from pilotage.storage.backend import Backend, Batch, Event, EventType, KeyValue, Listing, Operation, Watch
from pilotage.storage.copies import Copied, backup, restore
from pilotage.storage.errors import (
    CompactedError,
    ConflictError,
    CorruptError,
    OverrunError,
    StorageError,
    TooLargeError,
    UnavailableError,
)
from pilotage.storage.etcd import EtcdBackend
from pilotage.storage.location import open_backend
from pilotage.storage.memory import MemoryBackend
from pilotage.storage.sqlite import SqliteBackend

__all__ = [
    "Backend",
    "Batch",
    "CompactedError",
    "ConflictError",
    "Copied",
    "CorruptError",
    "EtcdBackend",
    "Event",
    "EventType",
    "KeyValue",
    "Listing",
    "MemoryBackend",
    "Operation",
    "OverrunError",
    "SqliteBackend",
    "StorageError",
    "TooLargeError",
    "UnavailableError",
    "Watch",
    "backup",
    "open_backend",
    "restore",
]
