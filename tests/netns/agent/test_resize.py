"""A pod's resources are changed while it runs: the kernel's limits follow, the process stays."""

from pathlib import Path
from typing import Any

import pytest

from pilotage.agent.agent import is_privileged
from pilotage.agent.runtime.cgroup import ControlGroups
from pilotage.api.core_v1 import Pod
from pilotage.client import PatchType

from .conftest import NodeUnderTest, eventually
from .test_pods import SLEEP, events_of, is_ready, only
from .test_restart import pid_of

pytestmark = pytest.mark.skipif(not is_privileged(), reason="control groups cannot be written in a user namespace")
UNIFIED = ControlGroups("/x").unified
MI = 1 << 20
BEFORE = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}


async def resize(node: NodeUnderTest, name: str, resources: dict[str, Any]) -> None:
    body = {"spec": {"containers": [{"name": "c", "resources": resources}]}}
    await node.client.patch(Pod, name, body, namespace="default", subresource="resize", patch_type=PatchType.STRATEGIC)


def held_to(node: NodeUnderTest, pod: Pod) -> tuple[str, str]:
    """CPU quota and memory limit of the container's own group, as the kernel has them."""
    lines = Path(f"/proc/{pid_of(node, pod)}/cgroup").read_text().splitlines()
    paths = {name: line.split(":", 2)[2] for line in lines for name in line.split(":")[1].split(",")}
    if UNIFIED:
        group = Path("/sys/fs/cgroup" + paths[""])
        return (group / "cpu.max").read_text().split()[0], (group / "memory.max").read_text().strip()
    cpu, memory = Path("/sys/fs/cgroup/cpu" + paths["cpu"]), Path("/sys/fs/cgroup/memory" + paths["memory"])
    return (cpu / "cpu.cfs_quota_us").read_text().strip(), (memory / "memory.limit_in_bytes").read_text().strip()


def settled(resources: dict[str, Any]) -> Any:
    def holds(pod: Pod) -> bool:
        if not is_ready(pod):
            return False
        found = only(pod).resources
        waits = any("Resize" in condition.type for condition in pod.status.conditions)
        return found is not None and found.limits == resources["limits"] and not waits

    return holds


async def test_limits_grow_and_shrink_under_a_running_process(node: NodeUnderTest) -> None:
    await node.create("elastic", {"containers": [{"name": "c", "command": SLEEP, "resources": BEFORE}]})
    before = await node.wait("elastic", settled(BEFORE))
    pid = pid_of(node, before)
    assert held_to(node, before) == ("20000", str(64 * MI))
    for limits in ({"cpu": "500m", "memory": "128Mi"}, {"cpu": "150m", "memory": "48Mi"}):
        wanted = {"requests": {"cpu": "50m", "memory": "40Mi"}, "limits": limits}
        await resize(node, "elastic", wanted)
        pod = await node.wait("elastic", settled(wanted))
        assert only(pod).allocated_resources == wanted["requests"]
        quota, memory = held_to(node, pod)
        assert (int(quota), int(memory)) == (int(limits["cpu"][:-1]) * 100, int(limits["memory"][:-2]) * MI)
        assert (pid_of(node, pod), only(pod).restart_count) == (pid, 0)

    async def told() -> bool:
        return {"ResizeStarted", "ResizeCompleted"} <= (await events_of(node, pod)).keys()

    await eventually(told)


async def test_a_resize_outlives_the_agent_and_is_taken_up_by_the_next(node: NodeUnderTest) -> None:
    await node.create("elastic", {"containers": [{"name": "c", "command": SLEEP, "resources": BEFORE}]})
    pid = pid_of(node, await node.wait("elastic", settled(BEFORE)))
    await node.stop_agent()
    wanted = {"requests": BEFORE["requests"], "limits": {"cpu": "300m", "memory": "96Mi"}}
    await resize(node, "elastic", wanted)
    await node.start_agent()
    pod = await node.wait("elastic", settled(wanted))
    assert held_to(node, pod) == ("30000", str(96 * MI))
    assert (pid_of(node, pod), only(pod).restart_count) == (pid, 0)


async def test_a_container_that_asks_for_it_is_restarted_and_what_has_no_room_waits(node: NodeUnderTest) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    container = {"name": "c", "command": SLEEP, "resources": BEFORE, "resizePolicy": policy}
    await node.create("stiff", {"containers": [container]})
    await node.wait("stiff", settled(BEFORE))
    too_much = {"requests": {"cpu": "1000", "memory": "32Mi"}, "limits": {"cpu": "1000", "memory": "64Mi"}}
    await resize(node, "stiff", too_much)
    pod = await node.wait("stiff", lambda pod: pod.status.condition("PodResizePending") is not None)
    pending = pod.status.condition("PodResizePending")
    assert pending is not None
    assert pending.reason == "Infeasible"
    assert pending.message.startswith("Node didn't have enough capacity: cpu, requested: 1000000, capacity: ")
    assert only(pod).resources.limits == BEFORE["limits"]
    wanted = {"requests": {"cpu": "100m", "memory": "40Mi"}, "limits": {"cpu": "200m", "memory": "80Mi"}}
    await resize(node, "stiff", wanted)
    after = await node.wait("stiff", settled(wanted))
    assert only(after).restart_count == 1
    assert held_to(node, after) == ("20000", str(80 * MI))
