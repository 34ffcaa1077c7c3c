"""A fresh API server and a plain HTTP client to it."""

from collections.abc import AsyncIterator

import pytest

from pilotage.testing.cluster import api_server
from pilotage.testing.wire import Http, connected


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with api_server() as server, connected(server) as client:
        yield client
