"""What kubectl makes of the objects that controllers keep: rollouts, their history and their undoing, and drains."""

import asyncio
import shutil
from typing import Any

import pytest

from pilotage.api.apps_v1 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from pilotage.api.core_v1 import Pod
from pilotage.api.policy_v1 import PodDisruptionBudget

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

TIMEOUT_S = 60.0  # a slow machine's worth of several round trips


async def kubectl(world: Any, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "kubectl",
        f"--kubeconfig={world.kubeconfig}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, error = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        pytest.fail(f"kubectl {' '.join(arguments)} did not end")
    assert process.returncode == 0, error.decode()
    return out.decode()


def images(world: Any, app: str) -> set[str]:
    return {pod.spec.containers[0].image.rpartition(":")[2] for pod in world.pods(app=app)}


def causes(world: Any) -> set[str]:
    sets = world.informers[ReplicaSet].list()
    return {item.metadata.annotations.get("kubernetes.io/change-cause", "") for item in sets}


@pytest.mark.parametrize(
    ("kind", "wish"),
    [("Deployment", {"replicas": 2}), ("StatefulSet", {"replicas": 2, "serviceName": "web"}), ("DaemonSet", {})],
    ids=["deployment", "statefulset", "daemonset"],
)
async def test_rollouts_have_a_history_and_can_be_undone(
    kind: str, wish: Any, world: Any, agents: Any, workload: Any
) -> None:
    await world.follow(Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet)
    name = f"{kind.lower()}/web"
    await world.create(workload(kind, "web", **wish))
    await kubectl(world, "annotate", name, "kubernetes.io/change-cause=first")
    await kubectl(world, "rollout", "status", name)
    await kubectl(world, "set", "image", name, "main=localhost/app:v2")
    await kubectl(world, "annotate", "--overwrite", name, "kubernetes.io/change-cause=second")
    await kubectl(world, "rollout", "status", name)
    await world.until(lambda: images(world, "web") == {"v2"})
    if kind == "Deployment":  # a change of the cause alone reaches its set behind the rollout
        await world.until(lambda: causes(world) == {"first", "second"})
    history = await kubectl(world, "rollout", "history", name)
    numbers = [line.split()[0] for line in history.splitlines()[2:] if line.strip()]
    assert numbers == ["1", "2"]
    if kind == "Deployment":
        assert [line.split()[1] for line in history.splitlines()[2:] if line.strip()] == ["first", "second"]
    assert "localhost/app:v1" in await kubectl(world, "rollout", "history", name, "--revision=1")
    undone = await kubectl(world, "rollout", "undo", name)
    assert undone.strip().endswith("rolled back")
    await kubectl(world, "rollout", "status", name)
    await world.until(lambda: images(world, "web") == {"v1"})
    again = await kubectl(world, "rollout", "history", name)
    assert [line.split()[0] for line in again.splitlines()[2:] if line.strip()] == ["2", "3"]
    await kubectl(world, "rollout", "undo", name, "--to-revision=2")
    await kubectl(world, "rollout", "status", name)
    await world.until(lambda: images(world, "web") == {"v2"})
    if kind == "Deployment":
        assert len(world.informers[ReplicaSet].list()) == 2  # templates return to the sets they had


async def test_a_restart_replaces_every_pod(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, Deployment)
    await world.create(workload("Deployment", "web", replicas=2))
    await kubectl(world, "rollout", "status", "deployment/web")
    before = {pod.metadata.uid for pod in world.pods(app="web")}
    await kubectl(world, "rollout", "restart", "deployment/web")
    await kubectl(world, "rollout", "status", "deployment/web")
    await world.until(lambda: len(world.pods(app="web")) == 2)
    assert not before & {pod.metadata.uid for pod in world.pods(app="web")}


async def test_a_drain_waits_for_the_budget(world: Any, agents: Any, workload: Any) -> None:
    """Pods leave one by one, each only when the one before has its successor."""
    await world.follow(Pod, Deployment, PodDisruptionBudget)
    await world.make_node("n2")
    await world.create(workload("Deployment", "web", replicas=3))
    await kubectl(world, "rollout", "status", "deployment/web")
    await kubectl(world, "create", "poddisruptionbudget", "web", "--selector=app=web", "--max-unavailable=1")
    await world.until(
        lambda: (
            (budget := world.informers[PodDisruptionBudget].get("web", "default"))
            and budget.status.disruptions_allowed == 1
        )
    )
    fewest = 3

    def observe(old: Pod | None, new: Pod | None) -> None:
        nonlocal fewest
        fewest = min(fewest, sum(1 for pod in world.pods(app="web") if pod.status.is_ready))

    agents.node = "n2"  # where successors go
    world.informers[Pod].add_handler(observe)
    await kubectl(world, "drain", "n1", "--timeout=50s")
    await world.until(lambda: {pod.spec.node_name for pod in world.pods(app="web")} == {"n2"})
    assert fewest >= 2
