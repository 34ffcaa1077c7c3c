"""The announcer on a real wire: a neighbour that asks for a balanced address learns this node's hardware address.

By ARP and by neighbour discovery; the neighbour is the kernel.
"""

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilotage.api.core_v1 import Node, Service
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import Client
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer import AnnouncerConfig, neighbours, run_announcer
from pilotage.loadbalancer.core import ndp
from pilotage.network import ETHERTYPE_IPV6, interface_mac, namespaces, open_packet_socket
from pilotage.testing.cluster import api_server
from pilotage.testing.services import make_service

DEADLINE_S = 30.0
NEIGHBOUR = Path("/run/netns/neighbour")
FAMILIES = [("10.89.200.1", "10.89.200.2"), ("fd00:89::200:1", "fd00:89::200:2")]
"""An address of this node, and one of nobody."""

both_families = pytest.mark.parametrize(("mine", "nobodys"), FAMILIES, ids=["ARP", "NDP"])


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def _be_quick() -> None:
    """The kernel gives an address up after three questions; by default they are a second apart."""
    for family in ("ipv4", "ipv6"):
        Path(f"/proc/sys/net/{family}/neigh/eth0/retrans_time_ms").write_text("50")
    Path("/proc/sys/net/ipv6/conf/eth0/accept_dad").write_text("0")  # its link-local address is good at once


@pytest.fixture
def wire() -> Iterator[str]:
    """The node's end of a wire; its other end is in the namespace `neighbour`."""
    _ip("netns", "add", "neighbour")
    _ip("link", "add", "lb0", "type", "veth", "peer", "eth0", "netns", "neighbour")
    _ip("link", "set", "lb0", "up")
    _ip("-n", "neighbour", "addr", "add", "10.89.0.1/16", "dev", "eth0")
    _ip("-n", "neighbour", "addr", "add", "fd00:89::1/64", "dev", "eth0", "nodad")
    namespaces.run_in(NEIGHBOUR, _be_quick)
    _ip("-n", "neighbour", "link", "set", "eth0", "up")
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
    # An address of IPv6 need not be the Service's own family here: the announcer answers for what is assigned.
    body = {"status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}}}
    await client.patch(Service, "web", body, namespace="default", subresource="status")


def ask(address: str) -> str:
    """What the neighbour's kernel knows of an address after sending it a packet."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespaces.socket_in(NEIGHBOUR, family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"who", (address, 9))
    return _ip("-n", "neighbour", "neigh", "show", address)


async def until_known(address: str, state: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while state not in await asyncio.to_thread(ask, address):
            await asyncio.sleep(0.01)


@pytest.fixture
def unannounced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a neighbour learns it has asked for."""
    monkeypatch.setattr(neighbours, "ANNOUNCEMENTS", 0)


@asynccontextmanager
async def running(client: Client, interface: str) -> AsyncIterator[None]:
    started = asyncio.Event()
    async with task_set() as tasks:
        tasks.start(run_announcer(AnnouncerConfig(node="n1", interface=interface), client, on_ready=started.set))
        async with asyncio.timeout(DEADLINE_S):
            await started.wait()
        yield


@both_families
@pytest.mark.usefixtures("unannounced")
async def test_a_neighbour_learns_who_has_the_address(wire: str, client: Client, mine: str, nobodys: str) -> None:
    mac = interface_mac(wire).hex(":")
    async with running(client, wire):
        await balance(client, mine)
        await until_known(mine, mac)
        await until_known(nobodys, "FAILED")


@both_families
@pytest.mark.usefixtures("unannounced")
async def test_a_node_that_is_not_ready_is_silent(wire: str, client: Client, mine: str, nobodys: str) -> None:
    mac = interface_mac(wire).hex(":")
    await balance(client, mine)
    await ready(client, "False")
    async with running(client, wire):
        await until_known(mine, "FAILED")
        await ready(client, "True")
        await until_known(mine, mac)


@pytest.mark.usefixtures("unannounced")
async def test_nobody_on_the_link_can_take_an_address_that_is_answered_for(wire: str, client: Client) -> None:
    """Duplicate address detection, as the kernel does it."""
    mine, nobodys = FAMILIES[1]
    namespaces.run_in(NEIGHBOUR, lambda: Path("/proc/sys/net/ipv6/conf/eth0/accept_dad").write_text("1"))
    await balance(client, mine)
    async with running(client, wire):
        await until_known(mine, interface_mac(wire).hex(":"))
        for address in (mine, nobodys):
            _ip("-n", "neighbour", "addr", "add", f"{address}/64", "dev", "eth0")

        async with asyncio.timeout(DEADLINE_S):
            while True:
                (link,) = json.loads(_ip("-n", "neighbour", "-j", "addr", "show", "dev", "eth0"))
                state = {each["local"]: each for each in link["addr_info"]}
                if state[mine].get("dadfailed") and not state[nobodys].get("tentative"):
                    break
                await asyncio.sleep(0.01)


async def test_every_announcement_is_made_three_times_and_by_the_owner_alone(
    wire: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "ANNOUNCEMENT_INTERVAL_S", 0.05)
    mine, nobodys = FAMILIES[1]
    sent = {address: ndp.announcement(address, interface_mac(wire)) for address in FAMILIES[1]}
    with namespaces.run_in(NEIGHBOUR, lambda: open_packet_socket("eth0", ETHERTYPE_IPV6)) as heard:
        made = neighbours.Neighbours(wire)
        made.listen()
        assert made.answer_for([mine, nobodys]) == {mine, nobodys}
        async with task_set() as tasks, asyncio.timeout(DEADLINE_S):
            tasks.start(made.announce([mine, nobodys]))
            await asyncio.sleep(0)  # the first ones are out
            assert made.answer_for([mine]) == frozenset()
            count = dict.fromkeys(sent, 0)
            while count[mine] < 3:
                frame = await asyncio.get_running_loop().sock_recv(heard, 2048)
                for address, expected in sent.items():
                    count[address] += frame == expected
            assert count == {mine: 3, nobodys: 1}
        made.close()


async def test_of_all_traffic_only_solicitations_wake_the_announcer(wire: str) -> None:
    wanted = bytes.fromhex("333300000001 020000000009 86dd 6000000000183aff") + bytes(32) + b"\x87" + bytes(23)
    others = [
        wanted[:54] + b"\x88" + wanted[55:],
        wanted[:20] + b"\x11" + wanted[21:],
        wanted[:20] + b"\x06" + wanted[21:],
        wanted[:40],
    ]
    made = neighbours.Neighbours(wire)
    chosen, loop = made._protocols["IPv6"].socket, asyncio.get_running_loop()
    with (
        open_packet_socket(wire, ETHERTYPE_IPV6, all_multicast=True) as everything,
        namespaces.run_in(NEIGHBOUR, lambda: open_packet_socket("eth0", ETHERTYPE_IPV6)) as sender,
    ):
        for frame in (*others, wanted):
            sender.send(frame)
        async with asyncio.timeout(DEADLINE_S):
            heard = []
            while (frame := await loop.sock_recv(everything, 2048)) != wanted:
                heard += [frame] if frame in others else []
            assert heard == others
            while (frame := await loop.sock_recv(chosen, 2048)) != wanted:
                assert frame[54] == 135  # the kernels' own
    made.close()


async def test_a_node_with_many_addresses_is_in_the_group_of_each(wire: str) -> None:
    made = neighbours.Neighbours(wire)
    addresses = {f"fd00:89::200:{number:x}" for number in range(1, 1001)}

    def groups() -> set[str]:
        (link,) = json.loads(_ip("-j", "maddr", "show", "dev", wire))
        return {entry["address"] for entry in link["maddr"] if entry.get("family") == "inet6"}

    before = groups()
    made.answer_for(addresses)
    assert groups() - before == {ndp.solicited_node(address) for address in addresses}
    made.answer_for({"fd00:89::200:9"})
    assert groups() - before == {"ff02::1:ff00:9"}
    made.close()
    assert groups() == before
