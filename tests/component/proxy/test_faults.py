"""What the proxy does when its surroundings fail or lie to it; nf_tables in memory, everything else real."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from pilotage.api.core_v1 import Event, Node, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.status import ApiError
from pilotage.client import Client, ConnectionFailed
from pilotage.kit.tasks import task_set
from pilotage.nft.core.objects import DeleteElements, Transaction
from pilotage.proxy import Config, Proxier
from pilotage.proxy.backends.fake import FakeBackend
from pilotage.proxy.backends.fake_xtables import FakeXtables
from pilotage.proxy.backends.iptables import IptablesBackend
from pilotage.proxy.core.layout import Surroundings, sets, table
from pilotage.proxy.core.model import Problem, service_ports
from pilotage.proxy.errors import BackendError
from pilotage.testing.cluster import ApiServer
from pilotage.testing.etcd import free_port
from pilotage.testing.services import make_service, make_slice

from .test_proxier import DEADLINE_S, SERVICE, VIP, World, api, endpoints, running, until, write

__all__ = ["api"]  # the fixture


@asynccontextmanager
async def server(data_dir: Path, port: int) -> AsyncIterator[Client]:
    """An API server that can come back where it was: a process, so that its end is as sudden as in life."""
    words = ["apiserver", "--listen", f"127.0.0.1:{port}", "--data-dir", str(data_dir), "--log-level", "error"]
    kubeconfig = data_dir / "admin.kubeconfig"
    with subprocess.Popen([sys.executable, "-m", "pilotage.cli", *words]) as process:
        try:
            async with asyncio.timeout(30):
                while not kubeconfig.exists():
                    await asyncio.sleep(0.01)
                async with Client.from_kubeconfig(kubeconfig) as client:
                    while not await is_served(client):
                        await asyncio.sleep(0.01)
            async with Client.from_kubeconfig(kubeconfig) as client:
                yield client
        finally:
            process.kill()


async def is_served(client: Client) -> bool:
    try:
        await client.get(Service, "kubernetes", namespace="default")
    except (ApiError, ConnectionFailed):
        return False
    return True


def lose_an_element(world: World) -> None:
    services = sets("ip").services
    key = services.key.encode(VIP, "tcp", 80)
    world.backend.nft.apply(Transaction((DeleteElements(table("ip"), services, (key,)),)))


async def told(client: Client, reason: str) -> str:
    """The message of the first Event with this reason."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = [one.message for one in (await client.list(Event)).items if one.reason == reason]
            if found:
                return found[0]
            await asyncio.sleep(0.01)


async def test_without_the_api_rules_stay_and_are_kept_true(tmp_path: Path) -> None:
    port = free_port()
    kernel = FakeBackend(surroundings=Surroundings(cluster_cidrs=("10.244.0.0/16",)))
    async with AsyncExitStack() as outlives, task_set() as tasks:
        async with server(tmp_path, port) as client:
            await client.create(Node(metadata=ObjectMeta(name="n1")))
            await write(client, SERVICE, make_slice(endpoints=["10.244.1.2"]))
            theirs = await outlives.enter_async_context(Client.from_kubeconfig(tmp_path / "admin.kubeconfig"))
            proxier = Proxier(
                Config(node="n1", audit_interval_s=0.01), theirs, kernel, forget=lambda matches, **among: 0
            )
            world, ready = World(theirs, kernel, proxier), asyncio.Event()
            tasks.start(proxier.run(ready.set), name="proxy")
            async with asyncio.timeout(DEADLINE_S):
                await ready.wait()
        lose_an_element(world)
        await until(lambda: world.reached() == "10.244.1.2:8080")
        async with server(tmp_path, port) as client:
            await endpoints(client, "10.244.1.3")
            await until(lambda: world.reached() == "10.244.1.3:8080")


async def test_drift_is_named_in_an_event(api: ApiServer) -> None:
    await write(api.client, SERVICE, make_slice(endpoints=["10.244.1.2"]))
    async with running(api.client, audit_interval_s=0.01) as world:
        lose_an_element(world)
        message = await told(api.client, "ServiceRulesRepaired")
        assert message.startswith("1 differences, first: ip services missing: 10.96.0.77 . tcp . 80")


async def test_everything_is_compared_now_and_then_though_nobody_seems_to_have_changed_it(api: ApiServer) -> None:
    await write(api.client, SERVICE, make_slice(endpoints=["10.244.1.2"]))
    async with running(api.client, audit_interval_s=0.01, full_audit_interval_s=0.05) as world:
        services = sets("ip").services
        # Past the seam: no generation tells of it.
        bend = DeleteElements(table("ip"), services, (services.key.encode(VIP, "tcp", 80),))
        world.backend.nft.ruleset.apply(Transaction((bend,)))
        await until(lambda: world.reached() == "10.244.1.2:8080")


async def test_more_endpoints_than_there_is_room_for_disturb_nobody_else(api: ApiServer) -> None:
    huge = make_service("huge", "10.96.0.78", ip_families=("IPv4",), ip_family_policy="SingleStack")
    slices = [
        make_slice(
            "huge", [f"10.{200 + part // 256}.{part % 256}.{host}" for host in range(250)] * 4, name=f"huge-{part}"
        )
        for part in range(132)
    ]
    await write(api.client, SERVICE, make_slice(endpoints=["10.244.1.2"]))
    await write(api.client, huge, *slices)
    async with running(api.client) as world:
        assert world.reached() == "10.244.1.2:8080"
        assert world.reached("10.96.0.78:80").startswith("10.2")
        assert "33000 endpoints, 32767 are used" in await told(api.client, "TooManyEndpoints")


def test_addresses_that_are_none_are_named_and_the_others_used() -> None:
    # No API server lets these pass; what a watch brings is not always written by one that validates.
    good = make_slice(endpoints=["10.244.1.2"])
    bad = make_slice(endpoints=["10.244.1.2", "fd00::1", "10.244.1.300", "nonsense"], name="web-2")
    problems: list[Problem] = []
    (port,) = service_ports(SERVICE, [good, bad], problems)
    assert [one.address for one in port.endpoints] == ["10.244.1.2"]
    assert {one.reason for one in problems} == {"InvalidEndpoint"}
    assert "'fd00::1' in EndpointSlice web-2 is no IPv4 address" in [one.message for one in problems]


class Forgetful(FakeXtables):
    """A kernel whose iptables has no match `recent`."""

    def restore(self, family: str, text: str) -> None:
        if "-m recent" in text:
            raise BackendError("Extension recent revision 0 not supported, missing kernel module?")
        super().restore(family, text)


async def test_what_a_backend_cannot_do_is_told_to_each_service_that_asks_once(api: ApiServer) -> None:
    one_family: dict[str, Any] = {"ip_families": ("IPv4",), "ip_family_policy": "SingleStack"}
    for name, address, affinity in (("plain", "10.96.0.80", "None"), ("early", "10.96.0.81", "ClientIP")):
        service = make_service(name, address, session_affinity=affinity, **one_family)
        await write(api.client, service, make_slice(name, ["10.244.1.2"]))
    backend = IptablesBackend(Forgetful(), surroundings=Surroundings())
    async with task_set() as tasks:
        proxier = Proxier(Config(node="n1"), api.client, backend, forget=lambda matches, **among: 0)
        tasks.start(proxier.run(), name="proxy")
        await told(api.client, "SessionAffinityNotKept")
        late = make_service("late", "10.96.0.82", session_affinity="ClientIP", **one_family)
        await write(api.client, late, make_slice("late", ["10.244.1.3"]))
        for name in ("plain", "early", "late"):
            written = await api.client.patch(Service, name, {"metadata": {"labels": {"a": "b"}}}, namespace="default")
        goal = written.metadata.version_number
        # The watermark is the lower of both kinds'.
        await api.client.patch(EndpointSlice, "late-1", {"metadata": {"labels": {"a": "b"}}}, namespace="default")
        await until(lambda: proxier.snapshot().watermark >= goal)
        assert {one.service for one in proxier.snapshot().problems} == {"default/early", "default/late"}
        async with asyncio.timeout(DEADLINE_S):
            while {"early", "late"} != {one.involved_object.name for one in await events(api.client)}:
                await asyncio.sleep(0.01)
        assert [one.count for one in await events(api.client)] == [1, 1]


async def events(client: Client) -> list[Event]:
    return [one for one in (await client.list(Event)).items if one.reason == "SessionAffinityNotKept"]


async def test_names_at_their_limits(api: ApiServer) -> None:
    long = make_service("s" * 63, "10.96.0.79", ip_families=("IPv4",), ip_family_policy="SingleStack")
    await write(api.client, long, make_slice("s" * 63, ["10.244.1.2"], name="e" * 253))
    async with running(api.client) as world:
        assert world.reached("10.96.0.79:80") == "10.244.1.2:8080"


async def test_a_service_may_become_any_other_type(api: ApiServer) -> None:
    both: dict[str, Any] = {"ip_families": ("IPv4",), "ip_family_policy": "SingleStack"}
    service = make_service("web", VIP, ["80@30080"], type="NodePort", **both)
    await write(api.client, service, make_slice(endpoints=["10.244.1.2"]))
    async with running(api.client) as world:

        async def become(spec: dict[str, object]) -> None:
            await api.client.patch(type(SERVICE), "web", {"spec": spec}, namespace="default")

        node_port = "10.89.0.11:30080"
        assert world.reached(node_port) == "10.244.1.2:8080"
        await become({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
        await until(lambda: world.reached(node_port) == node_port)
        assert world.reached() == "10.244.1.2:8080"
        await become({"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]})
        await until(lambda: world.reached(node_port) == "10.244.1.2:8080")
        await become({"type": "ExternalName", "externalName": "example.test", "clusterIP": None, "clusterIPs": None})
        await until(lambda: world.reached() == f"{VIP}:80" and world.reached(node_port) == node_port)
        await become({"type": "ClusterIP", "externalName": None, "clusterIP": VIP})
        await until(lambda: world.reached() == "10.244.1.2:8080")
