"""Rollouts as a user sees them, with the test in the place of the agents."""

import asyncio
import time
from typing import Any

from pilotage.api.apps_v1 import Deployment, ReplicaSet
from pilotage.api.core_v1 import Pod


def complete(world: Any, name: str, replicas: int) -> bool:
    found = world.informers[Deployment].get(name, "default")
    status = found.status if found else None
    return status is not None and (
        status.observed_generation >= found.metadata.generation
        and (status.replicas, status.updated_replicas, status.available_replicas) == (replicas, replicas, replicas)
    )


async def test_a_deployment_of_three_has_its_pods_at_once(world: Any, workload: Any) -> None:
    await world.follow(Pod)
    started = time.monotonic()
    await world.create(workload("Deployment", "web", replicas=3))
    await world.until(lambda: len(world.pods(app="web")) == 3)
    taken = time.monotonic() - started
    print(f"three pods after {taken * 1000:.0f} ms")
    assert taken < 1.0  # a generous bound for a busy machine; the aim is 50 ms


async def test_scales_up_and_down(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, Deployment)
    await world.create(workload("Deployment", "web", replicas=3))
    await world.until(lambda: complete(world, "web", 3))
    for size in (5, 1):
        await world.client.patch(Deployment, "web", {"spec": {"replicas": size}}, namespace="default")
        await world.until(lambda: complete(world, "web", size) and len(world.pods(app="web")) == size)  # noqa: B023
    conditions = {item.type: item for item in world.informers[Deployment].get("web", "default").status.conditions}
    assert conditions["Available"].status == "True"
    assert conditions["Progressing"].reason == "NewReplicaSetAvailable"


async def test_a_rolling_update_keeps_within_its_bounds(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, Deployment, ReplicaSet)
    await world.create(workload("Deployment", "web", replicas=4, strategy=rolling(surge=1, unavailable=1)))
    await world.until(lambda: complete(world, "web", 4))
    seen: list[tuple[int, int]] = []

    def observe(old: Pod | None, new: Pod | None) -> None:
        pods = world.pods(app="web")
        seen.append((len(pods), sum(1 for pod in pods if pod.status.is_ready)))

    world.informers[Pod].add_handler(observe)
    body = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "localhost/app:v2"}]}}}}
    await world.client.patch(Deployment, "web", body, namespace="default")
    await world.until(lambda: complete(world, "web", 4) and images(world) == {"localhost/app:v2"})
    assert max(total for total, _ in seen) <= 5
    assert min(ready for _, ready in seen) >= 3
    sets = world.informers[ReplicaSet].list()
    assert sorted(item.metadata.annotations["deployment.kubernetes.io/revision"] for item in sets) == ["1", "2"]
    assert (
        world.informers[Deployment].get("web", "default").metadata.annotations["deployment.kubernetes.io/revision"]
        == "2"
    )


async def test_rollback_by_patch_reuses_the_old_replica_set(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, Deployment, ReplicaSet)
    await world.create(workload("Deployment", "web", replicas=2))
    await world.until(lambda: complete(world, "web", 2))
    first = world.informers[ReplicaSet].list()[0]
    for image in ("v2", "v1"):
        body = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": f"localhost/app:{image}"}]}}}}
        await world.client.patch(Deployment, "web", body, namespace="default")
        await world.until(lambda: complete(world, "web", 2) and images(world) == {f"localhost/app:{image}"})  # noqa: B023
    sets = world.informers[ReplicaSet].list()
    assert len(sets) == 2
    again = await world.until(
        lambda: (
            (found := world.informers[ReplicaSet].get(first.metadata.name, "default"))
            and found.metadata.annotations["deployment.kubernetes.io/revision"] == "3"
            and found
        )
    )
    assert again.metadata.annotations["deployment.kubernetes.io/revision-history"] == "1"


async def test_recreate_never_runs_two_versions(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, Deployment)
    await world.create(workload("Deployment", "web", replicas=2, strategy={"type": "Recreate"}))
    await world.until(lambda: complete(world, "web", 2))
    mixed: list[set[str]] = []

    def observe(old: Pod | None, new: Pod | None) -> None:
        found = {pod.spec.containers[0].image for pod in world.informers[Pod].list()}
        if len(found) > 1:
            mixed.append(found)

    world.informers[Pod].add_handler(observe)
    body = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "localhost/app:v2"}]}}}}
    await world.client.patch(Deployment, "web", body, namespace="default")
    await world.until(lambda: complete(world, "web", 2) and images(world) == {"localhost/app:v2"})
    assert mixed == []


async def test_a_paused_deployment_waits_and_then_goes_on(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, Deployment, ReplicaSet)
    await world.create(workload("Deployment", "web", replicas=2))
    await world.until(lambda: complete(world, "web", 2))
    body: dict[str, Any] = {
        "spec": {
            "paused": True,
            "replicas": 3,
            "template": {"spec": {"containers": [{"name": "main", "image": "localhost/app:v2"}]}},
        }
    }
    await world.client.patch(Deployment, "web", body, namespace="default")
    await world.until(lambda: len(world.pods(app="web")) == 3)  # scaling goes on, the template does not
    assert images(world) == {"localhost/app:v1"}
    assert len(world.informers[ReplicaSet].list()) == 1
    await world.client.patch(Deployment, "web", {"spec": {"paused": False}}, namespace="default")
    await world.until(lambda: complete(world, "web", 3) and images(world) == {"localhost/app:v2"})


async def test_a_stuck_rollout_says_so_after_its_deadline(world: Any, workload: Any) -> None:
    await world.follow(Deployment)  # no agents: pods never become ready
    await world.create(workload("Deployment", "web", replicas=1, progressDeadlineSeconds=1))

    def progressing() -> Any:
        found = world.informers[Deployment].get("web", "default")
        return found and next((item for item in found.status.conditions if item.type == "Progressing"), None)

    await world.until(lambda: (item := progressing()) and item.reason == "ProgressDeadlineExceeded")
    assert progressing().status == "False"


async def test_a_refused_pod_is_reported_on_the_deployment(world: Any, workload: Any) -> None:
    await world.follow(Deployment)
    await world.create(workload("Deployment", "web", replicas=1, pod={"serviceAccountName": "nobody"}))

    def failure() -> Any:
        found = world.informers[Deployment].get("web", "default")
        return found and next((item for item in found.status.conditions if item.type == "ReplicaFailure"), None)

    condition = await world.until(failure)
    assert (condition.status, condition.reason) == ("True", "FailedCreate")
    assert "nobody" in condition.message


async def test_history_is_bounded(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, Deployment, ReplicaSet)
    await world.create(workload("Deployment", "web", replicas=1, revisionHistoryLimit=1))
    for image in ("v2", "v3", "v4"):
        await world.until(lambda: complete(world, "web", 1))
        body = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": f"localhost/app:{image}"}]}}}}
        await world.client.patch(Deployment, "web", body, namespace="default")
        await world.until(lambda: complete(world, "web", 1) and images(world) == {f"localhost/app:{image}"})  # noqa: B023
    await world.until(lambda: len(world.informers[ReplicaSet].list()) == 2)


async def test_orphans_are_adopted_and_strangers_released(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, Deployment)
    orphan = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "lonely", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "localhost/app:v1"}]},
    }
    await world.create(orphan)
    await world.create(workload("ReplicaSet", "web", replicas=2))
    await world.until(lambda: len(world.pods(app="web")) == 2 and all(pod.metadata.controller for pod in world.pods()))
    assert "lonely" in [pod.metadata.name for pod in world.pods(app="web")]
    body = {"metadata": {"labels": {"app": "debug"}}}
    await world.client.patch(Pod, "lonely", body, namespace="default")
    await world.until(lambda: len(world.pods(app="web")) == 2)
    freed = await world.until(
        lambda: (pod := world.informers[Pod].get("lonely", "default")) and not (pod.metadata.owner_references) and pod
    )
    assert freed.metadata.controller is None


async def test_two_writers_at_once_create_no_pod_twice(world: Any, agents: Any, workload: Any) -> None:
    """Many quick changes of size: the count never overshoots what was last asked for by more than a step's worth."""
    await world.follow(Pod, Deployment)
    await world.create(workload("Deployment", "web", replicas=1))
    peak = 0

    def observe(old: Pod | None, new: Pod | None) -> None:
        nonlocal peak
        peak = max(peak, len(world.pods(app="web")))

    world.informers[Pod].add_handler(observe)
    for size in (4, 2, 6, 3, 6, 1, 6):
        await world.client.patch(Deployment, "web", {"spec": {"replicas": size}}, namespace="default")
        await asyncio.sleep(0)
    await world.until(lambda: complete(world, "web", 6) and len(world.pods(app="web")) == 6)
    assert peak <= 6


def rolling(*, surge: int, unavailable: int) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


def images(world: Any) -> set[str]:
    return {pod.spec.containers[0].image for pod in world.pods(app="web")}
