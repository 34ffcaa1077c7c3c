"""Containers that try to get more than their specification grants."""

import ctypes
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from pilotage.agent.agent import is_privileged
from pilotage.agent.errors import MountFailure
from pilotage.agent.mounts import KernelMounts
from pilotage.agent.sub_paths import SubPaths, open_beneath

from .conftest import NodeUnderTest
from .test_pods import has_phase, only, printed
from .test_security import run

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # renameat2(2)
as_root = pytest.mark.skipif(not is_privileged(), reason="in a user namespace there is one user and no device")


async def test_the_node_cannot_be_reached_through_proc_sys_or_mounts(node: NodeUnderTest) -> None:
    script = "; ".join(
        f"({attempt}) 2> /dev/null && echo reached {number} || echo refused {number}"
        for number, attempt in enumerate(
            (
                "echo 1 > /proc/sys/kernel/panic",
                "echo h > /proc/sysrq-trigger",
                "head -c 1 /proc/kcore > /proc/self/fd/1",
                "echo 1 > /sys/kernel/mm/ksm/run",
                "mount -t tmpfs none /mnt",
                "mount -o remount,bind,rw /sys",
                "chroot /proc/1/root mount -t tmpfs none /mnt",
                "unshare --mount true",
                "nsenter --target 1 --net --preserve-credentials ip link add dummy0 type dummy",
            )
        )
    )
    log = await run(node, script, {})
    assert "reached" not in log
    assert log.count("refused") == 9


@as_root
async def test_a_device_node_made_inside_opens_no_device(node: NodeUnderTest) -> None:
    """The capability to make nodes is granted by default; opening them is what the control group refuses."""
    script = "mknod /var/disk b 7 0 && (head -c 1 /var/disk || echo refused); mknod /var/mem c 1 1 && cat /var/mem"
    log = await run(node, script, {})
    assert "F refused" in log
    assert log.count("Operation not permitted") == 2


async def test_a_read_only_volume_stays_read_only(node: NodeUnderTest, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "deep").mkdir(parents=True)
    (shared / "file").write_text("old")
    KernelMounts().tmpfs(shared / "deep")
    script = (
        "echo new > /v/file || echo refused; mount -o remount,bind,rw /v || echo refused; "
        "touch /v/deep/x || echo refused; rm -r /v || echo refused"
    )
    mount = {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": "Enabled"}
    container: dict[str, Any] = {"name": "c", "command": ["sh", "-c", f"{script}; echo end"], "volumeMounts": [mount]}
    volume = {"name": "v", "hostPath": {"path": str(shared), "type": "Directory"}}
    await node.create("reader", {"containers": [container], "volumes": [volume], "restartPolicy": "Never"})
    log = await printed(node, await node.wait("reader", has_phase("Succeeded")), "F end")
    assert log.count("stdout F refused\n") == 4
    assert (shared / "file").read_text() == "old"
    KernelMounts().detach(shared / "deep")


@as_root
async def test_a_set_user_id_program_gives_nothing_to_who_may_gain_nothing(node: NodeUnderTest) -> None:
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    prepare = {"name": "prepare", "command": ["sh", "-c", "cp /usr/bin/id /v/id && chmod 4755 /v/id"], **mount}
    user = {"runAsUser": 1000, "allowPrivilegeEscalation": False}
    containers = [
        {"name": "c", "command": ["/v/id", "-u"], "securityContext": user, **mount},
        {"name": "d", "command": ["/v/id", "-u"], "securityContext": {"runAsUser": 1000}, **mount},
    ]
    spec = {"initContainers": [prepare], "containers": containers, "volumes": [{"name": "v", "emptyDir": {}}]}
    await node.create("climber", spec | {"restartPolicy": "Never"})
    pod = await node.wait("climber", has_phase("Succeeded"))
    assert "F 1000\n" in await printed(node, pod, " F ", container="c")
    assert "F 0\n" in await printed(node, pod, " F ", container="d")  # the program itself works


async def test_the_termination_message_cannot_be_made_a_link(node: NodeUnderTest, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    script = f"rm -f /dev/termination-log; ln -sf {secret} /dev/termination-log; echo mine > /dev/termination-log"
    await node.create(
        "liar", {"containers": [{"name": "c", "command": ["sh", "-c", script]}], "restartPolicy": "Never"}
    )
    pod = await node.wait("liar", lambda pod: pod.status.phase in ("Succeeded", "Failed"))
    assert only(pod).state.terminated.message == "mine\n"
    assert secret.read_text() == "hush"


async def test_a_container_cannot_lead_a_sub_path_of_another_one_astray(node: NodeUnderTest, tmp_path: Path) -> None:
    """The first container plants links in the volume that both share; absolute ones would mean the node's files."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("hush")
    plant = (
        f"ln -s {outside} /v/absolute; ln -s ../../../../../../../../../../etc /v/relative; mkdir /v/a; ln -s a /v/b"
    )
    shared = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    for name, path, fine in (("absolute", "absolute", False), ("relative", "relative", False), ("own", "b/c", True)):
        reader = {
            "name": "c",
            "command": ["sh", "-c", "echo x > /w/written; ls /w"],
            "volumeMounts": [{"name": "v", "mountPath": "/w", "subPath": path}],
        }
        spec = {
            "initContainers": [{"name": "plant", "command": ["sh", "-c", plant], **shared}],
            "containers": [reader],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "restartPolicy": "Never",
        }
        await node.create(name, spec)
        if fine:
            pod = await node.wait(name, has_phase("Succeeded"))
            volume = node.config.data_dir / "pods" / pod.metadata.uid / "volumes/v"
            assert not (volume / "a/c").exists() or (volume / "a/c/written").read_text() == "x\n"
        else:
            pod = await node.wait(
                name, lambda pod: bool(pod.status.container_statuses) and only(pod).state.waiting is not None
                and "leads out of its volume" in only(pod).state.waiting.message,
            )  # fmt: skip
    assert os.listdir(outside) == ["secret"]


def test_a_link_that_comes_between_the_look_and_the_opening_is_not_followed(tmp_path: Path) -> None:
    """A thread exchanges a directory and a link all the time, as a container would."""
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    (volume / "a").mkdir(parents=True)
    outside.mkdir()
    (volume / "link").symlink_to(outside)
    stop = threading.Event()

    def exchange() -> None:
        libc, names = ctypes.CDLL(None), (bytes(volume / "a"), bytes(volume / "link"))
        while not stop.is_set():
            libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)

    thread = threading.Thread(target=exchange)
    thread.start()
    opened = 0
    try:
        for _ in range(3000):
            try:
                fd = open_beneath(volume, "a")
            except (MountFailure, OSError):
                continue
            found = os.readlink(f"/proc/self/fd/{fd}")
            os.close(fd)
            assert Path(found).is_relative_to(volume), found
            opened += 1
    finally:
        stop.set()
        thread.join()
    assert opened
    assert os.listdir(outside) == []


def test_missing_directories_get_the_mode_of_the_volume(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2777)
    os.close(open_beneath(volume, "a/b"))
    assert stat.S_IMODE((volume / "a/b").stat().st_mode) == 0o2777
    with pytest.raises(MountFailure, match="leads out of its volume"):
        open_beneath(volume, "a/../../x")


def test_what_is_bound_is_given_back_and_never_deleted(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "dir").mkdir(parents=True)
    (volume / "dir/kept").write_text("1")
    (volume / "file").write_text("2")
    places = SubPaths(tmp_path / "places", KernelMounts())
    directory = places.bind("u1", "c", 0, volume, "dir")
    file = places.bind("u1", "c", 1, volume, "file")
    assert (directory / "kept").read_text() == "1"
    assert file.read_text() == "2"
    assert places.bind("u1", "c", 0, volume, "dir") == directory
    places.release("u1")
    assert not (tmp_path / "places/u1").exists()
    assert (volume / "dir/kept").read_text() == "1"
    assert (volume / "file").read_text() == "2"
    places.release("u1")
