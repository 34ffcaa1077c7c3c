"""Against a real API server: what is written there is what is answered here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dns.asyncquery
import dns.message
import dns.rcode

from pilotage.api.coordination_v1 import Lease
from pilotage.api.core_v1 import Namespace, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import Client
from pilotage.client.watermark import read_watermark
from pilotage.dns import Config, Server
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import ApiServer, api_server
from pilotage.testing.dns import endpoint, part, service
from pilotage.testing.etcd import free_port


class Dns:
    def __init__(self, server: Server) -> None:
        self.server = server

    async def ask(self, name: str, rtype: str = "A") -> tuple[str, list[str]]:
        address = self.server.addresses[0]
        query = dns.message.make_query(name if name.endswith(".") else f"{name}.cluster.local.", rtype)
        response = await dns.asyncquery.udp(query, address.host, timeout=10, port=address.port)
        code = dns.rcode.to_text(response.rcode())
        return code, sorted(str(r) for rrset in response.answer for r in rrset)


@asynccontextmanager
async def running(client: Client, **options: Any) -> AsyncIterator[Dns]:
    server = Server(Config(listen=("127.0.0.1:0",), node="n1", **options))
    ready = asyncio.Event()
    async with task_set() as tasks:
        tasks.start(server.run(client, ready.set))
        async with asyncio.timeout(20):
            await ready.wait()
        yield Dns(server)


async def _create_service(api: ApiServer, name: str, **spec: Any) -> Service:
    return await api.client.create(service(name, **spec))


async def test_what_is_written_is_answered_and_what_is_deleted_is_gone(until: Any) -> None:
    async with api_server() as api, running(api.client) as server:

        async def becomes(name: str, rtype: str, expected: tuple[str, list[str]]) -> None:
            async def same() -> bool:
                return await server.ask(name, rtype) == expected

            await until(same)

        assert await server.ask("db.default.svc") == ("NXDOMAIN", [])
        await _create_service(api, "db", ports=[("sql", 5432)])
        slice_ = await api.client.create(part("db", endpoint("10.244.1.7", "db-0"), ports=[("sql", 5432)]))
        await becomes("db.default.svc", "A", ("NOERROR", ["10.244.1.7"]))
        await becomes("db-0.db.default.svc", "A", ("NOERROR", ["10.244.1.7"]))
        target = "0 100 5432 db-0.db.default.svc.cluster.local."
        await becomes("_sql._tcp.db.default.svc", "SRV", ("NOERROR", [target]))
        await becomes("7.1.244.10.in-addr.arpa.", "PTR", ("NOERROR", ["db-0.db.default.svc.cluster.local."]))

        patch = {"endpoints": [{"addresses": ["10.244.2.8"], "conditions": {"ready": True}, "hostname": "db-1"}]}
        await api.client.patch(EndpointSlice, slice_.metadata.name, patch, namespace="default")
        await becomes("db.default.svc", "A", ("NOERROR", ["10.244.2.8"]))
        await becomes("db-0.db.default.svc", "A", ("NXDOMAIN", []))

        await api.client.delete(EndpointSlice, slice_.metadata.name, namespace="default")
        await becomes("db.default.svc", "A", ("NXDOMAIN", []))

        await _create_service(api, "legacy", external="db.default.svc.cluster.local")
        await becomes("legacy.default.svc", "CNAME", ("NOERROR", ["db.default.svc.cluster.local."]))

        await becomes("fresh.svc", "A", ("NXDOMAIN", []))
        await api.client.create(Namespace(metadata=ObjectMeta(name="fresh")))
        await becomes("fresh.svc", "A", ("NOERROR", []))


async def test_a_new_service_is_answered_within_moments(until: Any) -> None:
    async with api_server() as api, running(api.client) as server:
        # Asked before, so that the old answer is compiled and has to give way.
        assert await server.ask("web.default.svc") == ("NXDOMAIN", [])
        await api.client.create(service("web", "10.96.77.20"))
        written = time.monotonic()

        async def answered() -> bool:
            return await server.ask("web.default.svc") == ("NOERROR", ["10.96.77.20"])

        await until(answered)
        assert time.monotonic() - written < 2
        assert await server.ask("20.77.96.10.in-addr.arpa.", "PTR") == ("NOERROR", ["web.default.svc.cluster.local."])
        # The API server's own Service is there from the beginning.
        assert (await server.ask("kubernetes.default.svc"))[0] == "NOERROR"


async def test_the_watermark_follows_what_is_applied(until: Any) -> None:
    async with api_server() as api, running(api.client):
        made = await _create_service(api, "db")
        made_slice = await api.client.create(part("db", "10.244.1.7"))
        version = min(made.metadata.version_number, made_slice.metadata.version_number)

        async def reached() -> bool:
            leases = await api.client.list(Lease, namespace="kube-system")
            found = [lease for lease in leases.items if lease.metadata.name == "watermark-dns-n1"]
            return bool(found) and read_watermark(found[0]) >= version

        await until(reached)


async def test_the_process_stands_behind_the_dns_service_and_stays_there(until: Any) -> None:
    async with (
        api_server() as api,
        running(api.client, publish_service="kube-system/kube-dns", advertise=("10.89.0.11",)) as server,
    ):

        async def published() -> EndpointSlice | None:
            found = await api.client.list(EndpointSlice, namespace="kube-system")
            return next((part for part in found.items if part.metadata.name == "kube-dns-n1"), None)

        made = await until(published)
        assert made.service_name == "kube-dns"
        assert [e.addresses for e in made.endpoints] == [("10.89.0.11",)]
        assert made.endpoints[0].node_name == "n1"
        assert made.endpoints[0].is_ready
        port = server.server.addresses[0].port
        assert {(p.name, p.protocol, p.port) for p in made.ports} == {("dns", "UDP", port), ("dns-tcp", "TCP", port)}

        await api.client.delete(EndpointSlice, "kube-dns-n1", namespace="kube-system")
        again = await until(published)
        assert again.metadata.uid != made.metadata.uid

        await api.client.patch(EndpointSlice, "kube-dns-n1", {"endpoints": []}, namespace="kube-system")

        async def repaired() -> bool:
            part_ = await published()
            return part_ is not None and len(part_.endpoints) == 1

        await until(repaired)


async def test_while_the_api_is_away_the_last_state_is_answered() -> None:
    async with api_server() as api:
        await _create_service(api, "db")
        await api.client.create(part("db", "10.244.1.7"))
        client = Client.from_kubeconfig(api.kubeconfig_path)
        async with task_set() as tasks:
            server = Server(Config(listen=("127.0.0.1:0",), node="n1"))
            ready = asyncio.Event()
            async with client:
                tasks.start(server.run(client, ready.set))
                async with asyncio.timeout(20):
                    await ready.wait()
                assert await Dns(server).ask("db.default.svc") == ("NOERROR", ["10.244.1.7"])
            # The client is closed: from here on every request of the server's informers fails.
            assert await Dns(server).ask("db.default.svc") == ("NOERROR", ["10.244.1.7"])
            tasks.cancel_all()


async def test_metrics_and_readiness_are_served() -> None:
    import aiohttp

    async with api_server() as api:
        port = free_port()
        async with running(api.client, health=f"127.0.0.1:{port}") as server, aiohttp.ClientSession() as session:
            await server.ask("kubernetes.default.svc")
            await server.ask("kubernetes.default.svc")
            async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                assert response.status == 200
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                text = await response.text()
    assert 'pilotage_dns_queries_total{by="fast",transport="udp"}' in text
    assert "pilotage_dns_services_count 1.0" in text
