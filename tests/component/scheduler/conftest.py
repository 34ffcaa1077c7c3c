"""A real API server with a scheduler; the test makes nodes and pods."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from pilotage.api.catalogue import by_api_version
from pilotage.api.codec import encode
from pilotage.api.core_v1 import Node, Pod
from pilotage.client import Client, Informer, PatchType
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.scheduler import Config, run
from pilotage.testing.cluster import api_server

DEADLINE_S = 30.0


class World:
    """The API as a test sees it."""

    def __init__(self, client: Client, tasks: TaskSet) -> None:
        self.client = client
        self.tasks = tasks
        self.pods = Informer(client, Pod)

    async def create(self, document: dict[str, Any]) -> None:
        resource = by_api_version(document["apiVersion"], document["kind"])
        assert resource is not None
        namespace = document["metadata"].setdefault("namespace", "default") if resource.namespaced else None
        await self.client.request("POST", resource.path(namespace), body=encode(document))

    async def node(self, name: str, *, zone: str = "a", cpu: str = "4", memory: str = "8Gi", **spec: Any) -> None:
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
        document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec}
        await self.create(document)
        resources = {"cpu": cpu, "memory": memory, "pods": "110"}
        body = {"status": {"capacity": resources, "allocatable": resources}}
        await self.client.patch(Node, name, body, patch_type=PatchType.STRATEGIC, subresource="status")

    async def pod(self, name: str, *, labels: Any = None, cpu: str = "100m", **spec: Any) -> None:
        container = {"name": "main", "image": "localhost/app", "resources": {"requests": {"cpu": cpu}}}
        metadata = {"name": name, "labels": labels or {}}
        body = {"containers": [container], **spec}
        await self.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body})

    def where(self) -> dict[str, str]:
        """Bound pods by name, with their nodes."""
        return {pod.metadata.name: pod.spec.node_name for pod in self.pods.list() if pod.spec.node_name}

    async def until(self, condition: Callable[[], Any]) -> Any:
        changed = asyncio.Event()
        self.pods.add_progress(lambda _: changed.set())
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not (value := condition()):
                    await changed.wait()
                    changed.clear()
                return value
        except TimeoutError:
            states = {pod.metadata.name: msgspec.to_builtins(pod.status.conditions) for pod in self.pods.list()}
            pytest.fail(f"never came; bound {self.where()}, conditions {states}")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with api_server() as server, Client.from_kubeconfig(server.kubeconfig_of("system:kube-scheduler")) as client:
        async with task_set() as tasks:  # the tasks end before their client does
            ready = asyncio.Event()
            tasks.start(run(Config(), client, on_ready=ready.set), name="scheduler")
            async with asyncio.timeout(DEADLINE_S):
                await ready.wait()
            made = World(server.client, tasks)
            tasks.start(made.pods.run())
            await made.pods.wait_synced()
            yield made
            tasks.cancel_all()
