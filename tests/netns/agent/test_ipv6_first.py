"""A node whose first family is IPv6: pods' first addresses, what probes ask, host ports of both families."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilotage.api.core_v1 import Node

from .conftest import NodeUnderTest, node_under_test
from .test_pods import is_ready

# Two servers: only IPv6 has the port that is probed, and both have the other.
SERVE = """
import socket, threading
def serve(listening):
    while True:
        connection, _ = listening.accept()
        connection.sendall(b"pod")
        connection.close()
probed = socket.create_server(("::", 81), family=socket.AF_INET6)
both = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
threading.Thread(target=serve, args=(probed,)).start()
serve(both)
"""


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeUnderTest]:
    async with node_under_test(tmp_path) as node:
        node.config = replace(
            node.config,
            node_ip="::1",
            second_node_ip="127.0.0.1",
            pod_cidr="fd00:10:244:1::/64",
            second_pod_cidr="10.244.1.0/24",
        )
        await node.start_agent()
        yield node
        await node.clear()


async def test_the_first_address_is_of_ipv6_and_ports_of_the_node_lead_to_both(node: NodeUnderTest) -> None:
    found = (await node.client.get(Node, "n1")).status.addresses
    assert [one.address for one in found if one.type == "InternalIP"] == ["::1", "127.0.0.1"]
    container = {
        "name": "c",
        "command": ["python3", "-c", SERVE],
        "ports": [{"containerPort": 80, "hostPort": 18080}],
        "readinessProbe": {"tcpSocket": {"port": 81}, "periodSeconds": 1},
    }
    await node.create("web", {"containers": [container]})
    pod = await node.wait("web", is_ready)
    addresses = [one.ip for one in pod.status.pod_ips]
    assert addresses[0] == pod.status.pod_ip
    assert [":" in address for address in addresses] == [True, False]
    assert [one.ip for one in pod.status.host_ips] == ["::1", "127.0.0.1"]
    for gateway in ("fd00:10:244:1::1", "10.244.1.1"):  # addresses of the node
        assert await asyncio.to_thread(ask, gateway, 18080) == b"pod"


def ask(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), 3) as connection:
        return connection.recv(100)
