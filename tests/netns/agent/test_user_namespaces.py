"""Pods with users of their own (hostUsers: false): root inside is nobody outside, and misses nothing inside."""

import os
from pathlib import Path
from typing import Any

import pytest

from pilotage.agent.agent import is_privileged
from pilotage.api.core_v1 import ConfigMap, Pod
from pilotage.api.meta_v1 import ObjectMeta

from .conftest import NodeUnderTest
from .test_images import image_load, make_archive
from .test_pods import has_phase, is_ready, only, printed, told
from .test_restart import pid_of

IDS = 65_536
SLEEP = ["sleep", "1000"]
needs_root = pytest.mark.skipif(not is_privileged(), reason="in a user namespace there are no ids to give")


def ids_of(node: NodeUnderTest, pod: Pod) -> tuple[int, int]:
    """Where the pod's user 0 is on the node, and how many there are."""
    inside, outside, count = map(int, Path(f"/proc/{pid_of(node, pod)}/uid_map").read_text().split())
    assert inside == 0
    return outside, count


def own(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"hostUsers": False, "containers": list(containers), **spec}


@needs_root
async def test_root_inside_is_nobody_outside_and_each_pod_has_ids_of_its_own(node: NodeUnderTest) -> None:
    for name in ("one", "two"):
        await node.create(name, own({"name": "c", "command": SLEEP}))
    pods = [await node.wait(name, is_ready) for name in ("one", "two")]
    ranges = [ids_of(node, pod) for pod in pods]
    assert all(first >= IDS and first % IDS == 0 and count == IDS for first, count in ranges)
    assert ranges[0] != ranges[1]
    for pod, (first, _) in zip(pods, ranges, strict=True):
        assert os.stat(f"/proc/{pid_of(node, pod)}").st_uid == first
        assert (node.config.roots / only(pod).container_id.removeprefix("pilotage://")).is_dir()
        for kind in ("net", "ipc", "uts", "pid", "user"):
            ours, theirs = os.stat(f"/proc/self/ns/{kind}"), os.stat(f"/proc/{pid_of(node, pod)}/ns/{kind}")
            assert ours.st_ino != theirs.st_ino


WHAT_ROOT_DOES = """
set -e
test "$(id -u)" = 0
test "$(hostname)" = rooted
touch /new /etc/new /tmp/new /dev/shm/new
chown 1000:1000 /new
echo there >> /etc/hosts
test "$(cat /config/key)" = value
cat /config/key > /empty/copy
echo deep > /parts/made
test "$(stat -c %u /host/given)" = 7
echo more > /host/more
python3 -c 'import socket; s = socket.socket(); s.bind(("", 80))'
ls /sys/class/net/eth0
touch /sys/x 2>/dev/null && exit 1
mount -t tmpfs t /mnt 2>/dev/null && exit 1
echo said > /dev/termination-log
echo done
sleep 1000
"""


@needs_root
async def test_root_inside_can_do_inside_what_it_could_do_before(node: NodeUnderTest, tmp_path: Path) -> None:
    config = ConfigMap(metadata=ObjectMeta(name="settings", namespace="default"), data={"key": "value"})
    await node.client.create(config)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "given").touch()
    os.chown(shared / "given", 7, 7)
    mounts = [
        {"name": "config", "mountPath": "/config"},
        {"name": "empty", "mountPath": "/empty"},
        {"name": "empty", "mountPath": "/parts", "subPath": "a/b"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "host", "mountPath": "/host"},
    ]
    volumes = [
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "empty", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "host", "hostPath": {"path": str(shared)}},
    ]
    container = {"name": "c", "command": ["sh", "-c", WHAT_ROOT_DOES], "volumeMounts": mounts}
    await node.create("rooted", own(container, volumes=volumes, restartPolicy="Never"))
    pod = await node.wait("rooted", lambda pod: is_ready(pod) or has_phase("Failed")(pod))
    assert "done" in await printed(node, pod, "done")
    # On disk everything is as an ordinary pod leaves it.
    assert (os.stat(shared / "more").st_uid, (shared / "more").read_text()) == (0, "more\n")
    volume = node.config.data_dir / "pods" / pod.metadata.uid / "volumes" / "empty"
    found = {path.name: path.stat().st_uid for path in volume.rglob("*") if path.is_file()}
    assert found == {"copy": 0, "made": 0}


@needs_root
async def test_an_ordinary_user_and_an_executed_command_are_inside_too(node: NodeUnderTest) -> None:
    security = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000}
    mounts = [{"name": "empty", "mountPath": "/empty"}]
    script = "touch /empty/x && stat -c %u:%g /empty/x && id -u && sleep 1000"
    container = {
        "name": "c",
        "command": ["sh", "-c", script],
        "volumeMounts": mounts,
        "readinessProbe": {"exec": {"command": ["test", "-e", "/empty/x"]}, "periodSeconds": 1},
    }
    spec = own(container, volumes=[{"name": "empty", "emptyDir": {}}], securityContext=security)
    await node.create("plain", spec | {"shareProcessNamespace": True})
    pod = await node.wait("plain", is_ready)
    first, _ = ids_of(node, pod)
    assert os.stat(f"/proc/{pid_of(node, pod)}").st_uid == first + 1000
    assert [line.split()[-1] for line in (await printed(node, pod, "1000\n")).splitlines()] == ["1000:2000", "1000"]
    await node.create("far", own({"name": "c", "command": SLEEP}, securityContext={"runAsUser": IDS}))

    def refused(pod: Pod) -> bool:
        waiting = only(pod).state.waiting if pod.status.container_statuses else None
        return waiting is not None and waiting.reason == "CreateContainerConfigError"

    pod = await node.wait("far", refused)
    assert (
        only(pod).state.waiting.message
        == "user 65536 does not exist in a pod with hostUsers: false, which has 0 to 65535"
    )


@needs_root
async def test_an_image_belongs_to_the_users_of_its_pod(node: NodeUnderTest, tmp_path: Path) -> None:
    name = image_load(node.config.images, make_archive(tmp_path / "a.tar", ["local.test/greeter:1"]))
    # The image has nothing but a shell: what root may write, root must own.
    script = "set -e; echo x > /bin/new; echo more >> /greeting; read ids < /proc/self/uid_map; echo done $ids"
    container = {
        "name": "c",
        "image": name,
        "imagePullPolicy": "Never",
        "tty": True,
        "command": ["/bin/sh", "-c", script],
        "securityContext": {"runAsUser": 0, "privileged": True},
    }
    await node.create("greeter", own(container, restartPolicy="Never"))
    pod = await node.wait("greeter", has_phase("Succeeded"))
    assert f" {IDS}" in await printed(node, pod, "done 0 ")


@needs_root
async def test_ids_are_kept_over_a_restart_of_the_agent_and_of_a_container(node: NodeUnderTest) -> None:
    await node.create("one", own({"name": "c", "command": SLEEP}))
    before = await node.wait("one", is_ready)
    ids = ids_of(node, before)
    await node.stop_agent()
    os.kill(pid_of(node, before), 9)
    await node.start_agent()
    after = await node.wait("one", lambda pod: is_ready(pod) and only(pod).restart_count == 1)
    assert ids_of(node, after) == ids
    await node.create("two", own({"name": "c", "command": SLEEP}))
    other = ids_of(node, await node.wait("two", is_ready))
    assert other != ids


@needs_root
async def test_a_volume_that_cannot_be_shown_with_other_owners_is_named(node: NodeUnderTest) -> None:
    volumes = [{"name": "kernel", "hostPath": {"path": "/proc/sys"}}]
    container = {"name": "c", "command": SLEEP, "volumeMounts": [{"name": "kernel", "mountPath": "/kernel"}]}
    pod = await node.create("odd", own(container, volumes=volumes))
    await told(node, pod, "Failed", "volume /proc/sys cannot be shown to a pod with users of its own: ")


@pytest.mark.skipif(is_privileged(), reason="root has ids to give")
async def test_an_ordinary_user_cannot_give_ids_and_says_so(node: NodeUnderTest) -> None:
    pod = await node.create("one", own({"name": "c", "command": SLEEP}))
    await told(node, pod, "FailedCreatePodSandBox", "hostUsers: false needs a node that runs as root")
