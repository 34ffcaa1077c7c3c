"""The assigner as a client of a real API server with addresses of both families."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pilotage.api.codec import encode
from pilotage.api.core_v1 import Event, Service
from pilotage.client import Client, Informer
from pilotage.client.client import path_of
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer import AssignerConfig, run_assigner
from pilotage.testing.cluster import api_server

DEADLINE_S = 30.0
FOUR, SIX = "10.89.200.1-10.89.200.2", "fd00:89::1-fd00:89::2"


class World:
    """Services as a test sees them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.services, self.events = Informer(client, Service), Informer(client, Event)

    async def create(self, name: str, **spec: Any) -> None:
        body = {"metadata": {"name": name}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], **spec}}
        await self.client.request("POST", path_of(Service, "default"), body=encode(body))

    def ingress(self, name: str) -> list[tuple[str, str]]:
        found = self.services.get(name, "default")
        return [(item.ip, item.ip_mode) for item in found.status.load_balancer.ingress] if found else []

    def told(self, name: str) -> set[str]:
        return {event.message for event in self.events.list() if event.involved_object.name == name}

    async def until(self, condition: Callable[[], Any]) -> None:
        changed = asyncio.Event()
        for informer in (self.services, self.events):
            informer.add_progress(lambda _: changed.set())
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await changed.wait()
                changed.clear()


@asynccontextmanager
async def world(*pools: str) -> AsyncIterator[World]:
    async with api_server(service_cidr="10.96.0.0/16,fd00:96::/112") as server, task_set() as tasks:
        made, ready = World(server.client), asyncio.Event()
        tasks.start(made.services.run())
        tasks.start(made.events.run())
        tasks.start(run_assigner(AssignerConfig(pools=pools), server.client, on_ready=ready.set))
        async with asyncio.timeout(DEADLINE_S):
            await ready.wait()
        yield made
        tasks.cancel_all()


async def test_a_service_gets_an_address_of_each_of_its_families() -> None:
    async with world(FOUR, SIX) as made:
        await made.create("both", ipFamilyPolicy="RequireDualStack")
        await made.until(lambda: made.ingress("both") == [("10.89.200.1", "VIP"), ("fd00:89::1", "VIP")])
        await made.create("six", ipFamilies=["IPv6"])
        await made.until(lambda: made.ingress("six") == [("fd00:89::2", "VIP")])
        await made.create("late", ipFamilies=["IPv6"])
        await made.until(lambda: "all 2 addresses of the pools are in use" in made.told("late"))
        # The second family is given up, and whoever waits for an address of it has it at once.
        one = {"spec": {"ipFamilyPolicy": "SingleStack"}}
        await made.client.patch(Service, "both", one, namespace="default")
        await made.until(lambda: made.ingress("both") == [("10.89.200.1", "VIP")])
        await made.until(lambda: made.ingress("late") == [("fd00:89::1", "VIP")])


async def test_what_one_family_lacks_does_not_keep_the_other_waiting() -> None:
    async with world(FOUR) as made:
        await made.create("both", ipFamilyPolicy="RequireDualStack")
        await made.until(lambda: made.ingress("both") == [("10.89.200.1", "VIP")])
        await made.until(lambda: "none of the pools has IPv6 addresses" in made.told("both"))


async def test_the_balancer_of_another_class_is_left_to_itself() -> None:
    async with world(FOUR) as made:
        await made.create("theirs", loadBalancerClass="example.com/edge")
        stated = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "Proxy"}]}}}
        await made.client.patch(Service, "theirs", stated, namespace="default", subresource="status")
        await made.create("ours", loadBalancerClass="pilotage.dev/loadbalancer")
        await made.until(lambda: made.ingress("ours") == [("10.89.200.1", "VIP")])
        assert made.ingress("theirs") == [("192.0.2.1", "Proxy")]
        await made.client.patch(Service, "ours", {"spec": {"type": "ClusterIP"}}, namespace="default")
        await made.until(lambda: made.ingress("ours") == [])
        await made.create("next")
        await made.until(lambda: made.ingress("next") == [("10.89.200.2", "VIP")])
