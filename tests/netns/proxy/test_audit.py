"""What the proxy says about the kernel, on the kernel: check, other owners, and a process that is killed."""

import asyncio
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pilotage.api.core_v1 import Node, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import Client
from pilotage.kit.tasks import task_set
from pilotage.network import namespaces
from pilotage.proxy import check, cleanup
from pilotage.proxy.backends.nftables import NftablesBackend
from pilotage.proxy.core.plan import Plan
from pilotage.proxy.core.topology import NodeView
from pilotage.proxy.core.whole import plan_everything
from pilotage.testing.cluster import ApiServer, api_server
from pilotage.testing.services import make_service, make_slice

from .conftest import World, path
from .test_live import _nft, write

DEADLINE_S = 20.0
ENDPOINT, VIP = "10.244.77.1", "10.96.0.77"
KILLS = 3


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with api_server() as running:
        await running.client.create(Node(metadata=ObjectMeta(name="n1")))
        yield running


def planned() -> Plan:
    services = [make_service(cluster_ip=VIP, session_affinity="ClientIP")]
    return plan_everything(services, [make_slice(endpoints=["10.244.1.3@n1"])], NodeView(name="n1"))


def in_node(command: str) -> None:
    namespaces.run_in(path("n1"), lambda: _nft(command))


def test_others_may_do_as_they_like_in_their_own_tables(world: World, backend: NftablesBackend) -> None:
    plan = planned()
    backend.sync(plan)
    backend.disturbed()  # begins to listen
    backend.audit(plan)
    assert not backend.disturbed()
    in_node("add table ip somebody-elses")
    in_node("add chain ip somebody-elses theirs")
    assert not backend.disturbed(), "nothing of ours"
    in_node("add chain ip pilotage theirs")
    assert backend.disturbed()
    (found,) = backend.audit(plan)
    assert (found.kind, found.element) == ("unexpected", "chain theirs")
    assert found.by, "the kernel says who it was"
    assert not backend.disturbed()
    in_node("delete table ip somebody-elses")
    assert not backend.disturbed()


@pytest.mark.parametrize(
    ("command", "kind", "element"),
    [
        pytest.param("delete chain ip pilotage spread-16", "missing", "chain spread-16", id="a chain removed"),
        pytest.param("add rule ip pilotage guard drop", "changed", "chain guard", id="a rule added"),
        pytest.param("add set ip pilotage x { type mark; }", "unexpected", "set x", id="a set added"),
        pytest.param("add table ip pilotage { flags dormant; }", "changed", "table", id="the table put to sleep"),
        pytest.param("flush map ip pilotage spread", "missing", "0:1 : goto spread-1", id="an element removed"),
        pytest.param(
            "add element ip pilotage cluster-ips { 192.0.2.1 }", "unexpected", "192.0.2.1", id="an element added"
        ),
    ],
)
def test_each_difference_is_named_and_repaired(
    world: World, backend: NftablesBackend, command: str, kind: str, element: str
) -> None:
    plan = planned()
    backend.sync(plan)
    backend.disturbed()
    backend.audit(plan)
    in_node(command)
    assert backend.disturbed()
    assert [(one.kind, one.element) for one in backend.audit(plan, repair=False)] == [(kind, element)]
    assert [(one.kind, one.element) for one in backend.audit(plan)] == [(kind, element)]
    assert backend.audit(plan, repair=False) == ()
    assert not backend.disturbed()


async def test_check_compares_with_what_the_api_asks(world: World, server: ApiServer, backend: NftablesBackend) -> None:
    await server.client.create(make_service(cluster_ip=VIP))
    await write(server.client, "TCP", "10.244.1.3@n1")
    assert (await check("n1", server.client, backend)).differences, "no rules at all"
    # What the API server made of the Service, and its own Service `kubernetes` besides.
    services, slices = await server.client.list(Service), await server.client.list(EndpointSlice)
    backend.sync(plan_everything(services.items, slices.items, NodeView(name="n1")))
    verdict = await check("n1", server.client, backend)
    assert verdict.differences == ()
    assert verdict.resource_version >= max(one.metadata.version_number for one in slices.items)
    in_node("flush map ip pilotage services")
    assert {one.set for one in (await check("n1", server.client, backend)).differences} == {"services"}


# ── a process, in the namespace of the tests themselves ─────────────────────────────────────────────────────────────


@pytest.fixture
def endpoint() -> Iterator[None]:
    """One endpoint that is this very host, and a way for packets to its cluster IP."""
    added = (["route", "add", "local", f"{ENDPOINT}/32", "dev", "lo"], ["route", "add", f"{VIP}/32", "dev", "lo"])
    for words in added:
        subprocess.run(["ip", *words], check=True)
    yield
    for words in added:
        subprocess.run(["ip", "route", "del", *words[2:]], check=True)
    cleanup()


class Clients(threading.Thread):
    """Connects to the cluster IP again and again; `failed` says how often in vain."""

    def __init__(self) -> None:
        super().__init__(name="clients", daemon=True)
        self.made = self.failed = 0
        self.ended = threading.Event()

    def run(self) -> None:
        with socket.create_server((ENDPOINT, 8080)) as listener:
            while not self.ended.is_set():
                try:
                    with socket.create_connection((VIP, 80), timeout=2.0), listener.accept()[0]:
                        self.made += 1
                except OSError:
                    self.failed += 1


def pilotage(*words: str) -> list[str]:
    return [sys.executable, "-m", "pilotage.cli", *words]


async def test_killed_at_any_instant_it_leaves_traffic_alone_and_resumes(
    server: ApiServer, endpoint: None, tmp_path: Path
) -> None:
    await server.client.create(make_service(cluster_ip=VIP))
    await write(server.client, "TCP", f"{ENDPOINT}@n1")
    identity = ("--kubeconfig", str(server.kubeconfig_path), "--node", "n1")
    dice = random.Random(5)
    clients, log = Clients(), tmp_path / "proxy.log"

    async def until_ready() -> str:
        async with asyncio.timeout(DEADLINE_S):
            while '"event": "ready"' not in (said := log.read_text()):
                await asyncio.sleep(0.01)
        return said

    async def churn(client: Client) -> None:
        for number in range(10_000):
            name = f"other-{number % 3}"
            await client.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {"ports": [{"port": 80 + number % 50, "protocol": "TCP"}]},
                },
                field_manager="churn",
            )
            await asyncio.sleep(0.02)  # the processes under test share this machine's cores with their clients

    try:
        async with task_set() as tasks:
            tasks.start(churn(server.client), name="churn")
            for number in range(KILLS):
                with log.open("w") as file, subprocess.Popen(pilotage("proxy", *identity), stderr=file) as process:
                    if number == 0:
                        await until_ready()
                        clients.start()
                    elif number % 2:
                        await until_ready()
                    await asyncio.sleep(dice.uniform(0.0, 0.7))
                    process.send_signal(signal.SIGKILL)
                    await asyncio.to_thread(process.wait)
        with log.open("w") as file, subprocess.Popen(pilotage("proxy", *identity), stderr=file) as process:
            said = await until_ready()
            process.terminate()
            await asyncio.to_thread(process.wait)
    finally:
        clients.ended.set()
    await asyncio.to_thread(clients.join, 5.0)
    assert clients.made > KILLS
    assert clients.failed == 0
    changes = [int(line.split('"changes": ')[1].split(",")[0]) for line in said.splitlines() if '"changes"' in line]
    assert changes, said
    assert changes[0] <= 12, "the rules of three Services at most, not all of them"

    equal = await asyncio.to_thread(subprocess.run, pilotage("proxy", "check", *identity), capture_output=True)
    assert (equal.returncode, b"equal at" in equal.stdout) == (0, True), equal
    _nft("flush map ip pilotage services")
    bent = await asyncio.to_thread(subprocess.run, pilotage("proxy", "check", *identity), capture_output=True)
    assert (bent.returncode, b"services missing" in bent.stdout) == (1, True), bent
    gone = await asyncio.to_thread(subprocess.run, pilotage("proxy", "--cleanup"), capture_output=True)
    assert gone.returncode == 0, gone
    tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    assert "pilotage" not in tables
