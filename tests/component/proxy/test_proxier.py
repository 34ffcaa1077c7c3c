"""The proxy against a real API server, with nf_tables in memory: what is written becomes rules and a watermark."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilotage.api.codec import encode
from pilotage.api.coordination_v1 import Lease
from pilotage.api.core_v1 import Event, Node, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.status import ApiError
from pilotage.client import Client, PatchType
from pilotage.client.watermark import read_watermark
from pilotage.kit.tasks import task_set
from pilotage.nft import NftError
from pilotage.nft.core.objects import DeleteElements, Transaction
from pilotage.nft.core.tracer import Packet, trace
from pilotage.proxy import Config, Proxier
from pilotage.proxy.backends.fake import FakeBackend
from pilotage.proxy.core.layout import Surroundings, sets, table
from pilotage.testing.cluster import ApiServer, api_server
from pilotage.testing.services import make_service, make_slice

DEADLINE_S = 30.0
VIP = "10.96.0.77"


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with api_server() as server:
        await server.client.create(Node(metadata=ObjectMeta(name="n1")))
        yield server


class World:
    def __init__(self, client: Client, backend: FakeBackend, proxier: Proxier) -> None:
        self.client, self.backend, self.proxier = client, backend, proxier

    def reached(self, to: str = f"{VIP}:80") -> str:
        address, _, port = to.rpartition(":")
        packet = Packet(source="10.244.1.9", destination=address, destination_port=int(port))
        outcome = trace(self.backend.nft.ruleset, packet, local=("10.89.0.11",))
        return outcome.destination if outcome.verdict == "accept" else outcome.verdict


@asynccontextmanager
async def running(client: Client, backend: FakeBackend | None = None, **config: Any) -> AsyncIterator[World]:
    kernel = backend or FakeBackend(surroundings=Surroundings(cluster_cidrs=("10.244.0.0/16",)))
    proxier = Proxier(Config(node="n1", **config), client, kernel, forget=lambda matches, **among: 0)
    ready = asyncio.Event()
    async with task_set() as tasks:
        tasks.start(proxier.run(ready.set), name="proxy")
        async with asyncio.timeout(DEADLINE_S):
            await ready.wait()
        yield World(client, kernel, proxier)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.002)


async def write(client: Client, service: Service | None = None, *slices: EndpointSlice) -> None:
    if service is not None:
        await client.create(service)
    for one in slices:
        # The codec leaves defaults out, and the server wants this field said.
        document = json.loads(encode(one)) | {"addressType": one.address_type}
        await client.apply(document, field_manager="test")


async def endpoints(client: Client, *addresses: str) -> EndpointSlice:
    body = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
    return await client.patch(EndpointSlice, "web-1", {"endpoints": body}, namespace="default")


SERVICE = make_service(cluster_ip=VIP, ip_families=("IPv4",), ip_family_policy="SingleStack")


async def test_what_is_there_at_the_start_is_programmed_before_it_is_ready(api: ApiServer) -> None:
    await write(api.client, SERVICE, make_slice(endpoints=["10.244.1.2"]))
    async with running(api.client) as world:
        assert world.reached() == "10.244.1.2:8080"


async def test_changes_arrive_one_after_the_other(api: ApiServer) -> None:
    async with running(api.client) as world:
        assert world.reached() == f"{VIP}:80"
        await write(api.client, SERVICE)
        await until(lambda: world.reached() == "reject")
        await write(api.client, None, make_slice(endpoints=["10.244.1.2"]))
        await until(lambda: world.reached() == "10.244.1.2:8080")
        await endpoints(api.client, "10.244.1.3")
        await until(lambda: world.reached() == "10.244.1.3:8080")
        await endpoints(api.client)
        await until(lambda: world.reached() == "reject")
        await api.client.delete(Service, "web", namespace="default")
        await until(lambda: world.reached() == f"{VIP}:80")


async def test_the_watermark_covers_a_write_once_it_is_in_the_kernel(api: ApiServer) -> None:
    async with running(api.client) as world:
        await write(api.client, SERVICE, make_slice(endpoints=["10.244.1.2"]))
        written = await endpoints(api.client, "10.244.1.3")
        # A write of the other kind: the watermark is the lower of the two.
        patched = await api.client.patch(Service, "web", {"metadata": {"labels": {"a": "b"}}}, namespace="default")
        goal = min(written.metadata.version_number, patched.metadata.version_number)
        await until(lambda: world.proxier.snapshot().watermark >= goal)
        assert world.reached() == "10.244.1.3:8080"
        async with asyncio.timeout(DEADLINE_S):
            while await published(api.client) < goal:
                await asyncio.sleep(0.01)


async def published(client: Client) -> int:
    try:
        return read_watermark(await client.get(Lease, "watermark-proxy-n1", namespace="kube-system"))
    except ApiError:
        return 0


async def test_a_refused_transaction_is_set_right(api: ApiServer) -> None:
    await write(api.client, SERVICE, make_slice(endpoints=["10.244.1.2"]))
    async with running(api.client) as world:
        world.backend.nft.refuse_next = NftError("busy", 16)
        await endpoints(api.client, "10.244.1.3")
        await until(lambda: world.reached() == "10.244.1.3:8080")
        assert world.proxier.snapshot().failures == 0


async def test_drift_is_found_and_repaired(api: ApiServer) -> None:
    await write(api.client, SERVICE, make_slice(endpoints=["10.244.1.2"]))
    async with running(api.client, audit_interval_s=0.01) as world:
        services = sets("ip").services
        (key,) = world.backend.nft.elements(table("ip"), services).keys() & {services.key.encode(VIP, "tcp", 80)}
        world.backend.nft.apply(Transaction((DeleteElements(table("ip"), services, (key,)),)))
        assert world.reached() != "10.244.1.2:8080"
        await until(lambda: world.reached() == "10.244.1.2:8080")


async def test_rules_stay_when_it_ends_and_a_successor_takes_over(api: ApiServer) -> None:
    await write(api.client, SERVICE, make_slice(endpoints=["10.244.1.2"]))
    async with running(api.client) as world:
        backend = world.backend
    assert world.reached() == "10.244.1.2:8080"
    await endpoints(api.client, "10.244.1.3")
    async with running(api.client, backend) as again:
        assert again.reached() == "10.244.1.3:8080"


async def test_a_service_that_claims_anothers_address_is_told(api: ApiServer) -> None:
    await write(api.client, SERVICE)
    rival = make_service(
        "rival", "10.96.0.78", external_ips=(VIP,), ip_families=("IPv4",), ip_family_policy="SingleStack"
    )
    async with running(api.client) as world:
        await write(api.client, rival)
        await until(lambda: any(one.reason == "AddressInUse" for one in world.proxier.snapshot().problems))
        async with asyncio.timeout(DEADLINE_S):
            while not [one for one in (await api.client.list(Event)).items if one.reason == "AddressInUse"]:
                await asyncio.sleep(0.01)


async def test_its_own_zone_decides_about_hints(api: ApiServer) -> None:
    body = [
        {"addresses": [address], "conditions": {"ready": True}, "hints": {"forZones": [{"name": zone}]}}
        for address, zone in (("10.244.1.2", "zone-a"), ("10.244.2.2", "zone-b"))
    ]
    await write(api.client, SERVICE, make_slice(endpoints=["10.244.1.2"]))
    await api.client.patch(EndpointSlice, "web-1", {"endpoints": body}, namespace="default")
    async with running(api.client) as world:
        for zone, reached in (("zone-b", "10.244.2.2:8080"), ("zone-a", "10.244.1.2:8080")):
            labels = {"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}
            await api.client.patch(Node, "n1", labels, patch_type=PatchType.MERGE)
            await until(lambda zone=zone: world.proxier.snapshot().zone == zone)  # type: ignore[misc]
            await until(lambda reached=reached: world.reached() == reached)  # type: ignore[misc]
