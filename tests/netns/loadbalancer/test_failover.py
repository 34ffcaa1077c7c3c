"""A client on the link reaches a balanced IPv6 address, and goes on reaching it when the node that has it dies.

Two nodes, each with its proxy and announcer as processes in a network namespace of its own, and a client in a third, on
a bridge that takes note of who wants which multicast. Each node has an endpoint of its own, so that the
answer tells which node was reached.
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from pilotage.api.core_v1 import Node
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import Client
from pilotage.loadbalancer.core.speaker import speaker
from pilotage.network import namespaces
from pilotage.testing.cluster import ApiServer, api_server

PILOTAGE = str(Path(sys.executable).with_name("pilotage"))
DEADLINE_S = 30.0
CONNECT_TIMEOUT_S = 1.0
VIP, GROUP = "fd00:89::200:7", "ff02::1:ff00:7"
ADDRESSES = {"n1": "fd00:89::11", "n2": "fd00:89::12", "client": "fd00:89::1"}
NODES = ("n1", "n2")
KERNEL = {"conf/all/forwarding": "1", "conf/default/accept_dad": "0"}
# What the client once knew it believes for longer than the test takes.
LINK = {"neigh/eth0/base_reachable_time_ms": "600000"}


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def _at(namespace: str) -> Path:
    return Path("/run/netns") / namespace


def _write(values: dict[str, str]) -> None:
    for name, value in values.items():
        Path("/proc/sys/net/ipv6", name).write_text(value)


@pytest.fixture
def link() -> Iterator[None]:
    _ip("link", "add", "link0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "1")
    _ip("link", "set", "link0", "up")
    for name, address in ADDRESSES.items():
        _ip("netns", "add", name)
        namespaces.run_in(_at(name), lambda: _write(KERNEL))
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", f"p{name}", "type", "veth", "peer", "eth0", "netns", name)
        _ip("link", "set", f"p{name}", "master", "link0", "up")
        namespaces.run_in(_at(name), lambda: _write(LINK))
        _ip("-n", name, "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        _ip("-n", name, "link", "set", "eth0", "up")
    yield
    for name in ADDRESSES:
        _ip("netns", "del", name)
    _ip("link", "del", "link0")


async def relay(namespace: str, address: tuple[str, int]) -> asyncio.Server:
    """The API server at its own address on the loopback of another namespace."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(*address)
            await asyncio.gather(pump(reader, back), pump(there, writer))

    sock = namespaces.socket_in(_at(namespace), socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(address)
    return await asyncio.start_server(serve, sock=sock)


async def endpoint(node: str) -> asyncio.Server:
    """Tells whoever connects which node it is."""

    async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(node.encode())
        writer.close()

    sock = namespaces.socket_in(_at(node), socket.AF_INET6, socket.SOCK_STREAM)
    sock.bind((ADDRESSES[node], 8080))
    return await asyncio.start_server(tell, sock=sock)


@asynccontextmanager
async def component(node: str, api: ApiServer, *words: str) -> AsyncIterator[None]:
    """A command of ours in the node's namespace."""
    command = (PILOTAGE, words[0], "--kubeconfig", str(api.kubeconfig_path), "--node", node, *words[1:])
    process = await asyncio.create_subprocess_exec("ip", "netns", "exec", node, *command)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def reached() -> str:
    """Which node answers the client at the balanced address; empty when none does."""
    with namespaces.socket_in(_at("client"), socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.settimeout(CONNECT_TIMEOUT_S)
        try:
            sock.connect((VIP, 80))
            return sock.recv(100).decode()
        except OSError:
            return ""


async def until_reached(node: str) -> None:
    seen: set[str] = set()
    try:
        async with asyncio.timeout(DEADLINE_S):
            while (last := await asyncio.to_thread(reached)) != node:
                seen.add(last)
                await asyncio.sleep(0.01)
    except TimeoutError:
        known = _ip("-n", "client", "neigh", "show", VIP)
        raise AssertionError(f"{node} is not reached, but {seen}; the client knows {known!r}") from None


async def until_listening(node: str) -> None:
    """Until the bridge knows that the node wants to hear the questions for the address (MLD)."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            shown = subprocess.run(["bridge", "-j", "mdb", "show"], check=True, capture_output=True, text=True).stdout
            entries = [entry for bridge in json.loads(shown) for entry in bridge["mdb"]]
            if any((entry["port"], entry["grp"]) == (f"p{node}", GROUP) for entry in entries):
                return
            await asyncio.sleep(0.01)


async def say_ready(client: Client, node: str, status: str) -> None:
    body = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
    await client.patch(Node, node, body, subresource="status")


def mac(namespace: str) -> str:
    (found,) = json.loads(_ip("-n", namespace, "-j", "link", "show", "dev", "eth0"))
    return str(found["address"])


async def test_a_client_reaches_the_address_on_whichever_node_has_it(link: None) -> None:
    first = speaker(VIP, NODES)
    second = next(node for node in NODES if node != first)
    async with api_server(service_cidr="fd00:96::/112") as api, AsyncExitStack() as stack:
        host, _, port = api.url.removeprefix("https://").rpartition(":")
        for node in NODES:
            await api.client.create(Node(metadata=ObjectMeta(name=node)))
            await say_ready(api.client, node, "True")
            for server in (await relay(node, (host, int(port))), await endpoint(node)):
                stack.callback(server.close)
            for words in (("proxy",), ("loadbalancer", "--interface", "eth0")):
                await stack.enter_async_context(component(node, api, *words))
        await serve_at(api.client, VIP)
        await until_reached(first)
        assert mac(first) in _ip("-n", "client", "neigh", "show", VIP)

        await until_listening(first)
        _ip("-n", "client", "neigh", "flush", "dev", "eth0")  # it has to ask, once all announcements are made
        await until_reached(first)

        _ip("-n", first, "link", "set", "eth0", "down")
        await say_ready(api.client, first, "Unknown")
        await until_reached(second)
        assert mac(second) in _ip("-n", "client", "neigh", "show", VIP)

        _ip("-n", first, "link", "set", "eth0", "up")
        _ip("-n", first, "addr", "replace", f"{ADDRESSES[first]}/64", "dev", "eth0", "nodad")
        await say_ready(api.client, first, "True")
        await until_reached(first)


async def serve_at(client: Client, address: str) -> None:
    """A balanced Service with an endpoint on each node, which the node that is reached answers itself."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {
            "type": "LoadBalancer",
            "ipFamilies": ["IPv6"],
            "externalTrafficPolicy": "Local",
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    }
    part = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv6",
        "endpoints": [
            {"addresses": [ADDRESSES[node]], "nodeName": node, "conditions": {"ready": True}} for node in NODES
        ],
        "ports": [{"port": 8080, "protocol": "TCP", "name": ""}],
    }
    await client.apply(service, field_manager="test")
    await client.apply(part, field_manager="test")
    status = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}},
    }
    await client.apply(status, field_manager="test", subresource="status")
