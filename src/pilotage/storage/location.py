"""Which backend a location such as `sqlite:/var/lib/x/state.db` names.

Apart so that the command line and the API server's configuration share one spelling, and a new backend is one line.
"""

from __future__ import annotations

from pathlib import Path

from pilotage.storage.backend import Backend
from pilotage.storage.etcd import EtcdBackend
from pilotage.storage.memory import MemoryBackend
from pilotage.storage.sqlite import SqliteBackend


async def open_backend(location: str) -> Backend:
    """Open `memory:`, `sqlite:PATH` or `etcd:URL`. Raises ValueError for anything else, StorageError on failure."""
    scheme, _, rest = location.partition(":")
    if scheme == "memory" and not rest:
        return MemoryBackend()
    if scheme == "sqlite" and rest:
        return await SqliteBackend.open(Path(rest))
    if scheme == "etcd" and rest:
        return await EtcdBackend.open(rest)
    raise ValueError(f"storage {location!r} is neither memory: nor sqlite:PATH nor etcd:URL")
