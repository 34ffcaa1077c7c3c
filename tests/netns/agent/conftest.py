"""A real API server, a real kernel, a real runc: one agent in the test's own namespaces."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pilotage.agent import Config, remove_cgroups, run
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Namespace, Pod, ServiceAccount
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import Client
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.network.namespaces import unmount
from pilotage.testing.cluster import api_server

T = TypeVar("T")

CGROUP_PARENT = f"/pilotage-test-{os.getpid()}/agent"


async def eventually(look: Callable[[], Awaitable[T | None]], *, within_s: float = 30.0) -> T:
    """The first answer that is neither None nor False; fails with the last look's exception or a timeout."""
    async with asyncio.timeout(within_s):
        while True:
            found = await look()
            if found is not None and found is not False:
                return found
            await asyncio.sleep(0.01)


@dataclass
class NodeUnderTest:
    """The node, its API server, and the ways to talk about pods."""

    client: Client
    config: Config
    tasks: TaskSet
    kubeconfig: Path

    async def start_agent(self) -> None:
        ready = asyncio.Event()
        self.tasks.start(run(self.config, self.client, on_ready=ready.set), key="agent")
        async with asyncio.timeout(20):
            await ready.wait()

    async def stop_agent(self) -> None:
        """End the agent as a crash of its process would: nothing is told to the containers."""
        self.tasks.cancel("agent")
        while "agent" in self.tasks:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)

    async def clear(self) -> None:
        """Delete every pod, and see that nothing of any is left."""
        for pod in (await self.client.list(Pod)).items:
            await self.client.delete(Pod, pod.metadata.name, namespace=pod.metadata.namespace)
        places = [
            self.config.data_dir / "pods",
            *(
                self.config.run_dir / name
                for name in ("containers", "exits", "sandboxes", "netns", "scratch", "shm", "users")
            ),
        ]

        def left() -> list[str]:
            return [str(entry) for place in places for entry in place.glob("*")]

        async def empty() -> bool:
            return not left()

        try:
            await eventually(empty, within_s=60)
        except TimeoutError:
            pytest.fail(f"left behind: {left()}")
        await self.stop_agent()

    async def create(self, name: str, spec: dict[str, Any], **metadata: Any) -> Pod:
        defaults = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1}
        spec = {"nodeName": self.config.node} | defaults | spec
        for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
            container.setdefault("image", "localhost/host")
        document = {"metadata": {"name": name, "namespace": "default", **metadata}, "spec": spec}
        return await self.client.create(convert(Pod, document))

    async def pod(self, name: str) -> Pod:
        return await self.client.get(Pod, name, namespace="default")

    async def wait(self, name: str, holds: Callable[[Pod], bool], *, within_s: float = 30.0) -> Pod:
        last: list[Pod] = []

        async def look() -> Pod | None:
            last[:] = [await self.pod(name)]
            return last[0] if holds(last[0]) else None

        try:
            return await eventually(look, within_s=within_s)
        except TimeoutError:
            pytest.fail(f"pod {name} did not get there; its status: {last[0].status if last else None}")

    def log(self, pod: Pod, container: str, attempt: int = 0) -> str:
        path = self.config.data_dir / "pods" / pod.metadata.uid / "logs" / container / f"{attempt}.log"
        return path.read_text() if path.exists() else ""


@asynccontextmanager
async def node_under_test(tmp_path: Path) -> AsyncIterator[NodeUnderTest]:
    # overlayfs needs its upper layers elsewhere than on the host's root.
    run_dir = Path(tempfile.mkdtemp(prefix="pilotage-test-", dir="/run"))
    async with api_server() as server, task_set() as tasks:
        config = Config(
            node="n1",
            node_ip="127.0.0.1",
            pod_cidr="10.244.1.0/24",
            data_dir=tmp_path / "data",
            run_dir=run_dir / "n1",
            roots_dir=run_dir.with_name(f"{run_dir.name}-roots"),
            cgroup_parent=CGROUP_PARENT,
            housekeeping_s=0.2,
        )
        for name in ("default", "kube-node-lease"):
            try:
                await server.client.get(Namespace, name)
            except Exception:
                await server.client.create(Namespace(metadata=ObjectMeta(name=name)))
        try:
            await server.client.get(ServiceAccount, "default", namespace="default")
        except Exception:
            await server.client.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace="default")))
        try:
            yield NodeUnderTest(client=server.client, config=config, tasks=tasks, kubeconfig=server.kubeconfig_path)
        finally:
            tasks.cancel("agent")
            await kill_what_is_left(config)
            unmount(str(config.run_dir / "scratch"))
            shutil.rmtree(run_dir, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                config.roots.rmdir()
            remove_cgroups(CGROUP_PARENT)


async def kill_what_is_left(config: Config) -> None:
    """A failed test must not leave containers on the machine."""
    pids = [int(path.read_text()) for path in (config.run_dir / "containers").glob("*/pid") if path.stat().st_size]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def ended() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in pids)

    await eventually(ended)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeUnderTest]:
    """A node whose agent runs; every pod is deleted and gone before the test ends."""
    async with node_under_test(tmp_path) as node:
        await node.start_agent()
        yield node
        await node.clear()
