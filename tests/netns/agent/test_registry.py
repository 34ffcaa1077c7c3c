"""Images from a registry that runs on the loopback of the test's own namespace, open and behind a password."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pilotage.agent.agent import is_privileged
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Pod, Secret
from pilotage.testing.etcd import free_port

from .conftest import NodeUnderTest, eventually
from .test_images import make_archive
from .test_pods import has_phase, only, printed, told

USER, PASSWORD = "puller", "open sesame"
# bcrypt of PASSWORD with a fixed salt.
HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"

pytestmark = pytest.mark.skipif(not is_privileged(), reason="only the mapped user exists in a user namespace")


@contextmanager
def registry(directory: Path, *, closed: bool = False) -> Iterator[str]:
    """Its address; it holds no image yet."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.fail("docker-registry is not installed: run tools/system-packages")
    directory.mkdir()
    address = f"127.0.0.1:{free_port()}"
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": address},
    }
    if closed:
        (directory / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(directory / "config.yml")], stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
        )
    try:
        yield address
    finally:
        process.kill()
        process.wait()


async def push(address: str, archive: Path, name: str, credentials: str = "") -> str:
    """Copy an archive in, once the registry answers; the digest it has there."""
    digest_file = archive.with_suffix(".digest")
    options = [f"--dest-creds={credentials}"] if credentials else []

    async def copied() -> bool:
        done = subprocess.run(
            [
                "skopeo", "--insecure-policy", "copy", "--quiet", "--format=oci", "--dest-tls-verify=false", *options,
                f"--digestfile={digest_file}", f"docker-archive:{archive}", f"docker://{address}/{name}",
            ],
            capture_output=True,
            timeout=20,
            check=False,
        )  # fmt: skip
        return done.returncode == 0

    await eventually(copied)
    return digest_file.read_text()


async def run_image(node: NodeUnderTest, name: str, image: str, **spec: object) -> Pod:
    container = {"name": "c", "image": image, "imagePullPolicy": spec.pop("policy", "IfNotPresent")}
    await node.create(name, {"containers": [container], "restartPolicy": "Never", **spec})
    return await node.wait(name, lambda pod: bool(pod.status.container_statuses))


async def test_images_are_pulled_by_tag_and_by_digest(node: NodeUnderTest, tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as address:
        digest = await push(address, make_archive(tmp_path / "one.tar", [], "first"), "app:1")
        await run_image(node, "by-tag", f"{address}/app:1")
        pod = await node.wait("by-tag", has_phase("Succeeded"))
        assert "first" in await printed(node, pod, "first")
        assert only(pod).image_id == f"{address}/app@{digest}"
        await told(node, pod, "Pulled", f'Successfully pulled image "{address}/app:1" in ')
        # The tag moves on; who has it, keeps it, unless he always pulls; a digest means what it meant.
        await push(address, make_archive(tmp_path / "two.tar", [], "second"), "app:1")
        for name, image, policy, text in (
            ("kept", f"{address}/app:1", "IfNotPresent", "first"),
            ("fresh", f"{address}/app:1", "Always", "second"),
            ("by-digest", f"{address}/app@{digest}", "Always", "first"),
        ):
            await run_image(node, name, image, policy=policy)
            pod = await node.wait(name, has_phase("Succeeded"))
            assert text in await printed(node, pod, " blue ")


async def test_a_closed_registry_opens_for_the_pods_secret_only(node: NodeUnderTest, tmp_path: Path) -> None:
    with registry(tmp_path / "registry", closed=True) as address:
        image = f"{address}/private/app:1"
        await push(address, make_archive(tmp_path / "a.tar", [], "private"), "private/app:1", f"{USER}:{PASSWORD}")
        await run_image(node, "stranger", image)

        def held(pod: Pod) -> bool:
            waiting = only(pod).state.waiting
            return waiting is not None and waiting.reason == "ImagePullBackOff"

        pod = await node.wait("stranger", held)
        message = only(pod).state.waiting.message
        assert message.startswith(f'Back-off pulling image "{image}": failed to pull and unpack image "{image}": ')
        assert "authentication required" in message
        assert pod.status.phase == "Pending"
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        config = json.dumps({"auths": {address: {"auth": pair}}})
        document = {
            "metadata": {"name": "pull", "namespace": "default"},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(config.encode()).decode()},
        }
        await node.client.create(convert(Secret, document))
        await run_image(node, "friend", image, imagePullSecrets=[{"name": "absent"}, {"name": "pull"}])
        pod = await node.wait("friend", has_phase("Succeeded"))
        assert "private" in await printed(node, pod, "private")
        await told(node, pod, "FailedToRetrieveImagePullSecret", "Unable to retrieve some image pull secrets (absent)")

        async def forgotten() -> bool:
            return not list(node.config.images.glob("auth-*"))  # the stranger's is tried again now and then

        await eventually(forgotten)


async def test_an_image_that_no_registry_has_is_named(node: NodeUnderTest, tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as address:
        await push(address, make_archive(tmp_path / "a.tar", []), "app:1")
        await run_image(node, "absent", f"{address}/app:2")

        def failed(pod: Pod) -> bool:
            waiting = only(pod).state.waiting
            return waiting is not None and waiting.reason in ("ErrImagePull", "ImagePullBackOff")

        pod = await node.wait("absent", failed)
        assert "manifest unknown" in only(pod).state.waiting.message
