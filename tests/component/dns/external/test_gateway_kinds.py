"""Gateway API that is installed, changed and removed while hostnames are published."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from pilotage.api.core_v1 import Service
from pilotage.client import Client
from pilotage.dns.external import gateways, run
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import api_server


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "LOOK_EVERY_S", 0.1)


async def test_kinds_that_come_later_are_followed_and_those_that_go_are_withdrawn(knot: Any, gateway_api: Any) -> None:
    async with api_server() as api, task_set() as tasks:
        ready = asyncio.Event()
        tasks.start(run(knot.config(), api.client, on_ready=ready.set))
        async with asyncio.timeout(30):
            await ready.wait()
        made = gateway_api(api.client)
        await made.install("gateways", "v1")
        await made.install("httproutes", "v1")
        await made.gateway("192.0.2.1")
        listeners = {"*.apps.test": ["192.0.2.1"], "*.tls.apps.test": ["192.0.2.1"]}
        await knot.becomes(listeners)
        await made.route("httproutes", "shop", "shop.apps.test", "shop.elsewhere.test")
        await made.route("httproutes", "thief", "thief.apps.test", accepted="False")
        await knot.becomes({**listeners, "shop.apps.test": ["192.0.2.1"]})

        await made.gateway("192.0.2.2", "2001:db8::2")
        both = ["192.0.2.2", "2001:db8::2"]
        listeners = {"*.apps.test": both, "*.tls.apps.test": both}
        await knot.becomes({**listeners, "shop.apps.test": both})

        await made.install("tlsroutes", "v1alpha2")
        await made.route("tlsroutes", "mail", "mail.tls.apps.test", version="v1alpha2")
        await knot.becomes({**listeners, "shop.apps.test": both, "mail.tls.apps.test": both})
        await made.delete("httproutes", "shop")
        await knot.becomes({**listeners, "mail.tls.apps.test": both})

        await made.retire("tlsroutes", "v1alpha2")
        await knot.becomes(listeners)
        await made.remove("httproutes")
        await made.remove("gateways")
        await knot.becomes({})
        await made.install("gateways", "v1")
        await made.gateway("192.0.2.3")
        await knot.becomes({"*.apps.test": ["192.0.2.3"], "*.tls.apps.test": ["192.0.2.3"]})


async def test_a_kind_that_moves_to_another_version_keeps_its_names(knot: Any, gateway_api: Any) -> None:
    async with api_server() as api, task_set() as tasks:
        made = gateway_api(api.client)
        await made.install("gateways", "v1")
        await made.install("grpcroutes", "v1alpha2")
        await made.gateway("192.0.2.1")
        await made.route("grpcroutes", "old", "old.apps.test", version="v1alpha2")
        tasks.start(run(knot.config(), api.client))
        listeners = {"*.apps.test": ["192.0.2.1"], "*.tls.apps.test": ["192.0.2.1"]}
        await knot.becomes({**listeners, "old.apps.test": ["192.0.2.1"]})
        serial = await knot.serial()
        await made.install("grpcroutes", "v1alpha2", "v1", retired="v1alpha2")
        await made.route("grpcroutes", "new", "new.apps.test")
        await knot.becomes({**listeners, "old.apps.test": ["192.0.2.1"], "new.apps.test": ["192.0.2.1"]})
        assert int(await knot.serial()) == int(serial) + 1  # one name more, and no other ever touched


class Holding(Client):
    """A client that is answered nothing about Gateway API until it is told."""

    gate: asyncio.Event
    asked: asyncio.Event

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        if path == "/apis/gateway.networking.k8s.io":
            self.asked.set()
            await self.gate.wait()
        return await super().request(method, path, body=body, query=query, content_type=content_type, accept=accept)


async def test_names_outlast_a_start_in_which_their_objects_are_read_late(
    knot: Any, gateway_api: Any, balance: Any, until: Any
) -> None:
    async with api_server() as api:
        made = gateway_api(api.client)
        await made.install("gateways", "v1")
        await made.gateway("192.0.2.1")
        names = {"*.apps.test": ["192.0.2.1"], "*.tls.apps.test": ["192.0.2.1"]}
        async with task_set() as tasks:
            tasks.start(run(knot.config(), api.client))
            await knot.becomes(names)
        serial = await knot.serial()
        async with Holding.from_kubeconfig(api.kubeconfig_path) as client, task_set() as tasks:
            assert isinstance(client, Holding)
            client.gate, client.asked, ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
            tasks.start(run(knot.config(), client, on_ready=ready.set))
            async with asyncio.timeout(30):
                await client.asked.wait()
                # By then its other watches are complete: the administrator's, begun later, is answered later.
                await anything_is_read(client)
                assert not ready.is_set()
                client.gate.set()
                await ready.wait()
            assert await knot.serial() == serial


async def anything_is_read(client: Client) -> None:
    async for _ in client.watch(Service, send_initial_events=True):
        return
