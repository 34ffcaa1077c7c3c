import asyncio
from collections.abc import AsyncIterator

import pytest

from pilotage.api.core_v1 import ConfigMap
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.status import ApiError
from pilotage.kit.tasks import task_set
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.testing.cluster import ApiServer, api_server


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with api_server() as running:
        yield running


class Recorder:
    """Fails the first `failures` times, then succeeds."""

    def __init__(self, failures: int = 0, result: Result = DONE) -> None:
        self.requests: list[str] = []
        self.running = 0
        self.most_at_once = 0
        self._failures = failures
        self._result = result
        self.called = asyncio.Condition()

    async def reconcile(self, request: Request) -> Result:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        async with self.called:
            self.requests.append(str(request))
            self.called.notify_all()
        if len(self.requests) <= self._failures:
            raise ApiError("Conflict", "changed meanwhile")
        result, self._result = self._result, DONE
        return result

    async def wait_for(self, count: int) -> None:
        async with self.called, asyncio.timeout(20):
            await self.called.wait_for(lambda: len(self.requests) >= count)


async def start(server: ApiServer, reconciler: Recorder) -> Manager:
    manager = Manager(server.client, component="tester")
    controller = manager.add(Controller("test", reconciler))
    controller.watch(manager.informer(ConfigMap, namespace="default"))
    return manager


async def test_existing_and_new_objects_are_looked_at(server: ApiServer) -> None:
    await server.client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default")))
    reconciler = Recorder()
    manager = await start(server, reconciler)
    async with task_set() as tasks:
        tasks.start(manager.run())
        await reconciler.wait_for(1)
        await server.client.create(ConfigMap(metadata=ObjectMeta(name="b", namespace="default")))
        await reconciler.wait_for(2)
    assert reconciler.requests == ["default/a", "default/b"]


async def test_a_failed_reconcile_is_tried_again(server: ApiServer) -> None:
    await server.client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default")))
    reconciler = Recorder(failures=3)
    manager = await start(server, reconciler)
    async with task_set() as tasks:
        tasks.start(manager.run())
        await reconciler.wait_for(4)
        async with asyncio.timeout(20):
            while not manager.idle:
                await asyncio.sleep(0.001)
    assert reconciler.requests == ["default/a"] * 4


async def test_a_reconciler_may_ask_to_look_again(server: ApiServer) -> None:
    await server.client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default")))
    reconciler = Recorder(result=Result(requeue_after_s=0.01))
    manager = await start(server, reconciler)
    async with task_set() as tasks:
        tasks.start(manager.run())
        await reconciler.wait_for(2)


async def test_one_name_is_never_reconciled_twice_at_once(server: ApiServer) -> None:
    await server.client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default")))
    reconciler = Recorder()
    manager = await start(server, reconciler)
    async with task_set() as tasks:
        tasks.start(manager.run())
        for number in range(20):
            await server.client.patch(ConfigMap, "a", {"data": {"n": str(number)}}, namespace="default")
        await reconciler.wait_for(1)
    assert reconciler.most_at_once == 1
