"""Records from objects; the API away; the next process. Real API servers, real processes, real sockets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import dns.asyncquery
import dns.message
import dns.rcode
import msgspec
import pytest

from pilotage.api.core_v1 import Service
from pilotage.client import Client
from pilotage.dns import Config, Server
from pilotage.dns.api import DNSRecord, definition
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import api_server
from pilotage.testing.dns import part, service
from pilotage.testing.etcd import free_port


async def ask(port: int, name: str, rtype: str = "A") -> dns.message.Message:
    query = dns.message.make_query(f"{name}.cluster.local." if not name.endswith(".") else name, rtype)
    return await dns.asyncquery.udp(query, "127.0.0.1", timeout=10, port=port)


def answers(response: dns.message.Message) -> list[str]:
    return sorted(str(r) for rrset in response.answer for r in rrset)


class Serving:
    """A server as a task, to be entered."""

    def __init__(self, client: Client, **options: Any) -> None:
        self.server = Server(Config(**{"listen": ("127.0.0.1:0",), "node": "n1", **options}))
        self.port = self.server.addresses[0].port
        self._client = client
        self._ready = asyncio.Event()

    async def __aenter__(self) -> Serving:
        self._tasks_context = task_set()
        tasks = await self._tasks_context.__aenter__()
        tasks.start(self.server.run(self._client, self._ready.set))
        async with asyncio.timeout(20):
            await self._ready.wait()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._tasks_context.__aexit__(*error)


async def test_a_start_without_the_api_serves_the_last_good_view(tmp_path: Path, until: Any) -> None:
    snapshot = tmp_path / "dns.snapshot"
    async with api_server() as api:
        await api.client.create(service("web", "10.96.0.20"))
        await api.client.create(service("db"))
        await api.client.create(part("db", "10.244.1.7"))
        async with Serving(api.client, snapshot_file=str(snapshot)):

            async def written() -> bool:
                return snapshot.exists()

            await until(written)
    async with Serving(api.client, snapshot_file=str(snapshot)) as server:
        assert answers(await ask(server.port, "db.default.svc")) == ["10.244.1.7"]
        assert (await ask(server.port, "other.default.svc")).rcode() == dns.rcode.NXDOMAIN
        assert (await ask(server.port, "kube-system.svc")).rcode() == dns.rcode.NOERROR


async def test_what_was_deleted_meanwhile_is_forgotten_and_a_damaged_file_is_not_used(
    tmp_path: Path, until: Any
) -> None:
    snapshot = tmp_path / "dns.snapshot"
    async with api_server() as api:
        await api.client.create(service("old", "10.96.0.30"))
        async with Serving(api.client, snapshot_file=str(snapshot)) as server:

            async def written() -> bool:
                return snapshot.exists()

            await until(written)
        whole = snapshot.read_bytes()
        await api.client.delete(Service, "old", namespace="default")
        async with Serving(api.client, snapshot_file=str(snapshot)) as server:
            assert (await ask(server.port, "old.default.svc")).rcode() == dns.rcode.NXDOMAIN
    snapshot.write_bytes(whole.replace(b"10.96.0.30", b"10.96.0.31"))
    server = Serving(api.client, snapshot_file=str(snapshot))
    async with task_set() as tasks:
        tasks.start(server.server.run(api.client, lambda: pytest.fail("ready with a damaged view")))

        async def refused() -> bool:
            return (await ask(server.port, "old.default.svc")).rcode() == dns.rcode.SERVFAIL

        await until(refused)


async def test_records_are_answered_and_say_whether_they_are(tmp_path: Path, until: Any) -> None:
    config = tmp_path / "dns.yaml"
    config.write_text(
        "chain: [records: {zones: [apps.example]}, local: {zone: lab.example, records: [www A 192.0.2.9]}]"
    )
    async with api_server() as api:
        crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        await api.client.request("POST", crd, body=msgspec.json.encode(definition()))

        async def established() -> bool:
            if not await served():
                return False
            return b'"dnsrecords"' in await api.client.request("GET", "/apis/dns.pilotage.dev/v1")

        async def served() -> bool:
            return b"dns.pilotage.dev" in await api.client.request("GET", "/apis")

        await until(established)

        async def create(name: str, owner: str, rtype: str, value: str) -> None:
            document = {
                "apiVersion": "dns.pilotage.dev/v1",
                "kind": "DNSRecord",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"name": owner, "records": [{"type": rtype, "value": value}]},
            }
            path = "/apis/dns.pilotage.dev/v1/namespaces/default/dnsrecords"
            await api.client.request("POST", path, body=msgspec.json.encode(document))

        async with Serving(api.client, config_file=str(config)) as server:
            await create("web", "web.apps.example", "A", "192.0.2.1")
            await create("alias", "alias.apps.example", "CNAME", "www.lab.example.")
            await create("theft", "kubernetes.default.svc.cluster.local", "A", "6.6.6.6")

            async def answered() -> bool:
                return answers(await ask(server.port, "web.apps.example.")) == ["192.0.2.1"]

            await until(answered)

            async def said() -> bool:
                items = (await api.client.list(DNSRecord)).items
                told = {i.metadata.name: [(c.status, c.reason) for c in i.status.conditions] for i in items}
                return told == {
                    "web": [("True", "Accepted")],
                    "alias": [("True", "Accepted")],
                    "theft": [("False", "Invalid")],
                }

            await until(said)
            assert answers(await ask(server.port, "alias.apps.example.")) == ["192.0.2.9", "www.lab.example."]
            assert answers(await ask(server.port, "kubernetes.default.svc")) != ["6.6.6.6"]
            await api.client.delete(DNSRecord, "web", namespace="default")

            async def gone() -> bool:
                return (await ask(server.port, "web.apps.example.")).rcode() == dns.rcode.REFUSED

            await until(gone)


async def test_leases_can_be_read(tmp_path: Path) -> None:
    async with api_server() as api:
        await api.client.create(service("web", "10.96.0.20"))
        port = free_port()
        async with Serving(api.client, health=f"127.0.0.1:{port}") as server:
            await ask(server.port, "web.default.svc")
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/leases") as response:
                assert json.loads(await response.text()) == {"seconds": {"10.96.0.20": 5.0}}
