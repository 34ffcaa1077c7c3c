"""Every backend, for one suite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilotage.storage import Backend, MemoryBackend, SqliteBackend


@pytest.fixture(params=["memory", "sqlite"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    opened: Backend
    if request.param == "memory":
        opened = MemoryBackend(history_events_max=100)
    else:
        opened = await SqliteBackend.open(tmp_path / "state.db", history_events_max=100)
    yield opened
    await opened.close()
