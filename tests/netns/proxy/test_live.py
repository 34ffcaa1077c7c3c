"""The whole proxy on a real kernel: writes to a real API server, then real connections in namespaces."""

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilotage.api.codec import encode
from pilotage.api.core_v1 import Node, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import Client
from pilotage.kit.tasks import task_set
from pilotage.network import forget_flows, namespaces
from pilotage.network.core.conntrack import Flow
from pilotage.proxy import Config, Proxier, cleanup
from pilotage.proxy.backends.nftables import NftablesBackend
from pilotage.proxy.core.plan import Planner
from pilotage.proxy.core.topology import NodeView
from pilotage.testing.cluster import api_server
from pilotage.testing.services import make_service, make_slice

from .conftest import World, further_addresses, path

DEADLINE_S = 30.0
VIP = "10.96.0.77:80"


def forget_in_node(matches: Callable[[Flow], bool], **among: Any) -> int:
    return namespaces.run_in(path("n1"), lambda: forget_flows(matches, **among))


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with api_server() as server:
        await server.client.create(Node(metadata=ObjectMeta(name="n1")))
        yield server.client


@asynccontextmanager
async def running(client: Client, backend: NftablesBackend, *, audit_interval_s: float = 1.0) -> AsyncIterator[Proxier]:
    proxier = Proxier(Config(node="n1", audit_interval_s=audit_interval_s), client, backend, forget=forget_in_node)
    ready = asyncio.Event()
    async with task_set() as tasks:
        tasks.start(proxier.run(ready.set), name="proxy")
        async with asyncio.timeout(DEADLINE_S):
            await ready.wait()
        yield proxier


async def write(client: Client, protocol: str, *endpoints: str) -> EndpointSlice:
    one = make_slice(endpoints=endpoints, ports=[f"8080/{protocol}"])
    await client.apply(json.loads(encode(one)) | {"addressType": "IPv4"}, field_manager="test")
    return await client.get(EndpointSlice, "web-1", namespace="default")


async def until(ask: Callable[[], str], answer: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await asyncio.to_thread(ask) != answer:
            await asyncio.sleep(0.002)


async def test_from_a_write_to_a_connection_and_back(world: World, client: Client, backend: NftablesBackend) -> None:
    async with running(client, backend):
        await client.create(make_service(cluster_ip="10.96.0.77"))
        await until(lambda: world.ask("a", VIP), "refused")
        await write(client, "TCP", "10.244.1.3@n1")
        await until(lambda: world.ask("a", VIP), "b 10.244.1.2")
        await write(client, "TCP", "10.244.2.2@n2")
        await until(lambda: world.ask("a", VIP), "c 10.244.1.2")
    assert world.ask("a", VIP) == "c 10.244.1.2", "the rules stay when the proxy ends"


async def test_a_datagram_flow_moves_by_itself(world: World, client: Client, backend: NftablesBackend) -> None:
    await client.create(make_service(cluster_ip="10.96.0.77", ports=["80/UDP"]))
    await write(client, "UDP", "10.244.1.3@n1")
    async with running(client, backend):
        with world.udp_socket("a", VIP) as sock:
            await until(lambda: world.ask("a", VIP, udp=True, sock=sock), "b 10.244.1.2")
            await write(client, "UDP", "10.244.2.2@n2")
            await until(lambda: world.ask("a", VIP, udp=True, sock=sock), "c 10.244.1.2")
            await client.delete(Service, "web", namespace="default")
            await until(lambda: world.ask("a", VIP, udp=True, sock=sock), "silence")


async def published(proxier: Proxier, written: EndpointSlice) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while proxier.snapshot().watermark < written.metadata.version_number:
            await asyncio.sleep(0.002)


def from_port(port: int) -> socket.socket:
    """One of pod a's, and none that the kernel gives to whoever asks for any."""
    sock = namespaces.socket_in(path("a"), socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(DEADLINE_S)
    sock.bind(("10.244.1.2", port))
    return sock


def listening() -> socket.socket:
    """At the endpoint 10.244.1.4."""
    sock = namespaces.socket_in(path("b"), socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("10.244.1.4", 8080))
    sock.listen()
    return sock


def be_reset(world: World, port: int) -> None:
    """Connect, and have the endpoint 10.244.1.4 end before it has answered."""
    with (
        further_addresses("b", ["10.244.1.4"]),
        listening() as listener,
        from_port(port) as sock,
    ):
        sock.connect(("10.96.0.77", 80))
        listener.close()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


@pytest.mark.parametrize("away", [False, True], ids=["live", "found at start"])
async def test_where_a_reset_connection_went_is_forgotten(
    world: World, client: Client, backend: NftablesBackend, away: bool
) -> None:
    """The kernel keeps it for ten seconds, and would send the next connection from the same port there too."""
    port = 20_001 + away  # a kernel does not let a pod connect from where it has just closed
    await client.create(make_service(cluster_ip="10.96.0.77"))
    await write(client, "TCP", "10.244.1.4@n1")
    async with running(client, backend) as proxier:
        await asyncio.to_thread(be_reset, world, port)
        if not away:
            await published(proxier, await write(client, "TCP", "10.244.2.2@n2"))
    await write(client, "TCP", "10.244.2.2@n2")
    async with running(client, backend):
        with from_port(port) as sock:
            assert await asyncio.to_thread(world.ask, "a", VIP, sock=sock) == "c 10.244.1.2"


async def test_a_connection_that_waits_for_a_dead_endpoint_goes_to_the_next(
    world: World, client: Client, backend: NftablesBackend
) -> None:
    """Its first packet is sent again a second later; three seconds after the first it would be unreachable."""
    await client.create(make_service(cluster_ip="10.96.0.77"))
    await write(client, "TCP", "10.244.1.4@n1")
    async with running(client, backend), task_set() as tasks:
        with from_port(20_003) as sock:

            async def move() -> None:
                await asyncio.sleep(0.2)
                await write(client, "TCP", "10.244.2.2@n2")

            tasks.start(move(), name="move")
            asked = await asyncio.to_thread(world.ask, "a", VIP, sock=sock, patience_s=DEADLINE_S)
            assert asked == "c 10.244.1.2"


async def test_an_established_connection_outlives_its_endpoint(
    world: World, client: Client, backend: NftablesBackend
) -> None:
    await client.create(make_service(cluster_ip="10.96.0.77"))
    await write(client, "TCP", "10.244.1.4@n1")
    async with running(client, backend) as proxier:
        with further_addresses("b", ["10.244.1.4"]), listening() as listener, from_port(20_004) as sock:
            sock.connect(("10.96.0.77", 80))
            accepted, _ = listener.accept()
            with accepted:
                await published(proxier, await write(client, "TCP", "10.244.2.2@n2"))
                accepted.sendall(b"still here")
                assert sock.recv(100) == b"still here"


async def test_what_changed_while_it_was_away(world: World, client: Client, backend: NftablesBackend) -> None:
    await client.create(make_service(cluster_ip="10.96.0.77", ports=["80/UDP"]))
    await write(client, "UDP", "10.244.1.3@n1")
    with world.udp_socket("a", VIP) as sock:
        async with running(client, backend):
            await until(lambda: world.ask("a", VIP, udp=True, sock=sock), "b 10.244.1.2")
        await write(client, "UDP", "10.244.2.2@n2")
        async with running(client, backend):
            await until(lambda: world.ask("a", VIP, udp=True, sock=sock), "c 10.244.1.2")


@pytest.mark.parametrize(
    "command",
    [
        "flush map ip pilotage services",
        "flush map ip pilotage backends",
        "flush chain ip pilotage dispatch",
        "insert rule ip pilotage dispatch drop",
        "delete table ip pilotage",
        "flush ruleset",
    ],
)
async def test_rules_bent_by_hand_are_set_right(
    world: World, client: Client, backend: NftablesBackend, command: str
) -> None:
    await client.create(make_service(cluster_ip="10.96.0.77"))
    await write(client, "TCP", "10.244.1.3@n1")
    async with running(client, backend, audit_interval_s=0.05) as proxier:
        assert await asyncio.to_thread(world.ask, "a", VIP) == "b 10.244.1.2"
        async with proxier._kernel:  # no repair before we have seen the damage
            namespaces.run_in(path("n1"), lambda: _nft(command))
            assert await asyncio.to_thread(world.ask, "a", VIP) != "b 10.244.1.2"
        await until(lambda: world.ask("a", VIP), "b 10.244.1.2")


def test_cleanup_removes_the_rules_and_nothing_else(world: World, backend: NftablesBackend) -> None:
    def tables() -> str:
        return subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout

    def bring_and_clean() -> tuple[str, str]:
        _nft("add table ip somebody-elses")
        backend.sync(Planner(NodeView(name="n1")).plan())
        before = tables()
        cleanup()
        after = tables()
        _nft("delete table ip somebody-elses")
        return before, after

    before, after = namespaces.run_in(path("n1"), bring_and_clean)
    assert "table ip pilotage" in before
    assert after.split("\n") == [line for line in before.split("\n") if "pilotage" not in line]


def _nft(command: str) -> None:
    from pilotage.nft.libnftables import Libnftables

    library = Libnftables()
    library.run(command)
    library.close()
