"""The agent on an in-process API server, with containers in memory: what it writes, and what a kill of it loses."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pilotage.agent.agent import run
from pilotage.agent.config import Config
from pilotage.agent.meter import FakeMeter
from pilotage.agent.mounts import FakeMounts
from pilotage.agent.runtime.fake import FakeContainer, FakeRuntime
from pilotage.api.codec import convert
from pilotage.api.core_v1 import ContainerStatus, Event, Node, Pod
from pilotage.api.status import ApiError
from pilotage.client import Client, PatchType
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.network import FakeWiring, Route
from pilotage.testing.cluster import api_server

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T | None]], *, within_s: float = 30.0) -> T:
    async with asyncio.timeout(within_s):
        while True:
            found = await look()
            if found is not None and found is not False:
                return found
            await asyncio.sleep(0.005)


class Scene:
    """One agent on a pretended machine, and the API server it works for."""

    def __init__(self, client: Client, tasks: TaskSet, tmp_path: Path) -> None:
        self.client = client
        self.tasks = tasks
        self.runtime = FakeRuntime()
        self.wiring = FakeWiring()
        self.mounts = FakeMounts()
        self.meter = FakeMeter()
        self.config = Config(
            node="n1",
            node_ip="10.89.0.11",
            pod_cidr="10.244.1.0/24",
            data_dir=tmp_path / "data",
            run_dir=tmp_path / "run",
            cgroup_parent="",  # nothing runs in them
        )

    async def start(self) -> None:
        ready = asyncio.Event()
        agent = run(
            self.config,
            self.client,
            on_ready=ready.set,
            runtime=self.runtime,
            wiring=self.wiring,
            mounts=self.mounts,
            meter=self.meter,
        )
        self.tasks.start(agent, key="agent")
        async with asyncio.timeout(15):
            await ready.wait()

    async def kill(self) -> None:
        self.tasks.cancel("agent")
        await self.runtime.aclose()
        await asyncio.sleep(0.02)

    async def create(self, name: str, spec: dict[str, Any], **metadata: Any) -> Pod:
        defaults = {"nodeName": "n1", "automountServiceAccountToken": False}
        for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
            container.setdefault("image", "localhost/host")
        document = {"metadata": {"name": name, "namespace": "default", **metadata}, "spec": defaults | spec}
        return await self.client.create(convert(Pod, document))

    async def wait(self, name: str, holds: Callable[[Pod], bool], *, absent_is_fine: bool = False) -> Pod:
        async def look() -> Pod | None:
            try:
                pod = await self.client.get(Pod, name, namespace="default")
            except ApiError:
                if not absent_is_fine:
                    raise
                return None
            return pod if holds(pod) else None

        return await eventually(look)

    async def wait_for(self, name: str) -> Pod:
        """Until the pod is there, and ready."""
        return await self.wait(name, is_ready, absent_is_fine=True)

    def running(self) -> dict[str, FakeContainer]:
        return {key: one for key, one in self.runtime.containers.items() if one.running}

    async def gone(self, name: str) -> None:
        async def look() -> bool:
            return all(pod.metadata.name != name for pod in (await self.client.list(Pod)).items)

        await eventually(look)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with api_server() as server, task_set() as tasks:
        scene = Scene(server.client, tasks, tmp_path)
        await scene.start()
        yield scene


def container_id(pod: Pod) -> str:
    (status,) = pod.status.container_statuses
    return status.container_id.removeprefix("pilotage://")


def only(pod: Pod) -> ContainerStatus:
    (status,) = pod.status.container_statuses
    return status


def is_ready(pod: Pod) -> bool:
    return pod.status.is_ready


WEB = {"containers": [{"name": "c", "command": ["serve"]}]}


async def test_a_bound_pod_becomes_ready_with_an_address(scene: Scene) -> None:
    await scene.create("web", WEB)
    pod = await scene.wait("web", is_ready)
    assert pod.status.phase == "Running"
    assert (pod.status.pod_ip, pod.status.host_ip) == ("10.244.1.2", "10.89.0.11")
    assert {one.type: one.status for one in pod.status.conditions if one.type != "PodScheduled"} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
    }
    assert only(pod).started is True
    document = scene.runtime.containers[container_id(pod)].spec.document
    assert document["process"]["args"] == ["serve"]
    kinds = {one["type"]: one.get("path", "") for one in document["linux"]["namespaces"]}
    assert kinds["network"].endswith(pod.metadata.uid)


async def test_pods_of_other_nodes_are_left_alone(scene: Scene) -> None:
    await scene.create("there", WEB | {"nodeName": "n2"})
    await scene.create("here", WEB)
    await scene.wait("here", is_ready)
    assert len(scene.runtime.containers) == 1
    assert (await scene.client.get(Pod, "there", namespace="default")).status.phase in ("", "Pending")


async def test_deletion_asks_waits_and_then_kills(scene: Scene) -> None:
    scene.runtime.obeys = False
    await scene.create("stubborn", WEB | {"terminationGracePeriodSeconds": 1})
    pod = await scene.wait("stubborn", is_ready)
    container = scene.runtime.containers[container_id(pod)]
    await scene.client.delete(Pod, "stubborn", namespace="default")
    await scene.gone("stubborn")
    assert container.signals == ["TERM", "KILL"]

    async def cleared() -> bool:
        left = scene.runtime.sandboxes or scene.runtime.containers or scene.wiring.connections
        return not left and not list((scene.config.data_dir / "pods").iterdir())

    await eventually(cleared)


async def test_a_second_deletion_without_grace_kills_at_once(scene: Scene) -> None:
    scene.runtime.obeys = False
    await scene.create("stubborn", WEB | {"terminationGracePeriodSeconds": 300})
    pod = await scene.wait("stubborn", is_ready)
    container = scene.runtime.containers[container_id(pod)]
    await scene.client.delete(Pod, "stubborn", namespace="default")
    await scene.wait("stubborn", lambda pod: not pod.status.is_ready)
    await scene.client.delete(Pod, "stubborn", namespace="default", grace_period_s=0)
    await scene.gone("stubborn")

    async def killed() -> bool:
        return container.signals == ["TERM", "KILL"]

    await eventually(killed)


async def test_a_pod_of_the_same_name_is_another_pod(scene: Scene) -> None:
    await scene.create("db-0", WEB)
    first = await scene.wait("db-0", is_ready)
    await scene.client.delete(Pod, "db-0", namespace="default", grace_period_s=0)
    await scene.create("db-0", WEB)
    second = await scene.wait("db-0", is_ready)
    assert second.metadata.uid != first.metadata.uid

    async def one_left() -> bool:
        return list(scene.running()) == [container_id(second)]

    await eventually(one_left)
    assert second.status.pod_ip != first.status.pod_ip


async def test_restart_policy_decides_what_an_exit_means(scene: Scene) -> None:
    await scene.create("job", WEB | {"restartPolicy": "OnFailure"})
    pod = await scene.wait("job", is_ready)
    scene.runtime.end(container_id(pod), 2)
    pod = await scene.wait("job", lambda pod: only(pod).restart_count == 1 and pod.status.is_ready)
    assert only(pod).last_state.terminated.exit_code == 2
    scene.runtime.end(container_id(pod), 0)
    pod = await scene.wait("job", lambda pod: pod.status.phase == "Succeeded")
    assert only(pod).state.terminated.reason == "Completed"
    assert not scene.running()


async def test_other_writers_conditions_stay_and_gates_count(scene: Scene) -> None:
    gate = "example.com/gate"
    await scene.create("gated", WEB | {"readinessGates": [{"conditionType": gate}]})
    pod = await scene.wait("gated", lambda pod: pod.status.phase == "Running")
    assert pod.status.condition("ContainersReady").status == "True"
    assert pod.status.condition("Ready").reason == "ReadinessGatesNotReady"
    body = {"status": {"conditions": [{"type": gate, "status": "True"}]}}
    await scene.client.patch(
        Pod, "gated", body, namespace="default", subresource="status", patch_type=PatchType.STRATEGIC
    )
    pod = await scene.wait("gated", is_ready)
    assert pod.status.condition(gate).status == "True"


async def test_a_killed_agent_finds_everything_again(scene: Scene) -> None:
    await scene.create("web", WEB)
    await scene.create("job", WEB | {"restartPolicy": "Never"})
    web = await scene.wait("web", is_ready)
    job = await scene.wait("job", is_ready)
    await scene.kill()
    scene.runtime.end(container_id(job), 3)
    await scene.start()
    job = await scene.wait("job", lambda pod: pod.status.phase == "Failed")
    assert only(job).state.terminated.exit_code == 3
    again = await scene.client.get(Pod, "web", namespace="default")
    assert (container_id(again), only(again).restart_count) == (container_id(web), 0)
    assert len(scene.runtime.starts) == 2


async def test_a_kill_in_the_middle_of_a_start_starts_nothing_twice(scene: Scene) -> None:
    """The container was started, but the agent died before it could write that down."""
    gate = asyncio.Event()
    original = scene.runtime.start

    async def start_then_hang(container_id: str) -> float:
        at = await original(container_id)
        gate.set()
        await asyncio.Event().wait()
        return at

    scene.runtime.start = start_then_hang  # type: ignore[method-assign]
    await scene.create("web", WEB)
    await gate.wait()
    await scene.kill()
    scene.runtime.start = original  # type: ignore[method-assign]
    await scene.start()
    pod = await scene.wait("web", is_ready)
    assert scene.runtime.starts == [container_id(pod)]
    assert only(pod).restart_count == 0


async def test_after_a_machine_restart_pods_come_back_with_a_higher_count(scene: Scene) -> None:
    await scene.create("web", WEB)
    await scene.wait("web", is_ready)
    await scene.kill()
    scene.runtime.lose_everything()
    scene.wiring = FakeWiring()
    await scene.start()
    pod = await scene.wait("web", lambda pod: only(pod).restart_count == 1 and pod.status.is_ready)
    assert only(pod).last_state.terminated.exit_code == 255


async def test_a_refused_container_is_a_start_error_and_is_tried_again(scene: Scene) -> None:
    scene.runtime.refusals = ["no such program"]
    await scene.create("typo", WEB)
    pod = await scene.wait("typo", lambda pod: bool(pod.status.container_statuses) and only(pod).restart_count == 1)
    assert only(pod).last_state.terminated.reason == "StartError"
    assert "no such program" in only(pod).last_state.terminated.message

    async def told() -> bool:
        events = (await scene.client.list(Event, namespace="default")).items
        return any(event.reason == "Failed" and "no such program" in event.message for event in events)

    await eventually(told)


async def test_an_exec_probe_governs_readiness(scene: Scene) -> None:
    probe = {"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1}
    scene.runtime.commands["check",] = (1, b"not yet")
    await scene.create("slow", {"containers": [{"name": "c", "command": ["serve"], "readinessProbe": probe}]})
    pod = await scene.wait("slow", lambda pod: pod.status.phase == "Running")
    assert not pod.status.is_ready

    async def told() -> bool:
        events = (await scene.client.list(Event, namespace="default")).items
        return any(event.message == "Readiness probe failed: not yet" for event in events)

    await eventually(told)
    scene.runtime.commands["check",] = (0, b"")
    await scene.wait("slow", is_ready)


async def test_routes_lead_to_the_other_nodes_pods(scene: Scene) -> None:
    other = {
        "metadata": {"name": "n2"},
        "spec": {"podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24"]},
    }
    await scene.client.create(convert(Node, other))
    body = {"status": {"addresses": [{"type": "InternalIP", "address": "10.89.0.12"}]}}
    await scene.client.patch(Node, "n2", body, subresource="status", patch_type=PatchType.STRATEGIC)
    wanted = frozenset({Route(destination="10.244.2.0/24", via=("10.89.0.12",))})

    async def routed() -> bool:
        return scene.wiring.routes == wanted

    await eventually(routed)
    await scene.client.delete(Node, "n2")

    async def unrouted() -> bool:
        return not scene.wiring.routes

    await eventually(unrouted)


async def test_a_deleted_node_registers_again(scene: Scene) -> None:
    before = await scene.client.get(Node, "n1")
    await scene.client.delete(Node, "n1")

    async def back() -> Node | None:
        found = [node for node in (await scene.client.list(Node)).items if node.metadata.name == "n1"]
        return found[0] if found and found[0].metadata.uid != before.metadata.uid else None

    again = await eventually(back)
    assert again.spec.pod_cidr == "10.244.1.0/24"


async def test_labels_in_files_follow_the_pod(scene: Scene) -> None:
    volume = {
        "name": "info",
        "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
    }
    await scene.create("web", WEB | {"volumes": [volume]}, labels={"a": "1"})
    pod = await scene.wait("web", is_ready)
    path = scene.config.data_dir / "pods" / pod.metadata.uid / "volumes" / "info" / "labels"
    assert path.read_text() == 'a="1"'
    await scene.client.patch(Pod, "web", {"metadata": {"labels": {"a": "2"}}}, namespace="default")

    async def followed() -> bool:
        return path.read_text() == 'a="2"'

    await eventually(followed)


class HastyRuntime(FakeRuntime):
    """Its containers end by themselves, some turns of the event loop after they have started."""

    turns = 0

    async def start(self, container_id: str) -> float:
        at = await super().start(container_id)
        loop = asyncio.get_running_loop()

        def turn(left: int) -> None:
            if left:
                loop.call_soon(turn, left - 1)
            else:
                self.end(container_id)

        turn(self.turns)
        return at


async def test_an_end_is_heard_however_soon_it_comes(scene: Scene) -> None:
    await scene.kill()
    scene.runtime = runtime = HastyRuntime()
    await scene.start()
    for runtime.turns in range(15):
        name = f"hasty-{runtime.turns}"
        await scene.create(name, {"containers": [{"name": "c"}], "restartPolicy": "Never"})
        await scene.wait(name, lambda pod: pod.status.phase == "Succeeded")
