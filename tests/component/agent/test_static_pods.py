"""Pods from a directory: they run with or without the API, which shows them by mirrors."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilotage.api.core_v1 import Pod
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import api_server

from .test_agent import Scene, container_id, eventually, is_ready, only

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers: [{name: c, image: localhost/host, command: [%s]}]
"""


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with api_server() as server, task_set() as tasks:
        scene = Scene(server.client, tasks, tmp_path)
        scene.config = replace(scene.config, static_pods_dir=tmp_path / "manifests")
        await scene.start()
        yield scene


def put(scene: Scene, command: str, name: str = "web.yaml") -> None:
    """As programs write files: beside, then renamed."""
    directory = scene.config.static_pods_dir
    assert directory is not None
    (directory / f".{name}").write_text(POD % command)
    (directory / f".{name}").rename(directory / name)


async def test_a_file_becomes_a_running_pod_that_the_api_shows(scene: Scene) -> None:
    put(scene, "serve")
    pod = await scene.wait_for("web-n1")
    (running,) = scene.running()
    assert container_id(pod) == running
    annotations = pod.metadata.annotations
    assert annotations["kubernetes.io/config.mirror"] == annotations["kubernetes.io/config.hash"] != pod.metadata.uid
    assert [owner.kind for owner in pod.metadata.owner_references] == ["Node"]
    scene.runtime.end(running, 1)
    pod = await scene.wait("web-n1", lambda pod: only(pod).restart_count == 1 and is_ready(pod))


async def test_a_deleted_mirror_comes_back_and_the_pod_is_not_touched(scene: Scene) -> None:
    put(scene, "serve")
    before = await scene.wait_for("web-n1")
    await scene.client.delete(Pod, "web-n1", namespace="default")
    after = await scene.wait(
        "web-n1", lambda pod: pod.metadata.uid != before.metadata.uid and is_ready(pod), absent_is_fine=True
    )
    assert container_id(after) == container_id(before)
    assert only(after).restart_count == 0
    assert len(scene.runtime.starts) == 1


async def test_a_changed_file_is_another_pod_that_waits_for_the_end_of_the_first(scene: Scene) -> None:
    put(scene, "serve")
    before = await scene.wait_for("web-n1")
    put(scene, "work")
    after = await scene.wait(
        "web-n1", lambda pod: pod.metadata.uid != before.metadata.uid and is_ready(pod), absent_is_fine=True
    )
    assert after.spec.containers[0].command == ("work",)
    (running,) = scene.running()
    assert container_id(after) == running != container_id(before)


async def test_a_removed_file_ends_the_pod_and_its_mirror_goes(scene: Scene) -> None:
    put(scene, "serve")
    await scene.wait_for("web-n1")
    assert scene.config.static_pods_dir is not None
    (scene.config.static_pods_dir / "web.yaml").unlink()
    await scene.gone("web-n1")
    assert not scene.running()

    async def cleared() -> bool:
        return not any((scene.config.data_dir / "pods").iterdir())

    await eventually(cleared)


async def test_a_restarted_agent_finds_its_static_pods_and_ends_those_without_a_file(scene: Scene) -> None:
    put(scene, "serve")
    put(scene, "work", "second.yaml")  # the same name: only one of them counts
    first = await scene.wait_for("web-n1")
    await scene.kill()
    await scene.start()
    assert scene.config.static_pods_dir is not None
    assert len(scene.runtime.starts) == 1
    await scene.kill()
    for path in scene.config.static_pods_dir.iterdir():
        path.unlink()
    await scene.start()
    await scene.gone("web-n1")

    async def ended() -> bool:
        return not scene.running()

    await eventually(ended)
    assert first.spec.containers[0].command == ("work",)
