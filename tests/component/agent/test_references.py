"""ConfigMaps and Secrets of pods: watched while they can change, and no longer."""

import asyncio

from pilotage.agent.references import References
from pilotage.api.codec import convert
from pilotage.api.core_v1 import ConfigMap, Namespace
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import Client
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import api_server


async def make(client: Client, name: str, *, immutable: bool) -> None:
    document = {"metadata": {"name": name, "namespace": "test"}, "data": {"k": "1"}, "immutable": immutable}
    await client.create(convert(ConfigMap, document))


async def test_only_objects_that_can_change_are_watched() -> None:
    async with api_server() as server, task_set() as tasks:
        await server.client.create(Namespace(metadata=ObjectMeta(name="test")))
        await make(server.client, "fixed", immutable=True)
        await make(server.client, "loose", immutable=False)
        changed = asyncio.Queue[str](10)
        references = References(server.client, tasks, changed.put_nowait)
        for name in ("fixed", "loose"):
            found = await references.config_map("test", name, holder="u1")
            assert found is not None
        async with asyncio.timeout(10):
            while ("ConfigMap", "test", "fixed") in tasks:
                await asyncio.sleep(0)
        assert ("ConfigMap", "test", "loose") in tasks
        found = await references.config_map("test", "fixed", holder="u2")
        assert found is not None
        assert found.data == {"k": "1"}
        await server.client.patch(ConfigMap, "loose", {"data": {"k": "2"}}, namespace="test")
        async with asyncio.timeout(10):
            assert await changed.get() == "u1"
        references.release("u1")
        references.release("u2")


async def test_an_immutable_object_that_was_made_anew_is_seen_by_the_next_pod() -> None:
    async with api_server() as server, task_set() as tasks:
        await server.client.create(Namespace(metadata=ObjectMeta(name="test")))
        references = References(server.client, tasks, lambda uid: None)
        await make(server.client, "fixed", immutable=True)
        assert await references.config_map("test", "fixed", holder="u1") is not None
        references.release("u1")
        await server.client.delete(ConfigMap, "fixed", namespace="test")
        assert await references.config_map("test", "fixed", holder="u2") is None
        references.release("u2")
