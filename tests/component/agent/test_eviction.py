"""A node under pressure, with made-up signals and usages: conditions, evictions, admission, and the end of it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilotage.agent.core.eviction import Settings, Usage
from pilotage.agent.meter import Measured
from pilotage.api.core_v1 import Event, Node, Pod
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import api_server

from .test_agent import WEB, Scene, eventually, is_ready

MI = 1 << 20
SETTINGS = Settings(hard={"memory.available": "100Mi", "pid.available": "10"}, pressure_transition_s=0.0)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with api_server() as server, task_set() as tasks:
        scene = Scene(server.client, tasks, tmp_path)
        scene.config = replace(scene.config, eviction=SETTINGS, housekeeping_s=0.02)
        await scene.start()
        yield scene


def using(memory: int = 0, processes: int = 0) -> Measured:
    usage = Usage(memory_bytes=memory, processes=processes)
    return Measured(whole=usage, containers={"c": usage})


def asking(memory: str) -> dict[str, Any]:
    return {"containers": [{"name": "c", "resources": {"requests": {"memory": memory}}}]}


async def condition(scene: Scene, type_: str, status: str) -> None:
    async def has() -> bool:
        node = await scene.client.get(Node, "n1")
        return any((one.type, one.status) == (type_, status) for one in node.status.conditions)

    await eventually(has)


def is_failed(pod: Pod) -> bool:
    return pod.status.phase == "Failed"


async def test_memory_pressure_ends_who_uses_more_than_asked_and_passes(scene: Scene) -> None:
    for name, memory in (("modest", "64Mi"), ("greedy", "16Mi")):
        await scene.create(name, asking(memory))
        await scene.wait(name, is_ready)
        scene.meter.pods[name] = using(memory=32 * MI)
    scene.runtime.on_exit(lambda _: scene.meter.press("memory.available", 500 * MI))  # what it held is free
    scene.meter.press("memory.available", 50 * MI)
    pod = await scene.wait("greedy", is_failed)
    assert pod.status.reason == "Evicted"
    assert pod.status.message == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51200Ki. "
        "Container c was using 32768Ki, request is 16Mi, has larger consumption of memory. "
    )
    assert pod.status.condition("DisruptionTarget").reason == "TerminationByKubelet"
    await condition(scene, "MemoryPressure", "False")
    assert is_ready(await scene.client.get(Pod, "modest", namespace="default"))

    async def told() -> bool:
        events = (await scene.client.list(Event)).items
        found = {(one.involved_object.kind, one.reason, one.message) for one in events}
        return ("Node", "EvictionThresholdMet", "Attempting to reclaim memory") in found

    await eventually(told)


async def test_under_pressure_a_node_takes_only_what_asks_for_memory(scene: Scene) -> None:
    scene.meter.press("memory.available", 50 * MI)
    await condition(scene, "MemoryPressure", "True")
    await scene.create("nothing-asked", WEB)
    pod = await scene.wait("nothing-asked", is_failed)
    assert (pod.status.reason, pod.status.message) == (
        "Evicted",
        "Pod was rejected: The node had condition: [MemoryPressure]. ",
    )


async def test_processes_end_the_least_important_pod_one_at_a_time(scene: Scene) -> None:
    for name, count in (("few", 3), ("many", 900)):
        await scene.create(name, WEB)
        await scene.wait(name, is_ready)
        scene.meter.pods[name] = using(processes=count)
    scene.meter.press("pid.available", 5)
    await scene.wait("many", is_failed)
    scene.meter.press("pid.available", 900)
    await condition(scene, "PIDPressure", "False")


async def test_a_container_that_outgrows_its_local_storage_ends_its_pod(scene: Scene) -> None:
    resources = {"limits": {"ephemeral-storage": "10Mi"}, "requests": {"ephemeral-storage": "1Mi"}}
    await scene.create("writer", {"containers": [{"name": "c", "resources": resources}]})
    await scene.wait("writer", is_ready)
    scene.meter.pods["writer"] = Measured(containers={"c": Usage(disk_bytes=11 * MI)})
    pod = await scene.wait("writer", is_failed)
    assert pod.status.message == "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "


async def test_a_node_keeps_back_what_is_reserved(scene: Scene) -> None:
    await scene.kill()
    before = (await scene.client.get(Node, "n1")).status
    scene.config = replace(scene.config, kube_reserved={"cpu": "100m"}, system_reserved={"memory": "1Gi"})
    await scene.start()
    after = (await scene.client.get(Node, "n1")).status
    assert after.capacity == before.capacity
    assert after.allocatable["cpu"].endswith("900m")
    kept = (1024 + 100) * 1024
    assert int(after.allocatable["memory"][:-2]) == int(after.capacity["memory"][:-2]) - kept
