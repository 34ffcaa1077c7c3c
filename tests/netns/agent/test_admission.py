"""Pods that a node does not take: bound by hand, rejected with the reason, and no trouble for the others."""

from typing import Any

import pytest

from pilotage.agent import app_armor
from pilotage.api.core_v1 import Node, Pod

from .conftest import NodeUnderTest
from .test_pods import events_of, eventually, has_phase, is_ready

SLEEP = {"name": "c", "command": ["sleep", "1000"]}


async def rejected(node: NodeUnderTest, name: str, container: dict[str, Any], **spec: Any) -> Pod:
    await node.create(name, {"containers": [SLEEP | container], **spec})
    pod = await node.wait(name, has_phase("Failed"))

    async def told() -> bool:
        return pod.status.reason in await events_of(node, pod)

    await eventually(told)
    assert not (node.config.run_dir / "sandboxes" / pod.metadata.uid).exists()
    return pod


async def test_what_does_not_fit_is_rejected_and_what_fits_runs_on(node: NodeUnderTest) -> None:
    cpus = int((await node.client.get(Node, "n1")).status.allocatable["cpu"])
    port = {"ports": [{"containerPort": 80, "hostPort": 18081}]}
    await node.create("first", {"containers": [SLEEP | port]})
    await node.wait("first", is_ready)
    many = {"resources": {"requests": {"cpu": str(cpus + 1)}}}
    pod = await rejected(node, "many", many)
    expected = (
        f"Node didn't have enough resource: cpu, requested: {(cpus + 1) * 1000}, used: 0, capacity: {cpus * 1000}"
    )
    assert (pod.status.reason, pod.status.message) == ("OutOfcpu", f"Pod was rejected: {expected}")
    huge = {"resources": {"requests": {"memory": "1Pi"}}}
    assert (await rejected(node, "huge", huge)).status.reason == "OutOfmemory"
    assert (await rejected(node, "clash", port)).status.reason == "NodePorts"
    assert (await rejected(node, "elsewhere", {}, nodeSelector={"zone": "x"})).status.reason == "NodeAffinity"
    sysctls = {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}
    assert (await rejected(node, "kernel", {}, securityContext=sysctls)).status.reason == "SysctlForbidden"
    assert is_ready(await node.pod("first"))


@pytest.mark.skipif(app_armor.is_enabled(), reason="this kernel enforces AppArmor profiles")
async def test_a_profile_that_the_kernel_cannot_enforce_is_not_ignored(node: NodeUnderTest) -> None:
    wanted = {"appArmorProfile": {"type": "RuntimeDefault"}}
    pod = await rejected(node, "confined", {"securityContext": wanted})
    expected = "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host"
    assert (pod.status.reason, pod.status.message) == ("AppArmor", expected)
    assert (await rejected(node, "altogether", {}, securityContext=wanted)).status.reason == "AppArmor"
    unconfined = {"appArmorProfile": {"type": "Unconfined"}}
    await node.create("free", {"containers": [SLEEP], "securityContext": unconfined})
    await node.wait("free", is_ready)


async def test_a_pod_that_was_taken_is_not_judged_again(node: NodeUnderTest) -> None:
    await node.create("first", {"containers": [SLEEP], "nodeSelector": {"kubernetes.io/hostname": "n1"}})
    await node.wait("first", is_ready)
    await node.client.patch(Node, "n1", {"metadata": {"labels": {"kubernetes.io/hostname": "other"}}})
    await node.stop_agent()
    await node.start_agent()
    assert is_ready(await node.pod("first"))
    await node.client.delete(Pod, "first", namespace="default")
