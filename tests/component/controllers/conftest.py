"""A real API server with all control loops; the test plays the agents: it decides when pods run and when they end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pilotage.api.catalogue import by_api_version
from pilotage.api.codec import encode
from pilotage.api.core_v1 import Node, Pod
from pilotage.api.meta_v1 import Object
from pilotage.api.status import ApiError, is_not_found
from pilotage.client import Client, Informer, PatchType
from pilotage.client.client import path_of
from pilotage.controllers import Config, run
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.testing.cluster import api_server

DEADLINE_S = 30.0
CA = "-----BEGIN CERTIFICATE-----\nthe cluster's\n-----END CERTIFICATE-----\n"


class World:
    """The API as a test sees it."""

    def __init__(self, client: Client, tasks: TaskSet, kubeconfig: Path) -> None:
        self.client = client
        self.tasks = tasks
        self.kubeconfig = kubeconfig  # the administrator's
        self.informers: dict[type[Object], Informer[Any]] = {}

    async def follow(self, *kinds: type[Object]) -> None:
        for kind in kinds:
            self.informers[kind] = Informer(self.client, kind)
            self.tasks.start(self.informers[kind].run())
            await self.informers[kind].wait_synced()

    async def create(self, document: dict[str, Any]) -> dict[str, Any]:
        resource = by_api_version(document["apiVersion"], document["kind"])
        assert resource is not None
        namespace = document["metadata"].setdefault("namespace", "default") if resource.namespaced else None
        path = resource.path(namespace)
        answer: dict[str, Any] = msgspec.json.decode(await self.client.request("POST", path, body=encode(document)))
        return answer

    async def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """The first true value of `condition`, looked at after every change of what is followed."""
        changed = asyncio.Event()
        for informer in self.informers.values():
            informer.add_progress(lambda _: changed.set())
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not (value := condition()):
                    await changed.wait()
                    changed.clear()
                return value
        except TimeoutError:
            state = {
                kind.kind: sorted(obj.metadata.key for obj in informer.list())[:10]
                for kind, informer in self.informers.items()
            }
            pytest.fail(f"never came: {what or condition}; {state}")

    def pods(self, **labels: str) -> list[Pod]:
        """Living pods with these labels, oldest name first."""
        found = [
            pod
            for pod in self.informers[Pod].list()
            if labels.items() <= pod.metadata.labels.items() and not pod.metadata.is_deleting
        ]
        return sorted(found, key=lambda pod: pod.metadata.name)

    async def set_pod(self, pod: Pod, *, phase: str = "Running", ready: bool = True, ip: str = "") -> None:
        now = "2026-01-01T00:00:00Z"
        status: dict[str, Any] = {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now}],
        }
        if ip:
            status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
        await self.client.patch(
            Pod,
            pod.metadata.name,
            {"status": status},
            namespace=pod.metadata.namespace,
            patch_type=PatchType.STRATEGIC,
            subresource="status",
        )

    async def end_pod(self, pod: Pod) -> None:
        """What an agent does once the containers have ended."""
        try:
            await self.client.delete(Pod, pod.metadata.name, namespace=pod.metadata.namespace, grace_period_s=0)
        except ApiError as error:
            if not is_not_found(error):
                raise

    async def bind(self, pod: Pod, node: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.metadata.name},
            "target": {"kind": "Node", "name": node},
        }
        path = path_of(Pod, pod.metadata.namespace, pod.metadata.name, "binding")
        await self.client.request("POST", path, body=encode(body))

    async def make_node(self, name: str, *, zone: str = "zone-a", ready: bool = True) -> Node:
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
        await self.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
        now = "2026-01-01T00:00:00Z"
        resources = {"cpu": "4", "memory": "8Gi", "pods": "110"}
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        body = {"status": {"conditions": [condition], "capacity": resources, "allocatable": resources}}
        return await self.client.patch(Node, name, body, patch_type=PatchType.STRATEGIC, subresource="status")


class Agents:
    """Every pod is bound to `node`, runs and becomes ready at once, and ends as soon as it is asked to."""

    def __init__(self, world: World, node: str = "n1") -> None:
        self.world = world
        self.node = node
        self.paused = asyncio.Event()
        self.numbers = iter(range(1, 60_000))

    async def run(self) -> None:
        informer = Informer(self.world.client, Pod)
        queue: asyncio.Queue[str] = asyncio.Queue()
        informer.add_handler(lambda old, new: queue.put_nowait(new.metadata.key) if new else None)
        async with task_set() as tasks:
            tasks.start(informer.run())
            while True:
                pod = informer.get_key(await queue.get())
                if pod is not None:
                    await self.serve(pod)

    async def serve(self, pod: Pod) -> None:
        try:
            if pod.metadata.is_deleting:
                await self.world.end_pod(pod)
            elif not pod.spec.node_name:
                await self.world.bind(pod, self.node)
            elif pod.status.phase in ("", "Pending"):
                number = next(self.numbers)
                await self.world.set_pod(pod, ip=f"10.244.{number // 250}.{number % 250 + 1}")
        except ApiError as error:
            if error.reason not in ("NotFound", "Conflict"):
                raise


@asynccontextmanager
async def world_with(config: Config) -> AsyncIterator[World]:
    async with (
        api_server() as server,
        Client.from_kubeconfig(server.kubeconfig_of("system:kube-controller-manager")) as client,
    ):
        async with task_set() as tasks:  # the tasks end before their client does
            ready = asyncio.Event()
            tasks.start(run(config, client, on_ready=ready.set), name="controllers")
            async with asyncio.timeout(DEADLINE_S):
                await ready.wait()
            yield World(server.client, tasks, server.kubeconfig_path)
            tasks.cancel_all()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with world_with(Config(root_ca=CA)) as made:
        yield made


@pytest.fixture
async def agents(world: World) -> Agents:
    """Agents at work."""
    await world.make_node("n1")
    made = Agents(world)
    world.tasks.start(made.run(), name="agents")
    return made


@pytest.fixture
def start_world() -> Callable[[Config], Any]:
    """For tests that need another configuration."""
    return world_with


def template(app: str, image: str = "v1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": f"localhost/app:{image}"}], **spec},
    }


@pytest.fixture
def workload() -> Callable[..., dict[str, Any]]:
    """The document of a workload whose pods carry the label app=NAME."""

    def make(
        kind: str, name: str, *, image: str = "v1", pod: dict[str, Any] | None = None, **spec: Any
    ) -> dict[str, Any]:
        selector = {} if kind == "Job" else {"selector": {"matchLabels": {"app": name}}}
        return {
            "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "default"},
            "spec": {**selector, "template": template(name, image, **(pod or {})), **spec},
        }

    return make
