"""What a node measures, and what it gives back: the meter's two kinds, images that nobody uses, long logs."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pilotage.agent import image_list, image_load
from pilotage.agent.agent import is_privileged
from pilotage.agent.collector import ImageCollector
from pilotage.agent.core import eviction
from pilotage.agent.core.eviction import Observation
from pilotage.agent.core.garbage import Policy
from pilotage.agent.errors import StartRefused
from pilotage.agent.image_uses import ImageUses
from pilotage.agent.images import ImageStore
from pilotage.agent.log_rotation import compress_and_drop, put_aside
from pilotage.agent.logs import LogOptions, read_log
from pilotage.agent.meter import FakeMeter, KernelMeter, Measured, Meter
from pilotage.agent.runtime.cgroup import ControlGroups
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Pod
from pilotage.kit.clock import SYSTEM_CLOCK

from .conftest import NodeUnderTest, eventually
from .test_images import make_archive
from .test_pods import has_phase, is_ready, printed

FULL, HALF = Observation(available=0, capacity=1 << 40), Observation(available=1 << 39, capacity=1 << 40)


def kernel_meter(tmp_path: Path) -> KernelMeter:
    return KernelMeter(
        pods_dir=tmp_path / "pods",
        images_dir=tmp_path / "images",
        groups=ControlGroups("/pilotage-test-nowhere"),
        layer=lambda container_id: (tmp_path / "scratch" / container_id,),
        allocatable_memory=1 << 30,
    )


@pytest.fixture(params=["kernel", "fake"])
def meter(request: pytest.FixtureRequest, tmp_path: Path) -> Meter:
    return kernel_meter(tmp_path) if request.param == "kernel" else FakeMeter()


POD = convert(
    Pod,
    {
        "metadata": {"name": "p", "uid": "u1"},
        "spec": {"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {}}]},
    },
)


def test_every_signal_is_known_and_within_its_capacity(meter: Meter) -> None:
    found = meter.signals()
    assert set(found) == set(eviction.SIGNALS)
    for name, observed in found.items():
        assert 0 <= observed.available <= observed.capacity, name
        assert observed.capacity > 0, name


def test_what_is_not_there_uses_nothing(meter: Meter) -> None:
    measured = meter.pod(POD, {"c": "gone"})
    assert measured.whole == Measured().whole
    assert not any(measured.volumes.values())


def test_the_kernels_meter_counts_what_is_written(tmp_path: Path) -> None:
    for place in ("pods/u1/logs/c", "pods/u1/volumes/v/deep", "scratch/c1"):
        path = tmp_path / place
        path.mkdir(parents=True)
        (path / "file").write_bytes(os.urandom(1 << 20))
    measured = kernel_meter(tmp_path).pod(POD, {"c": "c1"})
    assert 2 << 20 <= measured.containers["c"].disk_bytes < 3 << 20
    assert 1 << 20 <= measured.volumes["v"] < 2 << 20
    assert 2 << 20 <= measured.whole.disk_bytes < 3 << 20
    assert measured.whole.inodes == 3


@pytest.mark.skipif(not is_privileged(), reason="control groups cannot be written in a user namespace")
async def test_the_kernels_meter_counts_what_runs(node: NodeUnderTest) -> None:
    script = "import os, time; x = b'x' * (50 << 20); [os.fork() for _ in range(2)]; time.sleep(1000)"
    await node.create("busy", {"containers": [{"name": "c", "command": ["python3", "-c", script]}]})
    pod = await node.wait("busy", is_ready)
    groups = ControlGroups(node.config.cgroup_parent)

    async def counted() -> bool:
        usage = groups.usage(pod.metadata.uid)
        return usage.memory_bytes > 50 << 20 and usage.processes >= 4

    await eventually(counted)
    assert groups.usage().memory_bytes > 50 << 20


# ── images ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def collector(directory: Path, policy: Policy) -> ImageCollector:
    return ImageCollector(images=ImageStore(directory), uses=ImageUses(directory), policy=policy, clock=SYSTEM_CLOCK)


def names(directory: Path) -> list[str]:
    return [image.name for image in image_list(directory)][1:]


def test_images_go_when_the_disk_is_full_but_not_those_in_use(tmp_path: Path) -> None:
    images, uses = ImageStore(tmp_path / "images"), ImageUses(tmp_path / "images")
    for name in ("used", "idle"):
        image_load(tmp_path / "images", make_archive(tmp_path / f"{name}.tar", [f"local.test/{name}:1"], name))
    used = next(image for image in images.list() if "used" in image.name)
    images.unpack(used)
    root = tmp_path / "scratch" / "c1"
    root.mkdir(parents=True)
    uses.claim(used, "c1", root)
    young = collector(tmp_path / "images", Policy())
    assert "but only found 0 bytes" in young.collect(FULL)  # it has only just come
    old = collector(tmp_path / "images", Policy(age_s_min=0.0))
    assert old.collect(HALF) == ""
    assert len(names(tmp_path / "images")) == 2
    assert old.collect(FULL).startswith("Failed to garbage collect required amount of images. ")
    assert names(tmp_path / "images") == ["local.test/used:1"]
    assert used.lower.is_dir()
    # Another node of the machine sees the mark as well; when the root is gone, it counts for nothing.
    other = collector(tmp_path / "images", Policy())
    other.remove_unused()
    assert used.lower.is_dir()
    root.rmdir()
    other.remove_unused()
    assert names(tmp_path / "images") == []
    assert not used.lower.exists()
    assert not list((tmp_path / "images/layout/blobs/sha256").iterdir())
    with pytest.raises(StartRefused, match="was removed while it was being used"):
        uses.claim(used, "c2", root)


@pytest.mark.skipif(not is_privileged(), reason="only the mapped user exists in a user namespace")
async def test_a_running_container_keeps_its_image(node: NodeUnderTest, tmp_path: Path) -> None:
    directory = node.config.images
    name = image_load(directory, make_archive(tmp_path / "a.tar", ["local.test/greeter:1"]))
    container = {"name": "c", "image": name, "command": ["/bin/sh", "-c", "echo up; read x"], "stdin": True}
    await node.create("user", {"containers": [container], "restartPolicy": "Never"})
    pod = await node.wait("user", is_ready)
    await printed(node, pod, "up")
    keeper = collector(directory, Policy())
    await asyncio.to_thread(keeper.remove_unused)
    assert names(directory) == [name]
    await node.client.delete(Pod, "user", namespace="default")

    async def removed() -> bool:
        await asyncio.to_thread(keeper.remove_unused)
        return not names(directory)

    await eventually(removed)


# ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def configure() -> Callable[[NodeUnderTest], None]:
    def change(node: NodeUnderTest) -> None:
        node.config = replace(node.config, log_bytes_max=20_000, log_files_max=3)

    return change


async def test_logs_are_rotated_and_followed_across(
    node: NodeUnderTest, configure: Callable[[NodeUnderTest], None]
) -> None:
    await node.stop_agent()
    configure(node)
    await node.start_agent()
    # 3,000 lines of 100 bytes and more, slowly enough for several rotations.
    script = (
        "import time\n"
        "for n in range(3000):\n"
        "    print(n, 'x' * 60, flush=True)\n"
        "    time.sleep(0.0005)\n"
        "print('end', flush=True)\n"
    )
    spec = {"containers": [{"name": "c", "command": ["python3", "-c", script]}], "restartPolicy": "Never"}
    await node.create("chatty", spec)
    pod = await node.wait("chatty", lambda pod: pod.status.phase in ("Running", "Succeeded"))
    path = node.config.data_dir / "pods" / pod.metadata.uid / "logs" / "c" / "0.log"
    seen = bytearray()
    over = False

    async def follow() -> None:
        async for piece in read_log(path, LogOptions(follow=True), ended=lambda: over):
            seen.extend(piece)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(follow())
        await node.wait("chatty", has_phase("Succeeded"))
        over = True
    lines = seen.decode().splitlines()
    numbers = [int(line.split()[0]) for line in lines[:-1]]
    assert lines[-1] == "end"
    assert numbers == list(range(numbers[0], 3000))  # nothing is lost in between, nothing comes twice
    aside = put_aside(path)
    assert 1 <= len(aside) <= 2
    assert all(one.suffix == ".gz" for one in aside[:-1])


def test_only_so_many_files_are_kept_and_old_ones_compressed(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    for stamp in range(5):
        (tmp_path / f"0.log.2026010{stamp}-000000-000000").write_text(str(stamp))
    (tmp_path / "0.log.20260100-000000-000000.gz.new").touch()  # of an agent that was killed
    compress_and_drop(path, 4)
    assert [one.name for one in put_aside(path)] == [
        "0.log.20260102-000000-000000.gz",
        "0.log.20260103-000000-000000.gz",
        "0.log.20260104-000000-000000",
    ]
