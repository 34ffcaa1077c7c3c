"""Cascading deletion in its three modes, and namespaces."""

from typing import Any

import pytest

from pilotage.api.apps_v1 import Deployment, ReplicaSet
from pilotage.api.core_v1 import ConfigMap, Namespace, Pod, ServiceAccount
from pilotage.api.status import ApiError, is_not_found


async def deployed(world: Any, workload: Any) -> None:
    await world.follow(Pod, Deployment, ReplicaSet)
    await world.create(workload("Deployment", "web", replicas=2))
    await world.until(lambda: len(world.pods(app="web")) == 2 and all(p.status.is_ready for p in world.pods(app="web")))


async def test_background_takes_everything_below(world: Any, agents: Any, workload: Any) -> None:
    await deployed(world, workload)
    await world.client.delete(Deployment, "web", namespace="default", propagation="Background")
    await world.until(lambda: not any(informer.list() for informer in world.informers.values()))


async def test_foreground_takes_pods_before_sets_before_the_deployment(world: Any, agents: Any, workload: Any) -> None:
    await deployed(world, workload)
    order: list[str] = []
    for kind, informer in world.informers.items():

        def gone(old: Any, new: Any, kind: Any = kind) -> None:
            if new is None:
                order.append(kind.kind)

        informer.add_handler(gone)
    await world.client.delete(Deployment, "web", namespace="default", propagation="Foreground")
    await world.until(lambda: not any(informer.list() for informer in world.informers.values()))
    assert order == ["Pod", "Pod", "ReplicaSet", "Deployment"]


async def test_orphan_leaves_the_replica_set_and_its_pods(world: Any, agents: Any, workload: Any) -> None:
    await deployed(world, workload)
    await world.client.delete(Deployment, "web", namespace="default", propagation="Orphan")
    await world.until(lambda: not world.informers[Deployment].list())
    left = await world.until(
        lambda: (found := world.informers[ReplicaSet].list()) and not found[0].metadata.owner_references and found
    )
    assert len(left) == 1
    assert len(world.pods(app="web")) == 2
    assert all(pod.metadata.controller.kind == "ReplicaSet" for pod in world.pods(app="web"))


async def test_a_dependent_of_several_owners_goes_with_the_last(world: Any) -> None:
    await world.follow(ConfigMap)
    owners = []
    for name in ("first", "second"):
        made = await world.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
        owners.append({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": made["metadata"]["uid"]})
    await world.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": owners}}
    )
    await world.client.delete(ConfigMap, "first", namespace="default")
    child = await world.until(
        lambda: (
            (found := world.informers[ConfigMap].get("child", "default"))
            and len(found.metadata.owner_references) == 1
            and found
        )
    )
    assert child.metadata.owner_references[0].name == "second"
    await world.client.delete(ConfigMap, "second", namespace="default")
    await world.until(lambda: not world.informers[ConfigMap].get("child", "default"))


async def test_an_object_born_without_its_owner_goes(world: Any) -> None:
    await world.follow(ConfigMap)
    ghost = {"apiVersion": "v1", "kind": "ConfigMap", "name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}
    metadata = {"name": "child", "ownerReferences": [ghost]}
    await world.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    await world.until(lambda: not world.informers[ConfigMap].get("child", "default"))


async def test_a_namespace_goes_with_all_it_holds(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Namespace, Pod, ConfigMap, Deployment, ServiceAccount)
    await world.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    await world.until(
        lambda: (
            world.informers[ServiceAccount].get("default", "shop")
            and world.informers[ConfigMap].get("kube-root-ca.crt", "shop")
        )
    )
    document = workload("Deployment", "web", replicas=2)
    document["metadata"]["namespace"] = "shop"
    await world.create(document)
    held = {"name": "held", "namespace": "shop", "finalizers": ["example.com/keep"]}
    await world.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": held})
    await world.until(lambda: len(world.pods(app="web")) == 2)
    await world.client.delete(Namespace, "shop")

    def remaining() -> Any:
        found = world.informers[Namespace].get("shop")
        return found and next((c for c in found.status.conditions if c.type == "NamespaceFinalizersRemaining"), None)

    await world.until(lambda: (condition := remaining()) and condition.status == "True")
    assert "example.com/keep in 1 resource instances" in remaining().message
    await world.client.patch(ConfigMap, "held", {"metadata": {"finalizers": None}}, namespace="shop")
    await world.until(lambda: not world.informers[Namespace].get("shop"))
    with pytest.raises(ApiError) as refused:
        await world.client.get(ConfigMap, "kube-root-ca.crt", namespace="shop")
    assert is_not_found(refused.value)
    assert not world.pods(app="web")
