"""Numbered pods: order of birth, death and update."""

from typing import Any

from pilotage.api.apps_v1 import ControllerRevision, StatefulSet
from pilotage.api.core_v1 import PersistentVolumeClaim, Pod


def names(world: Any) -> list[str]:
    return [pod.metadata.name for pod in world.pods(app="db")]


def started(world: Any, name: str) -> Any:
    pod = world.informers[Pod].get(name, "default")
    return pod if pod.status.phase == "Running" else None


def ready(world: Any, count: int) -> bool:
    found = world.informers[StatefulSet].get("db", "default")
    return bool(
        found
        and found.status.observed_generation >= found.metadata.generation
        and found.status.ready_replicas == found.status.replicas == count
        and found.status.updated_replicas == count
        and found.status.current_revision == found.status.update_revision
    )


async def test_pods_appear_one_by_one_each_after_its_predecessor_is_ready(world: Any, workload: Any) -> None:
    await world.follow(Pod, StatefulSet)
    await world.create(workload("StatefulSet", "db", replicas=3, serviceName="db"))
    for number in range(3):
        await world.until(lambda: len(names(world)) == number + 1)  # noqa: B023
        pod = world.informers[Pod].get(f"db-{number}", "default")
        assert (pod.spec.hostname, pod.spec.subdomain) == (f"db-{number}", "db")
        assert pod.metadata.labels["apps.kubernetes.io/pod-index"] == str(number)
        assert pod.metadata.labels["statefulset.kubernetes.io/pod-name"] == f"db-{number}"
        await world.set_pod(pod, ready=False)
        running = await world.until(lambda: started(world, f"db-{number}"))  # noqa: B023
        assert names(world) == [f"db-{index}" for index in range(number + 1)]
        await world.set_pod(running)
    await world.until(lambda: ready(world, 3))


async def test_parallel_pods_appear_together_and_go_together(world: Any, workload: Any) -> None:
    await world.follow(Pod, StatefulSet)
    await world.create(workload("StatefulSet", "db", replicas=3, serviceName="db", podManagementPolicy="Parallel"))
    await world.until(lambda: names(world) == ["db-0", "db-1", "db-2"])
    await world.client.patch(StatefulSet, "db", {"spec": {"replicas": 1}}, namespace="default")
    await world.until(lambda: names(world) == ["db-0"])


async def test_scales_down_from_the_top(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, StatefulSet)
    await world.create(workload("StatefulSet", "db", replicas=3, serviceName="db"))
    await world.until(lambda: ready(world, 3))
    deleted: list[str] = []

    def observe(old: Pod | None, new: Pod | None) -> None:
        if new is None and old is not None:
            deleted.append(old.metadata.name)

    world.informers[Pod].add_handler(observe)
    await world.client.patch(StatefulSet, "db", {"spec": {"replicas": 1}}, namespace="default")
    await world.until(lambda: ready(world, 1) and len(deleted) == 2)
    assert deleted == ["db-2", "db-1"]


async def test_updates_from_the_top_and_stops_at_the_partition(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, StatefulSet, ControllerRevision)
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    await world.create(workload("StatefulSet", "db", replicas=3, serviceName="db", updateStrategy=strategy))
    await world.until(lambda: ready(world, 3))
    born: list[str] = []

    def observe(old: Pod | None, new: Pod | None) -> None:
        if old is None and new is not None and new.spec.containers[0].image.endswith("v2"):
            born.append(new.metadata.name)

    world.informers[Pod].add_handler(observe)
    body: dict[str, Any] = {
        "spec": {"template": {"spec": {"containers": [{"name": "main", "image": "localhost/app:v2"}]}}}
    }
    await world.client.patch(StatefulSet, "db", body, namespace="default")
    await world.until(lambda: born == ["db-2", "db-1"] and len(world.pods(app="db")) == 3)
    status = (
        await world.until(
            lambda: (s := world.informers[StatefulSet].get("db", "default")).status.updated_replicas == 2 and s
        )
    ).status
    assert status.current_revision != status.update_revision
    assert world.informers[Pod].get("db-0", "default").spec.containers[0].image.endswith("v1")
    body = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}
    await world.client.patch(StatefulSet, "db", body, namespace="default")
    await world.until(lambda: ready(world, 3))
    assert born == ["db-2", "db-1", "db-0"]
    assert len(world.informers[ControllerRevision].list()) == 2


async def test_a_pod_comes_back_under_its_name(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, StatefulSet)
    await world.create(workload("StatefulSet", "db", replicas=2, serviceName="db"))
    await world.until(lambda: ready(world, 2))
    before = world.informers[Pod].get("db-0", "default")
    await world.client.delete(Pod, "db-0", namespace="default")
    after = await world.until(
        lambda: (
            (pod := world.informers[Pod].get("db-0", "default"))
            and pod.metadata.uid != before.metadata.uid
            and pod.status.is_ready
            and pod
        )
    )
    assert after.status.pod_ip != before.status.pod_ip


async def test_a_broken_update_can_be_repaired_by_another_one(world: Any, workload: Any) -> None:
    """A pod of a bad template that never becomes ready is replaced without waiting for it."""
    await world.follow(Pod, StatefulSet)
    await world.create(workload("StatefulSet", "db", replicas=1, serviceName="db", image="bad"))
    pod = (await world.until(lambda: world.pods(app="db")))[0]
    await world.set_pod(pod, ready=False)
    body = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "localhost/app:good"}]}}}}
    await world.client.patch(StatefulSet, "db", body, namespace="default")
    await world.until(
        lambda: (found := world.pods(app="db")) and found[0].spec.containers[0].image == "localhost/app:good"
    )


async def test_claims_come_first_outlive_pods_and_go_by_policy(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, StatefulSet, PersistentVolumeClaim)
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await world.create(
        workload(
            "StatefulSet",
            "db",
            replicas=2,
            serviceName="db",
            volumeClaimTemplates=[claim],
            persistentVolumeClaimRetentionPolicy={"whenScaled": "Delete", "whenDeleted": "Retain"},
        )
    )
    await world.until(lambda: ready(world, 2))

    def claims() -> dict[str, str]:
        return {item.metadata.name: item.metadata.uid for item in world.informers[PersistentVolumeClaim].list()}

    before = claims()
    assert before.keys() == {"data-db-0", "data-db-1"}
    pod = world.informers[Pod].get("db-0", "default")
    assert pod.spec.volumes[0].persistent_volume_claim.claim_name == "data-db-0"
    await world.end_pod(pod)
    await world.until(lambda: ready(world, 2) and world.pods(app="db")[0].metadata.uid != pod.metadata.uid)
    assert claims() == before
    await world.client.patch(StatefulSet, "db", {"spec": {"replicas": 1}}, namespace="default")
    await world.until(lambda: claims().keys() == {"data-db-0"})
    await world.client.delete(StatefulSet, "db", namespace="default")
    await world.until(lambda: not world.pods(app="db"))
    assert claims() == {"data-db-0": before["data-db-0"]}
