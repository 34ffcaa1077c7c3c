"""After many lives nothing has piled up, counted in the kernel and not assumed."""

import asyncio
import os
from pathlib import Path

from pilotage.api.core_v1 import Pod

from .conftest import CGROUP_PARENT, NodeUnderTest, eventually
from .test_pods import SLEEP, is_ready

LIVES = 36


def census(node: NodeUnderTest) -> dict[str, int]:
    """What could leak, by kind."""
    run_dir = str(node.config.run_dir)
    processes = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            processes += run_dir in path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return {
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "links": len(os.listdir("/sys/class/net")),
        "control groups": sum(1 for _ in Path("/sys/fs/cgroup").glob(f"*{CGROUP_PARENT}/**/")),
        "processes": processes,
        "files": sum(len(names) for _, _, names in os.walk(node.config.run_dir)),
        "pod directories": len(list((node.config.data_dir / "pods").glob("*"))),
        # Not sockets: connections to the API server are pooled, and both their ends are in this process.
        "descriptors": sum(not _is_socket(path) for path in Path("/proc/self/fd").iterdir()),
    }


def _is_socket(path: Path) -> bool:
    try:
        return os.readlink(path).startswith("socket:")
    except FileNotFoundError:
        return True


async def test_many_lives_leave_nothing(node: NodeUnderTest) -> None:
    spec = {
        "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}],
        "terminationGracePeriodSeconds": 0,
    }
    container = {"name": "c", "command": SLEEP, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}

    async def live(name: str) -> None:
        await node.create(name, spec | {"containers": [dict(container)]})
        await node.wait(name, is_ready)
        await node.client.delete(Pod, name, namespace="default")

    async def settled() -> bool:
        return not list((node.config.data_dir / "pods").glob("*"))

    await live("first")  # what is made once and kept is made now
    await eventually(settled)
    before = census(node)
    for start in range(0, LIVES, 6):
        await asyncio.gather(*(live(f"p{start + index}") for index in range(6)))
    await eventually(settled)

    async def equal() -> bool:
        return census(node) == before

    try:
        await eventually(equal)
    except TimeoutError:
        assert census(node) == before
