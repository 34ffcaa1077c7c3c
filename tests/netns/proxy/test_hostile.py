"""A Service as large as nobody should make one: the proxy is a process, its kernel and its API server are real."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from pilotage.api.codec import encode
from pilotage.api.core_v1 import Event
from pilotage.client import Client
from pilotage.testing.cluster import ApiServer
from pilotage.testing.services import make_service, make_slice

from .conftest import BACKENDS, skip_without
from .test_audit import ENDPOINT, VIP, Clients, endpoint, pilotage, server
from .test_live import write

__all__ = ["endpoint", "server"]  # the fixtures

ENDPOINTS, IN_A_SLICE = 100_000, 1000
DEADLINE_S = 100.0  # a tenth of that on an idle machine
MEMORY_MB_MAX = 200  # as for 10,000 Services with as many endpoints


async def write_huge(client: Client) -> None:
    one_family = {"ip_families": ("IPv4",), "ip_family_policy": "SingleStack"}
    await client.create(make_service("huge", "10.96.0.78", **one_family))
    for part in range(ENDPOINTS // IN_A_SLICE):
        numbers = range(part * IN_A_SLICE, (part + 1) * IN_A_SLICE)
        addresses = [f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}" for number in numbers]
        one = make_slice("huge", addresses, name=f"huge-{part}")
        await client.apply(json.loads(encode(one)) | {"addressType": "IPv4"}, field_manager="test")


async def told(client: Client, reason: str) -> list[str]:
    return [one.message for one in (await client.list(Event)).items if one.reason == reason]


def memory_mb(process: int) -> float:
    """The most it ever had."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_hundred_thousand_endpoints_of_one_service_disturb_no_other(
    server: ApiServer, endpoint: None, tmp_path: Path, backend: str
) -> None:
    skip_without(backend)
    await server.client.create(make_service(cluster_ip=VIP))
    await write(server.client, "TCP", f"{ENDPOINT}@n1")
    identity = ("--kubeconfig", str(server.kubeconfig_path), "--node", "n1", "--backend", backend)
    clients, log = Clients(), tmp_path / "proxy.log"

    async def until(line: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while line not in log.read_text():
                await asyncio.sleep(0.02)

    try:
        with log.open("w") as file, subprocess.Popen(pilotage("proxy", *identity), stderr=file) as process:
            try:
                await until('"event": "ready"')
                clients.start()
                await write_huge(server.client)
                async with asyncio.timeout(DEADLINE_S):
                    while f"port 80: {ENDPOINTS} endpoints, 32767 are used" not in await told(
                        server.client, "TooManyEndpoints"
                    ):
                        await asyncio.sleep(0.05)
                    # A change of another Service beside it.
                    await write(server.client, "TCP", f"{ENDPOINT}@n1", "10.244.9.9@n2")
                    await write(server.client, "TCP", f"{ENDPOINT}@n1")
                    made = clients.made
                    while clients.made < made + 50:
                        await asyncio.sleep(0.02)
                assert memory_mb(process.pid) < MEMORY_MB_MAX
                check = await asyncio.to_thread(
                    subprocess.run, pilotage("proxy", "check", *identity), capture_output=True, text=True
                )
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait)
    finally:
        clients.ended.set()
    await asyncio.to_thread(clients.join, 20.0)
    assert check.returncode == 0, check
    assert "Service default/huge: TooManyEndpoints" in check.stdout
    assert clients.made > 50
    assert clients.failed == 0
