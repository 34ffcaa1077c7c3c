"""Every backend, for one suite; etcd's is an etcd of its own, because the suite counts revisions from zero."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilotage.storage import Backend, EtcdBackend, MemoryBackend, SqliteBackend
from pilotage.testing.etcd import etcd


@pytest.fixture(params=["memory", "sqlite", "etcd"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    opened: Backend
    if request.param == "memory":
        opened = MemoryBackend(history_events_max=100)
    elif request.param == "sqlite":
        opened = await SqliteBackend.open(tmp_path / "state.db", history_events_max=100)
    else:
        async with etcd(tmp_path / "etcd") as server:
            opened = await EtcdBackend.open(server.url, history_events_max=100)
            yield opened
            await opened.close()
        return
    yield opened
    await opened.close()
