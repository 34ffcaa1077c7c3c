"""Budgets, evictions and ReplicationControllers through the real API."""

import asyncio
from typing import Any

from pilotage.api.codec import encode
from pilotage.api.core_v1 import Pod, ReplicationController
from pilotage.api.policy_v1 import PodDisruptionBudget
from pilotage.api.status import ApiError
from pilotage.client.client import path_of


def budget(world: Any) -> Any:
    found = world.informers[PodDisruptionBudget].get("web", "default")
    return found.status if found and found.status.observed_generation >= found.metadata.generation else None


async def evict(world: Any, pod: Pod) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.metadata.name}}
    await world.client.request("POST", path_of(Pod, "default", pod.metadata.name, "eviction"), body=encode(body))


def make_budget(**spec: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app": "web"}}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"selector": selector, **spec},
    }


async def test_evictions_spend_the_budget_and_recovery_refills_it(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, PodDisruptionBudget)
    await world.create(workload("Deployment", "web", replicas=3))
    await world.create(make_budget(maxUnavailable=1))
    await world.until(lambda: (status := budget(world)) and status.disruptions_allowed == 1)
    assert (budget(world).current_healthy, budget(world).desired_healthy, budget(world).expected_pods) == (3, 2, 3)
    victims = world.pods(app="web")
    outcomes = await asyncio.gather(*(evict(world, pod) for pod in victims), return_exceptions=True)
    refused = [item for item in outcomes if isinstance(item, ApiError)]
    assert 1 <= len(refused) <= 2  # the agents are quick: a pod may be back before the last was asked for
    assert {item.reason for item in refused} == {"TooManyRequests"}
    await world.until(
        lambda: (
            budget(world).disruptions_allowed == 1
            and not budget(world).disrupted_pods
            and len(world.pods(app="web")) == 3
        )
    )


async def test_never_more_are_disturbed_than_allowed(world: Any, workload: Any) -> None:
    """Without agents nothing recovers: of ten evictions at once exactly two are granted."""
    await world.make_node("n1")
    await world.follow(Pod, PodDisruptionBudget)
    await world.create(workload("ReplicaSet", "web", replicas=5))
    for pod in await world.until(lambda: len(found := world.pods(app="web")) == 5 and found):
        await world.bind(pod, "n1")
        await world.set_pod(pod)
    await world.create(make_budget(minAvailable="60%"))
    await world.until(lambda: (status := budget(world)) and status.disruptions_allowed == 2)
    outcomes = await asyncio.gather(
        *(evict(world, pod) for pod in [*world.pods(app="web")] * 2), return_exceptions=True
    )
    assert outcomes.count(None) >= 2
    # Every eviction is answered: read what came of them, not what has been heard of it so far.
    gone = [pod for pod in (await world.client.list(Pod)).items if pod.metadata.is_deleting]
    assert len(gone) == 2
    reasons = {condition.reason for pod in gone if (condition := pod.status.condition("DisruptionTarget"))}
    assert reasons == {"EvictionByEvictionAPI"}


async def test_a_pod_nobody_sizes_freezes_the_budget(world: Any, workload: Any) -> None:
    await world.follow(Pod, PodDisruptionBudget)
    await world.create(workload("Job", "web", pod={"restartPolicy": "Never"}))
    await world.until(lambda: world.pods(app="web"))
    await world.create(make_budget(maxUnavailable=1))
    status = await world.until(lambda: (found := budget(world)) and found.conditions and found)
    assert (status.disruptions_allowed, status.conditions[0].reason) == (0, "SyncFailed")


async def test_a_replication_controller_keeps_its_pods(world: Any, agents: Any) -> None:
    await world.follow(Pod, ReplicationController)
    container = {"name": "main", "image": "localhost/app:v1"}
    template = {"metadata": {"labels": {"app": "old"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"app": "old"}, "template": template}
    await world.create({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "old"}, "spec": spec})

    def counts() -> Any:
        found = world.informers[ReplicationController].get("old", "default")
        return found and (found.status.replicas, found.status.ready_replicas, found.status.available_replicas)

    await world.until(lambda: counts() == (2, 2, 2))
    owner = world.pods(app="old")[0].metadata.controller
    assert (owner.api_version, owner.kind, owner.name) == ("v1", "ReplicationController", "old")
    await world.end_pod(world.pods(app="old")[0])
    await world.until(lambda: counts() == (2, 2, 2) and len(world.pods(app="old")) == 2)
    await world.client.patch(ReplicationController, "old", {"spec": {"replicas": 0}}, namespace="default")
    await world.until(lambda: counts() == (0, 0, 0) and not world.informers[Pod].list())
