"""What containers may do to the kernel and to files, tried out from inside."""

import json
from pathlib import Path
from typing import Any

import pytest

from pilotage.agent import devices
from pilotage.agent.agent import is_privileged
from pilotage.api.core_v1 import Pod

from .conftest import NodeUnderTest
from .test_pods import only, printed

REFUSED = "stdout F refused\n"


def finished(pod: Pod) -> bool:
    return pod.status.phase in ("Succeeded", "Failed")


async def run(
    node: NodeUnderTest, script: str, security: dict[str, Any], pod_security: dict[str, Any] | None = None, **spec: Any
) -> str:
    """What a shell in a container printed."""
    container = {"name": "c", "command": ["sh", "-c", f"{script}; echo end"], "securityContext": security}
    body = {"containers": [container], "restartPolicy": "Never", "securityContext": pod_security or {}} | spec
    for volume in spec.get("volumes", ()):
        container.setdefault("volumeMounts", []).append({"name": volume["name"], "mountPath": f"/{volume['name']}"})  # type: ignore[attr-defined]
    await node.create("tried", body)
    pod = await node.wait("tried", finished)
    return await printed(node, pod, "stdout F end\n")


async def test_the_default_profile_filters_and_keeps_programs_running(node: NodeUnderTest) -> None:
    script = (
        "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; unshare --user true || echo refused; "
        "python3 -c 'import threading; t = threading.Thread(target=print, args=(\"thread\",)); t.start(); t.join()'"
    )
    log = await run(node, script, {"seccompProfile": {"type": "RuntimeDefault"}})
    assert " F Seccomp:\t2\n" in log
    assert REFUSED in log
    assert " F thread\n" in log


async def test_without_a_profile_nothing_is_filtered(node: NodeUnderTest) -> None:
    log = await run(node, "grep ^Seccomp: /proc/self/status", {})
    assert " F Seccomp:\t0\n" in log


async def test_a_profile_of_the_node_is_read_and_a_missing_one_named(node: NodeUnderTest) -> None:
    profiles = node.config.data_dir / "seccomp"
    profiles.mkdir()
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    (profiles / "no-mkdir.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    profile = {"type": "Localhost", "localhostProfile": "no-mkdir.json"}
    assert REFUSED in await run(node, "mkdir /var/x || echo refused", {"seccompProfile": profile})
    absent = {"type": "Localhost", "localhostProfile": "absent.json"}
    container = {"name": "c", "command": ["true"], "securityContext": {"seccompProfile": absent}}
    await node.create("absent", {"containers": [container]})

    def named(pod: Pod) -> bool:
        waiting = only(pod).state.waiting if pod.status.container_statuses else None
        return waiting is not None and waiting.reason == "CreateContainerError" and "absent.json" in waiting.message

    await node.wait("absent", named)


async def test_capabilities_and_no_new_privileges(node: NodeUnderTest) -> None:
    security = {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "allowPrivilegeEscalation": False}
    log = await run(
        node, "grep -E '^(CapBnd|CapEff|NoNewPrivs):' /proc/self/status; chown 1 /etc || echo refused", security
    )
    assert " F CapBnd:\t0000000000000400\n" in log
    assert " F CapEff:\t0000000000000400\n" in log
    assert " F NoNewPrivs:\t1\n" in log
    assert REFUSED in log


@pytest.mark.skipif(not is_privileged(), reason="in a user namespace there is one user and no device")
async def test_a_privileged_container_sees_the_nodes_devices(node: NodeUnderTest) -> None:
    script = "mount -t tmpfs none /mnt && echo mounted; grep ^CapBnd /proc/self/status; ls /dev"
    log = await run(node, script, {"privileged": True})
    assert " F mounted\n" in log
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert f" F {own}\n" in log
    for device in devices.of_the_node():
        assert f" F {device['path'].split('/')[2]}\n" in log


@pytest.mark.skipif(not is_privileged(), reason="in a user namespace there is only one user")
async def test_volumes_belong_to_the_group_of_the_pod(node: NodeUnderTest) -> None:
    script = "id -u; id -G; touch /disk/x /memory/x && stat -c '%g %a' /disk /memory /disk/x"
    pod_security = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "supplementalGroups": [3000]}
    volumes = [{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]
    log = await run(node, script, {}, pod_security, volumes=volumes)
    assert " F 1000 2000 3000\n" in log
    assert log.count(" F 2000 2777\n") == 2
    assert " F 2000 644\n" in log


async def test_root_is_refused_with_the_reason(node: NodeUnderTest) -> None:
    spec = {"containers": [{"name": "c", "command": ["true"]}], "securityContext": {"runAsNonRoot": True}}
    await node.create("rootless", spec)

    def refused(pod: Pod) -> bool:
        waiting = only(pod).state.waiting if pod.status.container_statuses else None
        return waiting is not None and waiting.reason == "CreateContainerConfigError"

    pod = await node.wait("rootless", refused)
    assert only(pod).state.waiting.message.startswith("container has runAsNonRoot and image will run as root (pod: ")


async def test_a_read_only_root_cannot_be_written(node: NodeUnderTest) -> None:
    log = await run(
        node, "touch /etc/x || echo refused; touch /dev/shm/x && echo fine", {"readOnlyRootFilesystem": True}
    )
    assert REFUSED in log
    assert " F fine\n" in log
