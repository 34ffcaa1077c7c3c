"""Images from archives: loaded, listed, run with what their configuration says, removed."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from pilotage.agent import ImageError, image_list, image_load, image_remove
from pilotage.agent.agent import is_privileged
from pilotage.api.core_v1 import Pod

from .conftest import NodeUnderTest
from .test_pods import has_phase, only, printed

# What a dynamically linked shell needs, found at the usual places of Debian.
FILES = ["/bin/sh", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"]


def add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def make_archive(path: Path, tags: list[str], text: str = "from the image") -> Path:
    """A docker archive of one layer: a shell, a user, a file, and a configuration."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in FILES:
            add(tar, name.lstrip("/"), Path(os.path.realpath(name)).read_bytes(), 0o755)
        add(tar, "etc/passwd", b"root:x:0:0::/:/bin/sh\nworker:x:1234:99::/:/bin/sh\n")
        add(tar, "greeting", text.encode())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin", "COLOR=blue"],
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ['read line < /greeting; echo "$line $COLOR $PWD"'],
            "WorkingDir": "/etc",
            "User": "worker",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    with tarfile.open(path, "w") as tar:
        add(tar, "layer.tar", layer.getvalue())
        add(tar, "config.json", json.dumps(config).encode())
        manifest = [{"Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"]}]
        add(tar, "manifest.json", json.dumps(manifest).encode())
    return path


def config_error(pod: Pod) -> bool:
    waiting = only(pod).state.waiting if pod.status.container_statuses else None
    return waiting is not None and waiting.reason == "CreateContainerConfigError"


@pytest.mark.skipif(not is_privileged(), reason="only the mapped user exists in a user namespace")
async def test_an_image_is_loaded_and_runs_as_its_configuration_says(node: NodeUnderTest, tmp_path: Path) -> None:
    name = image_load(node.config.images, make_archive(tmp_path / "a.tar", ["local.test/greeter:1"]))
    assert name == "local.test/greeter:1"
    assert [image.name for image in image_list(node.config.images)] == ["localhost/host:latest", name]
    await node.create("hello", {"containers": [{"name": "c", "image": name}], "restartPolicy": "Never"})
    pod = await node.wait("hello", has_phase("Succeeded"))
    await printed(node, pod, "from the image blue /etc")
    assert only(pod).image == name
    assert only(pod).image_id.startswith("local.test/greeter@sha256:")
    root = {"name": "c", "image": name, "securityContext": {"runAsNonRoot": True, "runAsUser": 0}}
    await node.create("refused", {"containers": [root]})

    pod = await node.wait("refused", config_error)
    assert "runAsUser breaks non-root policy" in only(pod).state.waiting.message


@pytest.mark.skipif(is_privileged(), reason="root of the machine may be any user")
async def test_a_user_that_is_not_mapped_is_named(node: NodeUnderTest) -> None:
    container = {"name": "c", "command": ["true"], "securityContext": {"runAsUser": 1234}}
    await node.create("foreign", {"containers": [container]})
    pod = await node.wait("foreign", config_error)
    assert "user 1234 does not exist in this user namespace" in only(pod).state.waiting.message


def test_a_tag_renames_and_removal_forgets(tmp_path: Path) -> None:
    images = tmp_path / "images"
    archive = make_archive(tmp_path / "a.tar", ["local.test/greeter:1"])
    assert image_load(images, archive, "other") == "docker.io/library/other:latest"
    assert image_load(images, archive) == "local.test/greeter:1"
    blobs = images / "layout" / "blobs" / "sha256"
    assert list(blobs.iterdir())
    image_remove(images, "other")
    assert [image.name for image in image_list(images)][1:] == ["local.test/greeter:1"]
    image_remove(images, "local.test/greeter:1")
    assert len(image_list(images)) == 1
    assert not list(blobs.iterdir())


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    images = tmp_path / "images"
    with pytest.raises(ImageError, match="no such file"):
        image_load(images, tmp_path / "none.tar")
    junk = tmp_path / "junk.tar"
    junk.write_bytes(b"x" * 1000)
    with pytest.raises(ImageError, match="not an image archive"):
        image_load(images, junk, "x")
    with pytest.raises(ImageError, match="give it one with --tag"):
        image_load(images, make_archive(tmp_path / "nameless.tar", []))
    with pytest.raises(ImageError, match="no image docker"):
        image_remove(images, "none")
