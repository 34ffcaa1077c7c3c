"""What the kernel holds pods to: control groups by class and pod, and what happens to who exceeds them."""

from pathlib import Path

import pytest

from pilotage.agent.agent import is_privileged
from pilotage.agent.core import oci
from pilotage.agent.runtime.cgroup import ControlGroups
from pilotage.api.core_v1 import Pod

from .conftest import NodeUnderTest
from .test_pods import SLEEP, has_phase, is_ready, only, printed

pytestmark = pytest.mark.skipif(not is_privileged(), reason="control groups cannot be written in a user namespace")
MI = 1 << 20


def group_of(node: NodeUnderTest, pod: Pod, controller: str, prefix: str = "") -> Path:
    return Path("/sys/fs/cgroup", controller, node.config.cgroup_parent.lstrip("/"), f"{prefix}pod{pod.metadata.uid}")


@pytest.mark.skipif(ControlGroups("/x").unified, reason="the files of version 1")
async def test_each_class_and_pod_has_its_groups(node: NodeUnderTest) -> None:
    both = {"cpu": "200m", "memory": "64Mi"}
    specs = {
        "whole": {"limits": both},
        "some": {"requests": {"cpu": "100m", "memory": "16Mi"}},
        "none": {},
    }
    pods = {}
    for name, resources in specs.items():
        await node.create(name, {"containers": [{"name": "c", "command": SLEEP, "resources": resources}]})
        pods[name] = await node.wait(name, is_ready)
    assert [pod.status.qos_class for pod in pods.values()] == ["Guaranteed", "Burstable", "BestEffort"]

    def read(name: str, controller: str, file: str, prefix: str = "") -> str:
        return (group_of(node, pods[name], controller, prefix) / file).read_text().strip()

    assert read("whole", "cpu", "cpu.shares") == "204"
    assert read("whole", "cpu", "cpu.cfs_quota_us") == "20000"
    assert read("whole", "memory", "memory.limit_in_bytes") == str(64 * MI)
    assert read("whole", "pids", "pids.max") == "4096"
    assert read("some", "cpu", "cpu.shares", "burstable/") == "102"
    assert read("some", "cpu", "cpu.cfs_quota_us", "burstable/") == "-1"
    assert read("none", "cpu", "cpu.shares", "besteffort/") == "2"
    # The container is in its pod's group, in every hierarchy.
    pid = (node.config.run_dir / "containers" / only(pods["none"]).container_id.partition("//")[2] / "pid").read_text()
    paths = {line.split(":")[1]: line.split(":")[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}
    for controller in ("cpu", "memory", "pids", "cpuset"):
        assert f"/besteffort/pod{pods['none'].metadata.uid}/" in paths[controller]


async def test_the_limit_of_a_pod_binds_its_containers_together(node: NodeUnderTest) -> None:
    """No container has a limit of its own (KEP-2837)."""
    container = {"name": "c", "command": ["python3", "-c", "x = bytearray(200 << 20)"]}
    whole = {"requests": {"memory": "32Mi"}, "limits": {"memory": "64Mi"}}
    await node.create("bounded", {"containers": [container], "resources": whole, "restartPolicy": "Never"})
    pod = await node.wait("bounded", has_phase("Failed"))
    assert (only(pod).state.terminated.exit_code, only(pod).state.terminated.reason) == (137, "OOMKilled")


async def test_a_child_that_is_killed_for_memory_is_not_the_container(node: NodeUnderTest) -> None:
    """The container's first process lives on; its status shows no end."""
    hungry = "python3 -c 'x = bytearray(200 << 20)'"
    container = {
        "name": "c",
        "command": ["sh", "-c", f"{hungry}; echo code $?; exec sleep 1000"],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    await node.create("parent", {"containers": [container]})
    pod = await node.wait("parent", is_ready)
    # Since 1.28 kubelets let the kernel kill the whole group on version 2; version 1 cannot.
    assert "code 137" in await printed(node, pod, "code ")


async def test_scores_follow_the_class(node: NodeUnderTest) -> None:
    async def score(name: str, resources: dict[str, dict[str, str]]) -> int:
        script = "cat /proc/self/oom_score_adj"
        container = {"name": "c", "command": ["sh", "-c", script], "resources": resources}
        await node.create(name, {"containers": [container], "restartPolicy": "Never"})
        log = await printed(node, await node.wait(name, has_phase("Succeeded")), " F ")
        return int(log.split()[-1])

    may_lower = "CAP_SYS_RESOURCE" in oci.capabilities_in(Path("/proc/self/status").read_text())
    assert await score("whole", {"limits": {"cpu": "100m", "memory": "64Mi"}}) == (-997 if may_lower else 0)
    assert await score("none", {}) == 1000
    assert 3 <= await score("some", {"requests": {"memory": "64Mi"}}) < 1000
