"""Pods find their node through the real API."""

import time
from collections import Counter
from typing import Any

from pilotage.api.core_v1 import Event, Node, PersistentVolumeClaim, Pod


async def test_pods_of_a_service_spread_over_nodes_and_zones(world: Any) -> None:
    for name, zone in (("n1", "a"), ("n2", "b"), ("n3", "a"), ("n4", "b")):
        await world.node(name, zone=zone)
    ports = [{"port": 80}]
    spec = {"selector": {"app": "web"}, "ports": ports}
    await world.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    for number in range(8):
        await world.pod(f"web-{number}", labels={"app": "web"})
    await world.until(lambda: len(world.where()) == 8)
    assert Counter(world.where().values()) == {"n1": 2, "n2": 2, "n3": 2, "n4": 2}


async def test_an_unschedulable_pod_says_why_and_is_bound_when_room_appears(world: Any) -> None:
    await world.node("n1", cpu="1")
    await world.node("n2", cpu="1")
    await world.pod("big", cpu="3")

    def condition() -> Any:
        pod = world.pods.get("big", "default")
        return pod and pod.status.condition("PodScheduled")

    found = await world.until(condition)
    assert (found.status, found.reason) == ("False", "Unschedulable")
    assert found.message.startswith("0/2 nodes are available: 2 Insufficient cpu.")
    await world.node("n3")
    await world.until(lambda: world.where() == {"big": "n3"})


async def test_a_pod_waits_for_another_to_go(world: Any) -> None:
    await world.node("n1", cpu="1")
    await world.pod("first", cpu="800m")
    await world.until(lambda: "first" in world.where())
    await world.pod("second", cpu="800m")
    await world.until(lambda: (pod := world.pods.get("second", "default")) and pod.status.condition("PodScheduled"))
    await world.client.delete(Pod, "first", namespace="default", grace_period_s=0)
    await world.until(lambda: world.where() == {"second": "n1"})


async def test_an_uncordoned_node_wakes_its_pods(world: Any) -> None:
    await world.node("n1", unschedulable=True)
    await world.pod("p")
    found = await world.until(lambda: (pod := world.pods.get("p", "default")) and pod.status.condition("PodScheduled"))
    assert "1 node(s) were unschedulable" in found.message
    await world.client.patch(Node, "n1", {"spec": {"unschedulable": None}})
    await world.until(lambda: world.where() == {"p": "n1"})


async def test_gated_pods_wait_for_their_gate(world: Any) -> None:
    await world.node("n1")
    await world.pod("gated", schedulingGates=[{"name": "example.com/wait"}])
    await world.pod("free")
    await world.until(lambda: world.where() == {"free": "n1"})
    condition = world.pods.get("gated", "default").status.condition("PodScheduled")
    assert (condition.status, condition.reason) == ("False", "SchedulingGated")
    await world.client.patch(Pod, "gated", {"spec": {"schedulingGates": None}}, namespace="default")
    await world.until(lambda: set(world.where()) == {"free", "gated"})


async def test_another_schedulers_pods_are_left_alone(world: Any) -> None:
    await world.node("n1")
    await world.pod("theirs", schedulerName="other")
    await world.pod("ours")
    await world.until(lambda: "ours" in world.where())
    assert "theirs" not in world.where()


async def test_a_hundred_pods_never_overbook(world: Any) -> None:
    for number in range(4):
        await world.node(f"n{number}", cpu="2500m")
    started = time.monotonic()
    for number in range(110):
        await world.pod(f"p{number}", cpu="100m")
    await world.until(lambda: len(world.where()) == 100)
    print(f"100 pods bound {time.monotonic() - started:.2f} s after the first was written")
    waiting = await world.until(
        lambda: (
            len(
                found := [
                    pod
                    for pod in world.pods.list()
                    if pod.status.condition("PodScheduled") is not None
                    and pod.status.condition("PodScheduled").status == "False"
                ]
            )
            == 10
            and found
        )
    )
    assert Counter(world.where().values()) == {f"n{number}": 25 for number in range(4)}
    assert "4 Insufficient cpu" in waiting[0].status.condition("PodScheduled").message


async def test_events_tell_of_both_outcomes(world: Any) -> None:
    await world.node("n1", cpu="1")
    await world.pod("fits")
    await world.pod("big", cpu="8")
    await world.until(lambda: "fits" in world.where())

    async def reasons() -> set[tuple[str, str]]:
        return {
            (event.involved_object.name, event.reason)
            for event in (await world.client.list(Event, namespace="default")).items
        }

    wanted = {("fits", "Scheduled"), ("big", "FailedScheduling")}
    deadline = time.monotonic() + 10
    while not wanted <= await reasons():
        assert time.monotonic() < deadline


async def test_a_pod_waits_for_its_claim_to_be_bound(world: Any) -> None:
    await world.node("n1")
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    await world.pod("p", volumes=[volume])

    def message() -> str:
        found = (pod := world.pods.get("p", "default")) and pod.status.condition("PodScheduled")
        return found.message if found else ""

    await world.until(lambda: message().startswith('0/1 nodes are available: persistentvolumeclaim "data" not found.'))
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    await world.create(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim}
    )
    await world.until(lambda: "unbound immediate" in message())
    body = {"spec": {"volumeName": "disk-1"}}
    await world.client.patch(PersistentVolumeClaim, "data", body, namespace="default")
    await world.until(lambda: "bound to non-existent pv(s)" in message())
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/disk"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
    }
    await world.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk-1"}, "spec": volume})
    await world.until(lambda: "had volume node affinity conflict" in message())
    await world.node("n2")
    await world.until(lambda: world.where() == {"p": "n2"})
