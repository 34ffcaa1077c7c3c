"""The whole proxy with iptables: rules bent by hand, removal, and a change of backend under load."""

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from pilotage.api.core_v1 import Node
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import Client
from pilotage.kit.tasks import task_set
from pilotage.network import namespaces
from pilotage.proxy import Config, Proxier, cleanup, run
from pilotage.proxy.backends.iptables import IptablesBackend
from pilotage.proxy.backends.xtables import KernelXtables
from pilotage.testing.cluster import api_server
from pilotage.testing.services import make_service, make_slice

from .conftest import SURROUNDINGS, V4, World, at, path, skip_without

DEADLINE_S = 30.0
ADDRESS = "10.96.0.77"
VIP = at(ADDRESS, 80)
FLAVOURS = ("legacy", "nft")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with api_server() as server:
        await server.client.create(Node(metadata=ObjectMeta(name="n1")))
        yield server.client


def iptables(flavour: str, *arguments: str) -> str:
    return subprocess.run([f"iptables-{flavour}", "-w", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_from_a_write_to_a_connection_and_back_after_every_mischief(
    world: World, client: Client, flavour: str
) -> None:
    skip_without(f"iptables-{flavour}")
    backend = namespaces.run_in(
        path("n1"),
        lambda: IptablesBackend(KernelXtables("legacy" if flavour == "legacy" else "nft"), surroundings=SURROUNDINGS),
    )
    proxier = Proxier(Config(node="n1", audit_interval_s=0.02), client, backend)
    ready = asyncio.Event()
    served = f"b {V4.pods['a']}"

    async def until(answer: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while await asyncio.to_thread(world.ask, "a", VIP, patience_s=0.2) != answer:
                await asyncio.sleep(0.002)

    async def is_bent() -> bool:
        async with proxier._kernel:
            return backend.check(proxier._planner.plan()) != ()

    try:
        async with task_set() as tasks:
            tasks.start(proxier.run(ready.set), name="proxy")
            async with asyncio.timeout(DEADLINE_S):
                await ready.wait()
            await client.create(make_service(cluster_ip=ADDRESS))
            await until("refused")
            await client.create(make_slice(endpoints=[V4.endpoint("b")]))
            await until(served)
            for mischief in (
                ("-t", "nat", "-F"),
                ("-I", "PILOTAGE-GUARD", "-j", "DROP"),
                ("-t", "nat", "-F", "OUTPUT"),
            ):
                async with proxier._kernel:  # no repair before the damage is done
                    namespaces.run_in(path("n1"), lambda words=mischief: iptables(flavour, *words))  # type: ignore[misc]
                    assert backend.check(proxier._planner.plan()) != ()
                async with asyncio.timeout(DEADLINE_S):
                    while await is_bent():
                        await asyncio.sleep(0.01)
                await until(served)
        assert await asyncio.to_thread(world.ask, "a", VIP) == served, "the rules stay when the proxy ends"
    finally:
        backend.cleanup()
        backend.close()
    left = namespaces.run_in(path("n1"), lambda: iptables(flavour, "-S") + iptables(flavour, "-t", "nat", "-S"))
    assert "PILOTAGE" not in left


class Visitor(threading.Thread):
    """Opens one connection after the other until told to end, in the namespace of the whole test."""

    def __init__(self) -> None:
        super().__init__(name="visitor")
        self.answered, self.failures = 0, list[str]()
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.is_set():
            try:
                with socket.create_connection((ADDRESS, 80), timeout=5.0) as sock:
                    assert sock.recv(10) == b"here"
                self.answered += 1
            except OSError as error:
                self.failures.append(str(error))

    def close(self) -> None:
        self._end.set()
        self.join()


@pytest.fixture
def server() -> Iterator[str]:
    """The address and port of a server in the namespace of the whole test, which leads Service addresses to itself."""
    address = "10.77.0.1"
    for command in (f"address add {address}/32 dev lo", "route add 10.96.0.0/16 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"here")

    with socket.create_server((address, 0), backlog=64) as listener:
        thread = threading.Thread(target=serve, name="server")
        thread.start()
        yield f"{address}:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for command in (f"address delete {address}/32 dev lo", "route delete 10.96.0.0/16 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)


async def test_a_change_of_backend_leaves_no_gap_and_no_rules(client: Client, server: str) -> None:
    for flavour in FLAVOURS:
        skip_without(f"iptables-{flavour}")
    address, _, port = server.rpartition(":")
    await client.create(make_service(cluster_ip=ADDRESS))
    await client.create(make_slice(endpoints=[address], ports=[port]))
    visitor = Visitor()
    try:
        for backend in ("nftables", "iptables-legacy", "iptables", "nftables"):
            ready = asyncio.Event()
            async with task_set() as tasks, asyncio.timeout(DEADLINE_S):
                tasks.start(run(Config(node="n1", backend=backend), client, on_ready=ready.set), name=backend)
                await ready.wait()
                if not visitor.is_alive():
                    visitor.start()
                before = visitor.answered
                while visitor.answered < before + 50 and not visitor.failures:
                    await asyncio.sleep(0.005)
            assert visitor.failures == [], backend
            rules = iptables("legacy", "-t", "nat", "-S") + iptables("nft", "-t", "nat", "-S")
            assert ("PILOTAGE" in rules) == backend.startswith("iptables")
            tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
            assert ("table ip pilotage" in tables) == (backend == "nftables")
    finally:
        visitor.close()
        started = time.monotonic()
        cleanup()
        assert time.monotonic() - started < DEADLINE_S
    with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
        socket.create_connection((ADDRESS, 80), timeout=0.2).close()
