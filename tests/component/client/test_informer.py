"""Informers, watermarks, events and elections against the real API server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pilotage.api.coordination_v1 import Lease
from pilotage.api.core_v1 import ConfigMap, Event
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import EventRecorder, Informer, PatchType, WatermarkPublisher
from pilotage.client.election import LEASE_DURATION_S, Election, lead
from pilotage.client.watermark import NAMESPACE, read_watermark
from pilotage.kit.clock import SYSTEM_CLOCK, ManualClock
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import ApiServer, api_server

DEADLINE_S = 20


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with api_server() as running:
        yield running


def config(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default", labels={"name": name}), data=data)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.005)


async def test_the_store_follows_every_change(server: ApiServer) -> None:
    client = server.client
    await client.create(config("before"))
    informer = Informer(client, ConfigMap, namespace="default")
    seen: list[tuple[str, str]] = []
    informer.add_handler(
        lambda old, new: seen.append((old.metadata.name if old else "", new.metadata.name if new else ""))
    )
    informer.add_index("value", lambda obj: obj.data.values())
    async with task_set() as tasks, asyncio.timeout(DEADLINE_S):
        tasks.start(informer.run())
        await informer.wait_synced()
        assert informer.get("before", "default") is not None
        created = await client.create(config("a", k="v"))
        await informer.wait_for(created.metadata.version_number)
        assert [obj.metadata.name for obj in informer.by_index("value", "v")] == ["a"]
        patched = await client.patch(ConfigMap, "a", {"data": {"k": "w"}}, namespace="default")
        await informer.wait_for(patched.metadata.version_number)
        assert informer.by_index("value", "v") == []
        await client.delete(ConfigMap, "a", namespace="default")
        await eventually(lambda: informer.get("a", "default") is None)
    assert seen[-3:] == [("", "a"), ("a", "a"), ("a", "")]


async def test_a_transform_decides_what_is_kept(server: ApiServer) -> None:
    client = server.client
    await client.create(config("before", k="v"))
    informer = Informer(
        client,
        ConfigMap,
        namespace="default",
        transform=lambda obj: ConfigMap(metadata=obj.metadata, data={"keys": ",".join(obj.data)}),
    )
    async with task_set() as tasks, asyncio.timeout(DEADLINE_S):
        tasks.start(informer.run())
        await informer.wait_synced()
        created = await client.create(config("after", l="w"))
        await informer.wait_for(created.metadata.version_number)
    kept = {obj.metadata.name: obj.data["keys"] for obj in informer.list("default")}
    assert (kept["before"], kept["after"]) == ("k", "l")


async def test_selectors_narrow_what_is_held(server: ApiServer) -> None:
    informer = Informer(server.client, ConfigMap, namespace="default", label_selector="name in (a,b)")
    async with task_set() as tasks, asyncio.timeout(DEADLINE_S):
        tasks.start(informer.run())
        await informer.wait_synced()
        for name in ("a", "c"):
            await server.client.create(config(name))
        await eventually(lambda: informer.get("a", "default") is not None)
        # An object that stops matching leaves the store as if it were deleted.
        body = [{"op": "replace", "path": "/metadata/labels/name", "value": "z"}]
        await server.client.patch(ConfigMap, "a", body, namespace="default", patch_type=PatchType.JSON)
        await eventually(lambda: len(informer) == 0)


async def test_the_store_outlives_the_server_and_catches_up(tmp_path: Path) -> None:
    storage = f"sqlite:{tmp_path}/state.db"
    async with api_server(storage=storage, data_dir=tmp_path) as server:
        await server.client.create(config("a"))
        client = server.client
        informer = Informer(client, ConfigMap, namespace="default")
        async with task_set() as tasks, asyncio.timeout(DEADLINE_S):
            tasks.start(informer.run())
            await informer.wait_synced()
    # The server is gone; what was known is still there, and the same informer works against the next one.
    assert informer.get("a", "default") is not None
    async with api_server(storage=storage, data_dir=tmp_path) as server:
        await server.client.delete(ConfigMap, "a", namespace="default")
        await server.client.create(config("b"))
        informer._client = server.client
        async with task_set() as tasks, asyncio.timeout(DEADLINE_S):
            tasks.start(informer.run())
            await eventually(lambda: informer.get("b", "default") is not None)
        assert informer.get("a", "default") is None


async def test_watermarks_are_published_and_only_grow(server: ApiServer) -> None:
    watermark = WatermarkPublisher(server.client, "proxy", "n1")
    async with task_set() as tasks, asyncio.timeout(DEADLINE_S):
        tasks.start(watermark.run())
        for value, expected in ((7, 7), (3, 7), (9, 9)):
            watermark.advance(value)
            await eventually(lambda expected=expected: watermark.published == expected)  # type: ignore[misc]
        lease = await server.client.get(Lease, "watermark-proxy-n1", namespace=NAMESPACE)
    assert read_watermark(lease) == 9
    assert lease.metadata.labels == {"pilotage.dev/consumer": "proxy", "pilotage.dev/node": "n1"}


async def test_repeated_events_are_counted_not_piled_up(server: ApiServer) -> None:
    recorder = EventRecorder(server.client, "tester", host="n1")
    about = await server.client.create(config("a"))
    async with task_set() as tasks, asyncio.timeout(DEADLINE_S):
        tasks.start(recorder.run())
        for _ in range(3):
            recorder.warning(about, "Odd", "something is odd")
        recorder.normal(about, "Fine", "all is well")
        counts: dict[str, int] = {}
        while counts != {"Odd": 3, "Fine": 1}:
            listing = await server.client.list(Event, namespace="default")
            counts = {event.reason: event.count for event in listing.items}
    assert {event.involved_object.uid for event in listing.items} == {about.metadata.uid}


async def test_only_one_leads_at_a_time(server: ApiServer) -> None:
    leading: list[str] = []

    async def work(name: str) -> None:
        leading.append(name)
        await asyncio.Event().wait()

    async with task_set() as tasks, asyncio.timeout(DEADLINE_S):
        tasks.start(lead(server.client, "boss", "a", work("a")))
        await eventually(lambda: leading == ["a"])
        lease = await server.client.get(Lease, "boss", namespace="kube-system")
        assert lease.spec.holder_identity == "a"
        assert not await Election(server.client, "boss", "b", SYSTEM_CLOCK).try_acquire()
        clock = ManualClock()
        rival = Election(server.client, "boss", "b", clock)
        assert not await rival.try_acquire()
        clock.advance(LEASE_DURATION_S + 1)  # the holder did not renew in all this time
        assert await rival.try_acquire()
