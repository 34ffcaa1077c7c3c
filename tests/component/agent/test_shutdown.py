"""The machine goes down: pods end by priority and say why; a plain restart of the agent disturbs none."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilotage.agent.agent import run
from pilotage.api.codec import encode
from pilotage.api.core_v1 import Node, Pod
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import api_server

from .test_agent import WEB, Scene, eventually, only


class FallingScene(Scene):
    """Its agent may be told that the machine goes down."""

    going_down: asyncio.Event
    over: asyncio.Event

    async def start(self) -> None:
        self.going_down, self.over, ready = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def live() -> None:
            await run(
                self.config,
                self.client,
                on_ready=ready.set,
                runtime=self.runtime,
                wiring=self.wiring,
                mounts=self.mounts,
                going_down=self.going_down,
            )
            self.over.set()

        self.tasks.start(live(), key="agent")
        async with asyncio.timeout(15):
            await ready.wait()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[FallingScene]:
    async with api_server() as server, task_set() as tasks:
        scene = FallingScene(server.client, tasks, tmp_path)
        scene.config = replace(scene.config, shutdown_by_priority=((0, 20.0), (100_000, 20.0)))
        await scene.start()
        yield scene


async def test_pods_end_by_priority_and_the_node_says_so(scene: FallingScene) -> None:
    high = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "high"},
        "value": 200_000,
    }
    await scene.client.request("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", body=encode(high))
    await scene.create("high", {**WEB, "priorityClassName": "high"})
    await scene.create("low", WEB)
    pods = {name: await scene.wait_for(name) for name in ("high", "low")}
    ids = {name: only(pod).container_id.removeprefix("pilotage://") for name, pod in pods.items()}
    scene.runtime.containers[ids["low"]].obeys = False
    scene.going_down.set()
    low = scene.runtime.containers[ids["low"]]

    async def asked() -> bool:
        return low.signals == ["TERM"]

    await eventually(asked)
    assert scene.runtime.containers[ids["high"]].signals == []  # its turn has not come

    async def said() -> bool:
        node = await scene.client.get(Node, "n1")
        ready = next(one for one in node.status.conditions if one.type == "Ready")
        return (ready.status, ready.message) == ("False", "node is shutting down")

    await eventually(said)
    await scene.create("late", WEB)
    late = await scene.wait("late", lambda pod: pod.status.phase == "Failed")
    assert (late.status.reason, late.status.message) == (
        "NodeShutdown",
        "Pod was rejected as the node is shutting down.",
    )
    scene.runtime.end(ids["low"], 143)
    async with asyncio.timeout(15):
        await scene.over.wait()
    assert not scene.running()
    for name in ("high", "low"):
        pod = await scene.client.get(Pod, name, namespace="default")
        assert (pod.status.phase, pod.status.reason) == ("Failed", "Terminated")
        assert pod.status.message == "Pod was terminated in response to imminent node shutdown."
        target = pod.status.condition("DisruptionTarget")
        assert target is not None
        assert (target.status, target.reason) == ("True", "TerminationByKubelet")


async def test_a_pod_has_no_longer_than_its_step(scene: FallingScene) -> None:
    scene.config = replace(scene.config, shutdown_by_priority=((0, 0.2),))
    await scene.kill()
    await scene.start()
    scene.runtime.obeys = False
    await scene.create("stubborn", {**WEB, "terminationGracePeriodSeconds": 600})
    pod = await scene.wait_for("stubborn")
    container = scene.runtime.containers[only(pod).container_id.removeprefix("pilotage://")]
    scene.going_down.set()
    async with asyncio.timeout(15):
        await scene.over.wait()
    assert container.signals == ["TERM", "KILL"]


async def test_a_plain_restart_disturbs_no_pod_even_then(scene: FallingScene) -> None:
    await scene.create("web", WEB)
    await scene.wait_for("web")
    (running,) = scene.running()
    await scene.kill()
    assert list(scene.running()) == [running]
    await scene.start()
    pod = await scene.wait_for("web")
    assert only(pod).restart_count == 0
    assert list(scene.running()) == [running]
