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
from pilotage.nft.core.objects import Table
from pilotage.nft.netlink import ElementSocket
from pilotage.proxy import check, cleanup
from pilotage.proxy.backends.nftables import NftablesBackend
from pilotage.proxy.core.model import service_ports
from pilotage.proxy.core.plan import Plan, Planner
from pilotage.proxy.core.topology import NodeView
from pilotage.proxy.core.whole import plan_everything
from pilotage.testing.cluster import ApiServer, api_server
from pilotage.testing.proxy_audit import audit
from pilotage.testing.services import make_service, make_slice

from .conftest import World, path
from .test_live import _nft, write

DEADLINE_S = 60.0
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
    audit(backend, plan)
    assert not backend.disturbed()
    in_node("add table ip somebody-elses")
    in_node("add chain ip somebody-elses theirs")
    assert not backend.disturbed(), "nothing of ours"
    in_node("add chain ip pilotage theirs")
    assert backend.disturbed()
    (found,) = audit(backend, plan)
    assert (found.kind, found.element) == ("unexpected", "chain theirs")
    assert found.by, "the kernel says who it was"
    assert not backend.disturbed()
    in_node("delete table ip somebody-elses")
    assert not backend.disturbed()


@pytest.mark.parametrize(
    ("command", "kind", "element"),
    [
        pytest.param("delete chain ip pilotage spread-16", "missing", "chain spread-16", id="a chain removed"),
        pytest.param("add rule ip pilotage dispatch drop", "changed", "chain dispatch", id="a rule added"),
        pytest.param("add set ip pilotage x { type mark; }", "unexpected", "set x", id="a set added"),
        pytest.param("add table ip pilotage { flags dormant; }", "changed", "table", id="the table put to sleep"),
        pytest.param("flush map ip pilotage spread", "missing", "2:1 : goto spread-sticky-1", id="an element removed"),
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
    audit(backend, plan)
    in_node(command)
    assert backend.disturbed()
    assert [(one.kind, one.element) for one in backend.check(plan)] == [(kind, element)]
    assert [(one.kind, one.element) for one in audit(backend, plan)] == [(kind, element)]
    assert backend.check(plan) == ()
    assert not backend.disturbed()


def test_only_what_others_touched_is_suspected(world: World, backend: NftablesBackend) -> None:
    plan = planned()
    backend.sync(plan)
    backend.disturbed()
    audit(backend, plan)
    for command, suspected in [
        ("add element ip pilotage cluster-ips { 192.0.2.1 }", (("ip", "cluster-ips"),)),
        ("add rule ip6 pilotage dispatch drop", (("ip6", ""),)),
        ("flush map ip pilotage backends; add set ip pilotage x { type mark; }", (("ip", ""), ("ip", "backends"))),
    ]:
        in_node(command)
        assert backend.disturbed() == suspected
        assert backend.disturbed() == (), "each is said once"
    assert {(one.kind, one.element) for one in audit(backend, plan)} >= {
        ("unexpected", "192.0.2.1"),
        ("changed", "chain dispatch"),
        ("unexpected", "set x"),
    }
    assert backend.check(plan) == ()


def test_where_too_much_changed_to_hear_it_all_what_was_heard_comes_first(
    world: World, backend: NftablesBackend
) -> None:
    many = [f"10.244.{host // 250}.{host % 250 + 1}@n1" for host in range(5000)]
    plan = plan_everything([make_service(cluster_ip=VIP)], [make_slice(endpoints=many)], NodeView(name="n1"))
    backend.sync(plan)
    backend.disturbed()
    in_node("flush set ip pilotage hairpin")
    suspected = backend.disturbed()
    assert suspected[0] == ("ip", "hairpin")
    assert sorted(suspected) == sorted(backend.parts)
    assert sum(one.count for one in audit(backend, plan)) == len(many)
    assert backend.check(plan) == ()


def test_a_bent_rule_is_set_right_without_listing_any_element(
    world: World, backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned()
    backend.sync(plan)
    in_node("add rule ip pilotage dispatch drop; delete chain ip pilotage spread-16")
    with monkeypatch.context() as patch:
        patch.delattr(ElementSocket, "elements")
        names = [one.element for one in backend.judge(("ip", ""), {}, {})]
    assert names == ["chain dispatch", "chain spread-16"]
    assert backend.check(plan) == ()


@pytest.mark.parametrize(
    ("commands", "names"),
    [
        pytest.param(
            "add chain ip pilotage theirs; add chain ip pilotage more; add rule ip pilotage more jump theirs;"
            " add rule ip pilotage dispatch jump more; add set ip pilotage x { type ipv4_addr; };"
            " add rule ip pilotage theirs ip saddr @x drop",
            {"chain theirs", "chain more", "chain dispatch", "set x"},
            id="strays that lead to each other",
        ),
        pytest.param(
            "add chain ip pilotage theirs; add element ip pilotage spread { 9:9 : goto theirs }",
            {"chain theirs", "9:9 : goto theirs"},
            id="an element that leads to a stray",
        ),
        pytest.param(
            "flush chain ip pilotage dispatch; delete chain ip pilotage dispatch;"
            " add chain ip pilotage dispatch { type nat hook prerouting priority -50; }",
            {"chain dispatch"},
            id="a hook moved",
        ),
        pytest.param(
            "add chain ip pilotage theirs { type filter hook prerouting priority 0; policy drop; }",
            {"chain theirs"},
            id="a hook added",
        ),
    ],
)
def test_structure_is_set_right_whatever_was_done_to_it(
    world: World, backend: NftablesBackend, commands: str, names: set[str]
) -> None:
    plan = planned()
    backend.sync(plan)
    in_node(commands)
    assert {one.element for one in audit(backend, plan)} == names
    assert backend.check(plan) == ()


def test_a_set_declared_otherwise_is_replaced_with_its_table(world: World, backend: NftablesBackend) -> None:
    plan = planned()
    backend.sync(plan)
    flushes = "".join(
        f"flush chain ip pilotage {name}; " for name in backend._nft.chains(Table(family="ip", name="pilotage"))
    )
    in_node(flushes + "delete set ip pilotage hairpin; add set ip pilotage hairpin { type ipv4_addr; }")
    assert "set hairpin" in {one.element for one in audit(backend, plan)}
    assert backend.check(plan) == ()


def test_what_changes_while_it_is_listed_is_no_drift(world: World, backend: NftablesBackend) -> None:
    planner = Planner(NodeView(name="n1"))

    def update(*hosts: int) -> None:
        slices = [make_slice(endpoints=[f"10.244.1.{host}@n1" for host in hosts])]
        planner.update("default/web", service_ports(make_service(cluster_ip=VIP), slices))

    update(2, 3)
    backend.sync(planner.plan())
    planner.take()
    seen = {part: backend.look(part) for part in backend.parts}
    update(3, 4, 5)
    backend.apply(planner.take())
    assert [backend.judge(part, seen[part], planner.elements_of(part)) for part in backend.parts if part[1]] == [
        () for part in backend.parts if part[1]
    ]
    assert backend.check(planner.plan()) == ()
    for part in backend.parts:
        assert backend.judge(part, {}, planner.elements_of(part)) == (), "a listing that left everything out"


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
    assert verdict.problems == ()
    rival = make_service("rival", "10.96.0.78", external_ips=(VIP,))
    await server.client.create(rival)
    verdict = await check("n1", server.client, backend)
    assert [(one.service, one.reason, one.message) for one in verdict.problems] == [
        ("default/rival", "AddressInUse", f"{VIP}:80/tcp already belongs to Service default/web")
    ]
    services = await server.client.list(Service)
    backend.sync(plan_everything(services.items, slices.items, NodeView(name="n1")))
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


# Between connections: all go to one address and port, and a port of the client's own that comes round again within a
# minute may find its last connection still remembered.
_PACE_S = 0.005


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
                    with socket.create_connection((VIP, 80), timeout=10.0), listener.accept()[0]:
                        self.made += 1
                except OSError:
                    self.failed += 1
                self.ended.wait(_PACE_S)


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
    await asyncio.to_thread(clients.join, 20.0)
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
