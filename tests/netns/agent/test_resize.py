"""A pod's resources, its containers' or its own, are changed while it runs: the kernel follows, the process stays."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pilotage.agent.agent import is_privileged
from pilotage.agent.runtime.cgroup import ControlGroups
from pilotage.api.core_v1 import Pod
from pilotage.client import PatchType

from .conftest import NodeUnderTest, eventually
from .test_pods import SLEEP, events_of, is_ready, only, printed
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


# ── the pod as a whole (KEP-5419) ───────────────────────────────────────────────────────────────────────────────────

WHOLE = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
EATER = """
import pathlib, time
held = bytearray(80 << 20)
print("full", flush=True)
while not pathlib.Path("/tmp/enough").exists():
    time.sleep(0.05)
del held
print("empty", flush=True)
time.sleep(1000)
"""


def group_held_to(node: NodeUnderTest, pod: Pod) -> tuple[str, str]:
    """CPU quota and memory limit of the group around the pod's containers."""
    name = f"{node.config.cgroup_parent.lstrip('/')}/burstable/pod{pod.metadata.uid}"
    if UNIFIED:
        group = Path("/sys/fs/cgroup", name)
        return (group / "cpu.max").read_text().split()[0], (group / "memory.max").read_text().strip()
    cpu, memory = Path("/sys/fs/cgroup/cpu", name), Path("/sys/fs/cgroup/memory", name)
    return (cpu / "cpu.cfs_quota_us").read_text().strip(), (memory / "memory.limit_in_bytes").read_text().strip()


async def resize_whole(node: NodeUnderTest, name: str, resources: dict[str, Any]) -> None:
    body = {"spec": {"resources": resources}}
    await node.client.patch(Pod, name, body, namespace="default", subresource="resize", patch_type=PatchType.STRATEGIC)


def first(pod: Pod) -> Pod:
    """The pod as if its first container were its only one."""
    status = msgspec.structs.replace(pod.status, container_statuses=pod.status.container_statuses[:1])
    return msgspec.structs.replace(pod, status=status)


def settled_as_a_whole(resources: dict[str, Any]) -> Any:
    def holds(pod: Pod) -> bool:
        found = pod.status.resources
        waits = any("Resize" in condition.type for condition in pod.status.conditions)
        granted = pod.status.allocated_resources == resources["requests"]
        return is_ready(pod) and found is not None and found.limits == resources["limits"] and granted and not waits

    return holds


async def test_a_pod_as_a_whole_grows_and_shrinks_around_running_processes(node: NodeUnderTest) -> None:
    own = {"requests": {"cpu": "50m", "memory": "8Mi"}, "limits": {"cpu": "200m", "memory": "16Mi"}}
    bounded = {"name": "b", "command": SLEEP, "resources": own}
    await node.create("pool", {"containers": [{"name": "c", "command": SLEEP}, bounded], "resources": WHOLE})
    before = await node.wait("pool", settled_as_a_whole(WHOLE))
    pid = pid_of(node, first(before))
    assert group_held_to(node, before) == held_to(node, first(before)) == ("100000", str(128 * MI))
    for cpu, memory in ((4, 256), (2, 64)):
        wanted = {"requests": {"cpu": "300m", "memory": "48Mi"}, "limits": {"cpu": f"{cpu}", "memory": f"{memory}Mi"}}
        await resize_whole(node, "pool", wanted)
        pod = await node.wait("pool", settled_as_a_whole(wanted))
        assert group_held_to(node, pod) == held_to(node, first(pod)) == (f"{cpu}00000", str(memory * MI))
        assert [one.restart_count for one in pod.status.container_statuses] == [0, 0]
        assert pid_of(node, first(pod)) == pid
    again = {"requests": wanted["requests"], "limits": {"cpu": "3", "memory": "96Mi"}}
    await node.stop_agent()
    await resize_whole(node, "pool", again)
    await node.start_agent()
    pod = await node.wait("pool", settled_as_a_whole(again))
    assert group_held_to(node, pod) == held_to(node, first(pod)) == ("300000", str(96 * MI))
    assert pid_of(node, first(pod)) == pid


async def test_a_pod_that_uses_more_than_it_shall_have_keeps_it_until_it_does_not(node: NodeUnderTest) -> None:
    container = {"name": "c", "command": ["python3", "-c", EATER]}
    await node.create("eater", {"containers": [container], "resources": WHOLE})
    pod = await node.wait("eater", settled_as_a_whole(WHOLE))
    await printed(node, pod, "full")
    wanted = {"requests": WHOLE["requests"], "limits": {"cpu": "1", "memory": "48Mi"}}
    await resize_whole(node, "eater", wanted)

    def refused(pod: Pod) -> bool:
        found = pod.status.condition("PodResizeInProgress")
        return found is not None and found.reason == "Error"

    pod = await node.wait("eater", refused)
    assert pod.status.resources is not None
    assert pod.status.resources.limits == WHOLE["limits"]
    assert group_held_to(node, pod) == ("100000", str(128 * MI))
    (Path(f"/proc/{pid_of(node, pod)}/root/tmp") / "enough").touch()
    pod = await node.wait("eater", settled_as_a_whole(wanted))
    assert group_held_to(node, pod) == held_to(node, pod) == ("100000", str(48 * MI))
    assert only(pod).restart_count == 0


async def test_a_pod_as_a_whole_that_has_no_room_waits(node: NodeUnderTest) -> None:
    await node.create("pool", {"containers": [{"name": "c", "command": SLEEP}], "resources": WHOLE})
    await node.wait("pool", settled_as_a_whole(WHOLE))
    await resize_whole(node, "pool", {"requests": {"cpu": "1000", "memory": "32Mi"}, "limits": {"cpu": "1001"}})
    pod = await node.wait("pool", lambda pod: pod.status.condition("PodResizePending") is not None)
    pending = pod.status.condition("PodResizePending")
    assert pending is not None
    assert pending.reason == "Infeasible"
    assert pod.status.allocated_resources == WHOLE["requests"]
    assert group_held_to(node, pod) == ("100000", str(128 * MI))


async def test_the_group_of_a_pod_grows_when_a_container_is_restarted_for_its_resize(node: NodeUnderTest) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    container = {"name": "c", "command": SLEEP, "resources": BEFORE, "resizePolicy": policy}
    await node.create("stiff", {"containers": [container]})
    await node.wait("stiff", settled(BEFORE))
    wanted = {"requests": BEFORE["requests"], "limits": {"cpu": "200m", "memory": "80Mi"}}
    await resize(node, "stiff", wanted)
    pod = await node.wait("stiff", settled(wanted))
    assert group_held_to(node, pod) == held_to(node, pod) == ("20000", str(80 * MI))
