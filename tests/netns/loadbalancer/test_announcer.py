"""The announcer on a real wire: a neighbour that asks for a balanced address learns this node's hardware address."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pilotage.api.core_v1 import Node, Service
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import Client
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer import AnnouncerConfig, run_announcer
from pilotage.network import interface_mac, namespaces
from pilotage.testing.cluster import api_server
from pilotage.testing.services import make_service

DEADLINE_S = 10.0
MINE, NOBODYS = "10.89.200.1", "10.89.200.2"


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def wire() -> Iterator[str]:
    """The node's end of a wire; its other end is in the namespace `neighbour`."""
    _ip("netns", "add", "neighbour")
    _ip("link", "add", "lb0", "type", "veth", "peer", "eth0", "netns", "neighbour")
    _ip("link", "set", "lb0", "up")
    _ip("-n", "neighbour", "addr", "add", "10.89.0.1/16", "dev", "eth0")
    _ip("-n", "neighbour", "link", "set", "eth0", "up")
    # The kernel gives an address up after three questions; by default they are a second apart.
    retrans = Path("/proc/sys/net/ipv4/neigh/eth0/retrans_time_ms")
    namespaces.run_in(Path("/run/netns/neighbour"), lambda: retrans.write_text("50"))
    yield "lb0"
    _ip("link", "del", "lb0")
    _ip("netns", "del", "neighbour")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with api_server() as server:
        await server.client.create(Node(metadata=ObjectMeta(name="n1")))
        await ready(server.client, "True")
        yield server.client


async def ready(client: Client, status: str) -> None:
    body = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
    await client.patch(Node, "n1", body, subresource="status")


async def balance(client: Client, address: str) -> None:
    await client.create(make_service(cluster_ip="10.96.0.77", type="LoadBalancer"))
    body = {"status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}}}
    await client.patch(Service, "web", body, namespace="default", subresource="status")


def ask(address: str) -> str:
    """What the neighbour's kernel knows of an address after sending it a packet."""
    with namespaces.socket_in(Path("/run/netns/neighbour"), socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"who", (address, 9))
    return _ip("-n", "neighbour", "neigh", "show", address)


async def until_known(address: str, state: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while state not in await asyncio.to_thread(ask, address):
            await asyncio.sleep(0.01)


async def test_a_neighbour_learns_who_has_the_address(wire: str, client: Client) -> None:
    mac = interface_mac(wire).hex(":")
    running = asyncio.Event()
    async with task_set() as tasks:
        tasks.start(run_announcer(AnnouncerConfig(node="n1", interface=wire), client, on_ready=running.set))
        async with asyncio.timeout(DEADLINE_S):
            await running.wait()
        await balance(client, MINE)
        await until_known(MINE, mac)
        await until_known(NOBODYS, "FAILED")


async def test_a_node_that_is_not_ready_is_silent(wire: str, client: Client) -> None:
    mac = interface_mac(wire).hex(":")
    await balance(client, MINE)
    await ready(client, "False")
    running = asyncio.Event()
    async with task_set() as tasks:
        tasks.start(run_announcer(AnnouncerConfig(node="n1", interface=wire), client, on_ready=running.set))
        async with asyncio.timeout(DEADLINE_S):
            await running.wait()
        await until_known(MINE, "FAILED")
        await ready(client, "True")
        await until_known(MINE, mac)
