"""One suite for the runtime seam: runc with conmon and the fake keep the same promises."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pilotage.agent.agent import is_privileged
from pilotage.agent.core import oci
from pilotage.agent.image_uses import ImageUses
from pilotage.agent.images import host_image
from pilotage.agent.mounts import KernelMounts
from pilotage.agent.rootfs import RootFSMaker
from pilotage.agent.runtime import ContainerExit, ContainerSpec, Runtime, RuntimeFailure
from pilotage.agent.runtime.cgroup import ControlGroups, remove_all
from pilotage.agent.runtime.fake import FakeRuntime
from pilotage.agent.runtime.oci import OCIRuntime
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Pod

PARENT = f"/pilotage-test-{os.getpid()}/seam"
# The first process of a pid namespace ignores signals that it has no handler for.
POLITE = ("sh", "-c", "trap 'exit 143' TERM; while :; do sleep 0.02; done")


@dataclass
class Ground:
    """A runtime, and how to describe a container to it."""

    runtime: Runtime
    again: Callable[[], Runtime]  # a second instance that finds what the first one left
    describe: Callable[[str, tuple[str, ...]], ContainerSpec]
    exits: "asyncio.Queue[ContainerExit]"

    async def run(self, container_id: str, command: tuple[str, ...] = POLITE) -> None:
        await self.runtime.create(self.describe(container_id, command))
        await self.runtime.start(container_id)


@pytest.fixture(params=["fake", "runc"])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    run_dir = Path(tempfile.mkdtemp(prefix="pilotage-test-", dir="/run"))
    privileged = is_privileged()
    groups = ControlGroups(PARENT)
    uses = ImageUses(tmp_path / "images")
    roots = RootFSMaker(
        scratch=run_dir / "scratch",
        passable=run_dir / "roots",
        hidden=(),
        privileged=privileged,
        mounts=KernelMounts(),
        uses=uses,
    )
    document: dict[str, Any] = {"metadata": {"name": "p", "uid": "u1"}, "spec": {"containers": [{"name": "c"}]}}
    pod = convert(Pod, document)

    def describe(container_id: str, command: tuple[str, ...]) -> ContainerSpec:
        root = roots.make(host_image(), container_id)
        bundle = oci.Bundle(
            rootfs=str(root.path),
            args=command,
            environment={"PATH": "/usr/bin:/bin"},
            working_directory="",
            user=oci.User(),
            hostname="p",
            mounts=root.mounts,
            namespaces={"mount": "", "pid": "", "network": "", **runtime.sandbox_namespaces("u1")},
            cgroup_path=groups.path("u1", container_id) if privileged else "",
            memory_bytes=1 << 34,
            may_lower_oom_score=privileged,
        )
        return ContainerSpec(
            container_id=container_id,
            document=oci.document(pod, pod.spec.containers[0], bundle),
            log_path=tmp_path / f"{container_id}.log",
        )

    fake = FakeRuntime()

    def make() -> Runtime:
        return fake if request.param == "fake" else OCIRuntime(run_dir, cgroups=groups)

    roots.prepare()
    runtime = make()
    exits: asyncio.Queue[ContainerExit] = asyncio.Queue()
    runtime.on_exit(exits.put_nowait)
    await runtime.open()
    await runtime.open_sandbox("u1", "p")
    yield Ground(runtime=runtime, again=make, describe=describe, exits=exits)
    for container_id in runtime.list():
        await runtime.remove(container_id)
    await runtime.close_sandbox("u1")
    await runtime.aclose()
    KernelMounts().detach(run_dir / "scratch")
    remove_all(PARENT)


async def test_a_container_is_created_started_and_found(ground: Ground) -> None:
    runtime = ground.runtime
    assert runtime.find("c1") is None
    await runtime.create(ground.describe("c1", POLITE))
    created = runtime.find("c1")
    assert created is None or not created.running
    at = await runtime.start("c1")
    found = runtime.find("c1")
    assert found is not None
    assert (found.running, found.started_at, found.exit) == (True, at, None)
    assert runtime.list() == ["c1"]


async def test_its_end_is_reported_once_and_remembered(ground: Ground) -> None:
    await ground.run("c1")
    await ground.runtime.signal("c1", "KILL")
    async with asyncio.timeout(10):
        exit_ = await ground.exits.get()
    assert (exit_.container_id, exit_.exit_code, exit_.oom_killed) == ("c1", 137, False)
    found = ground.runtime.find("c1")
    assert found is not None
    assert (found.running, found.exit) == (False, exit_)
    assert ground.exits.empty()
    await ground.runtime.signal("c1", "TERM")  # of an ended container: nothing


async def test_a_signal_reaches_the_first_process(ground: Ground) -> None:
    await ground.run("c1")
    session = await ground.runtime.execute("c1", ["true"])  # the shell has set its trap once others can run
    await session.wait()
    await session.aclose()
    async with asyncio.timeout(10):
        while ground.exits.empty():
            await ground.runtime.signal("c1", "TERM")
            await asyncio.sleep(0.02)
    assert (await ground.exits.get()).exit_code == 143


async def test_removal_kills_forgets_and_may_be_repeated(ground: Ground) -> None:
    await ground.run("c1")
    await ground.runtime.remove("c1")
    assert ground.runtime.find("c1") is None
    assert ground.runtime.list() == []
    await ground.runtime.remove("c1")
    await ground.run("c1")  # the identifier is free again


async def test_a_second_instance_finds_what_the_first_one_started(ground: Ground) -> None:
    await ground.run("c1")
    before = ground.runtime.find("c1")
    second = ground.again()
    assert second.find("c1") == before
    assert second.list() == ["c1"]
    assert second.sandbox_namespaces("u1") == ground.runtime.sandbox_namespaces("u1")


async def test_commands_run_inside_only_while_it_runs(ground: Ground) -> None:
    await ground.run("c1")
    session = await ground.runtime.execute("c1", ["cat"], stdin=True)
    await session.write(b"hello")
    session.close_stdin()
    assert b"".join([data async for _, data in session.output()]) == b"hello"
    assert await session.wait() == 0
    await session.aclose()
    await ground.runtime.signal("c1", "KILL")
    async with asyncio.timeout(10):
        await ground.exits.get()
    with pytest.raises(RuntimeFailure):
        await ground.runtime.execute("c1", ["true"])


async def test_sandboxes_open_and_close_repeatedly(ground: Ground) -> None:
    runtime = ground.runtime
    namespaces = runtime.sandbox_namespaces("u1")
    assert set(namespaces) == {"ipc", "uts"}
    await runtime.open_sandbox("u1", "p")
    assert runtime.sandbox_namespaces("u1") == namespaces
    await runtime.close_sandbox("u1")
    assert runtime.sandbox_namespaces("u1") == {}
    await runtime.close_sandbox("u1")
