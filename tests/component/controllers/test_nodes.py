"""Nodes that fall silent, taints, ranges, pods that are nobody's."""

import asyncio
from typing import Any

from pilotage.api import timestamp
from pilotage.api.coordination_v1 import Lease
from pilotage.api.core_v1 import Event, Node, Pod
from pilotage.client import PatchType
from pilotage.controllers import Config
from pilotage.kit.clock import SYSTEM_CLOCK


def taints(world: Any, name: str = "n1") -> set[tuple[str, str]]:
    node = world.informers[Node].get(name)
    return (
        {(taint.key.removeprefix("node.kubernetes.io/"), taint.effect) for taint in node.spec.taints} if node else set()
    )


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "localhost/app"}], "nodeName": "n1", **spec},
    }


def tolerating(seconds: int | None) -> dict[str, Any]:
    limit = {} if seconds is None else {"tolerationSeconds": seconds}
    keys = ("not-ready", "unreachable")
    return {
        "tolerations": [
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", **limit} for key in keys
        ]
    }


async def beat(world: Any, name: str) -> None:
    """What an agent does as long as it lives: renews its Lease, and says that the node is ready."""
    lease: dict[str, Any] = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
    lease["metadata"]["namespace"] = "kube-node-lease"
    await world.create({**lease, "spec": {"holderIdentity": name}})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    while True:  # once alone would be too old again on a machine that is slow to look
        renewed = {"spec": {"renewTime": timestamp.render_micro(SYSTEM_CLOCK.wall())}}
        await world.client.patch(Lease, name, renewed, namespace="kube-node-lease")
        body = {"status": {"conditions": [ready]}}
        await world.client.patch(Node, name, body, patch_type=PatchType.STRATEGIC, subresource="status")
        await asyncio.sleep(0.1)


async def test_a_silent_node_is_unknown_tainted_and_emptied(start_world: Any) -> None:
    async with start_world(Config(node_grace_s=1.0)) as world:
        await world.follow(Node, Pod)
        await world.make_node("n2", zone="zone-b")
        world.tasks.start(beat(world, "n2"))
        await world.make_node("n1")
        for name, seconds in (("brief", 1), ("patient", 3600), ("eternal", None)):
            await world.create(pod(name, **tolerating(seconds)))
            made = await world.until(lambda: world.informers[Pod].get(name, "default"))  # noqa: B023
            await world.set_pod(made)
        await world.until(lambda: taints(world) == {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")})
        node = world.informers[Node].get("n1")
        ready = next(item for item in node.status.conditions if item.type == "Ready")
        assert (ready.status, ready.reason) == ("Unknown", "NodeStatusUnknown")
        await world.until(lambda: not any(item.status.is_ready for item in world.informers[Pod].list()))
        going = await world.until(
            lambda: (found := world.informers[Pod].get("brief", "default")) and found.metadata.is_deleting and found
        )
        condition = going.status.condition("DisruptionTarget")
        assert condition is not None
        assert condition.reason == "DeletionByTaintManager"
        assert not world.informers[Pod].get("patient", "default").metadata.is_deleting
        assert not world.informers[Pod].get("eternal", "default").metadata.is_deleting


async def test_a_heartbeat_keeps_a_node_and_brings_it_back(start_world: Any) -> None:
    async with start_world(Config(node_grace_s=0.6)) as world:
        await world.follow(Node)
        await world.make_node("n1")
        await world.until(lambda: ("unreachable", "NoSchedule") in taints(world))
        world.tasks.start(beat(world, "n1"))
        await world.until(lambda: taints(world) == set())


async def test_nobody_is_driven_away_when_every_node_seems_lost(world: Any) -> None:
    await world.follow(Node)
    for name in ("n1", "n2"):
        await world.make_node(name, zone=f"zone-{name}")
    lost = {("not-ready", "NoSchedule"), ("not-ready", "NoExecute")}

    async def turn(name: str, status: str) -> None:
        body = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
        await world.client.patch(Node, name, body, patch_type=PatchType.STRATEGIC, subresource="status")

    await turn("n1", "False")
    await world.until(lambda: taints(world) == lost)
    await turn("n2", "False")
    await world.until(lambda: taints(world) == taints(world, "n2") == {("not-ready", "NoSchedule")})
    await turn("n2", "True")
    await world.until(lambda: taints(world, "n2") == set() and ("not-ready", "NoSchedule") in taints(world))


async def test_conditions_and_cordon_become_taints(world: Any) -> None:
    await world.follow(Node)
    await world.make_node("n2", zone="zone-b")
    await world.make_node("n1", ready=False)
    await world.until(lambda: taints(world) == {("not-ready", "NoSchedule"), ("not-ready", "NoExecute")})
    await world.client.patch(Node, "n1", {"spec": {"unschedulable": True}})
    await world.until(lambda: ("unschedulable", "NoSchedule") in taints(world))
    await world.client.patch(Node, "n1", {"spec": {"unschedulable": None}})
    await world.until(lambda: ("unschedulable", "NoSchedule") not in taints(world))


async def test_nodes_without_a_range_get_different_ones(start_world: Any) -> None:
    async with start_world(Config(cluster_cidrs=("10.244.0.0/16",))) as world:
        await world.follow(Node)
        for number in range(1, 6):
            await world.make_node(f"n{number}")
        ranges = await world.until(
            lambda: (
                len(found := {item.spec.pod_cidr for item in world.informers[Node].list() if item.spec.pod_cidr}) == 5
                and found
            )
        )
        assert ranges == {f"10.244.{number}.0/24" for number in range(1, 6)}


async def test_an_unbound_pod_that_is_held_by_grace_goes_at_once(world: Any) -> None:
    await world.follow(Pod)
    document = pod("unbound")
    del document["spec"]["nodeName"]
    await world.create(document)
    await world.client.delete(Pod, "unbound", namespace="default")
    await world.until(lambda: not world.informers[Pod].get("unbound", "default"))


async def test_events_tell_of_an_eviction(start_world: Any) -> None:
    async with start_world(Config()) as world:
        await world.follow(Pod, Event)
        await world.make_node("n1")
        await world.create(pod("p"))
        await world.client.patch(
            Node, "n1", {"spec": {"taints": [{"key": "example.com/drain", "effect": "NoExecute"}]}}
        )
        await world.until(
            lambda: (
                any(item.reason == "TaintManagerEviction" for item in world.informers[Event].list())
                and world.informers[Pod].get("p", "default").metadata.is_deleting
            )
        )


async def test_a_lease_goes_with_its_node(world: Any) -> None:
    await world.follow(Node, Lease)
    made = await world.make_node("n1")
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": made.metadata.uid}
    metadata = {"name": "n1", "namespace": "kube-node-lease", "ownerReferences": [owner]}
    await world.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}})
    await world.until(lambda: world.informers[Lease].get("n1", "kube-node-lease"))
    await world.client.delete(Node, "n1")
    await world.until(lambda: not world.informers[Lease].get("n1", "kube-node-lease"))


async def test_a_taint_without_a_time_counts_from_when_it_was_seen(world: Any) -> None:
    await world.follow(Node, Pod, Event)
    await world.make_node("n1")
    for name, seconds in (("brief", 1), ("patient", 3600)):
        toleration = {"key": "repair", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        await world.create(pod(name, tolerations=[toleration]))
    await world.until(lambda: len(world.informers[Pod].list()) == 2)
    await world.client.patch(Node, "n1", {"spec": {"taints": [{"key": "repair", "effect": "NoExecute"}]}})
    await world.until(
        lambda: (found := world.informers[Pod].get("brief", "default")) is None or found.metadata.is_deleting
    )
    assert not world.informers[Pod].get("patient", "default").metadata.is_deleting
    await world.client.patch(Node, "n1", {"spec": {"taints": None}})
    message = "Cancelling deletion of Pod default/patient"
    await world.until(lambda: message in {event.message for event in world.informers[Event].list()})
