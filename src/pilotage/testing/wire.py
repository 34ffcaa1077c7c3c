"""A plain HTTP client to an API server, for tests of the wire itself.

Stands apart from the typed client, which would hide what is tested: statuses, headers, exact documents, watch lines.
Used by the component tests of the API server.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from pilotage.client import load_kubeconfig
from pilotage.testing.cluster import ApiServer

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any
    headers: Any
    raw: bytes

    @property
    def reason(self) -> str:
        return str(self.body["reason"])

    @property
    def version(self) -> str:
        return str(self.body["metadata"]["resourceVersion"])


class Stream:
    """Lines of a watch."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    async def next(self) -> Document:
        async with asyncio.timeout(10):
            line = await self._content.readline()
        if not line:
            raise EOFError
        event: Document = json.loads(line)
        return event

    async def take(self, count: int) -> list[tuple[str, str]]:
        """Type and name of the next events."""
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]


class Http:
    """Requests as the administrator."""

    def __init__(self, server: ApiServer, session: aiohttp.ClientSession, tls: Any) -> None:
        self.server = server
        self._session = session
        self._tls = tls

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        fields = {key.replace("_", "-"): value for key, value in headers.items()}
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        if data is not None:
            fields.setdefault("Content-Type", "application/json")
        url = self.server.url + path
        # aiohttp warns of large bodies that are not files; tests send them on purpose.
        sent = io.BytesIO(data) if data is not None else None
        async with self._session.request(method, url, data=sent, headers=fields, ssl=self._tls) as response:
            raw = await response.read()
            body = json.loads(raw) if "json" in response.headers.get("Content-Type", "") else raw.decode()
            return Answer(response.status, body, response.headers, raw)

    @asynccontextmanager
    async def watch(self, path: str, **headers: str) -> AsyncIterator[Stream]:
        fields = {key.replace("_", "-"): value for key, value in headers.items()}
        url = self.server.url + path
        async with self._session.get(url, headers=fields, ssl=self._tls, timeout=None) as response:
            assert response.status == 200, await response.text()
            yield Stream(response.content)


@asynccontextmanager
async def connected(server: ApiServer) -> AsyncIterator[Http]:
    connection = load_kubeconfig(server.kubeconfig_path)
    async with aiohttp.ClientSession(auto_decompress=True) as session:
        yield Http(server, session, connection.ssl_context())


CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"


def config_map(name: str, *, labels: dict[str, str] | None = None, **data: str) -> Document:
    metadata: Document = {"name": name}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def pod(name: str, **spec: Any) -> Document:
    container = {"name": "main", "image": "localhost/host"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], **spec},
    }
