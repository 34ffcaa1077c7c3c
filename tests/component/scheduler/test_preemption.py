"""Pods of high priority push others aside, through the real API; the test ends pods as agents would."""

import asyncio
from typing import Any

from pilotage.api.core_v1 import Event, Pod


async def classes(world: Any) -> None:
    for name, value in (("high", 1000), ("low", 10)):
        await world.create(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
            }
        )


async def end(world: Any, name: str) -> None:
    await world.client.delete(Pod, name, namespace="default", grace_period_s=0)


def condition(world: Any, name: str, type: str) -> Any:
    pod = world.pods.get(name, "default")
    return pod and pod.status.condition(type)


async def test_a_victim_leaves_with_its_grace_and_the_winner_takes_the_promised_node(world: Any) -> None:
    await classes(world)
    await world.node("n1", cpu="1")
    await world.pod("victim", cpu="800m", priorityClassName="low")
    await world.until(lambda: "victim" in world.where())
    await world.pod("winner", cpu="800m", priorityClassName="high")
    leaving = await world.until(
        lambda: (pod := world.pods.get("victim", "default")) and pod.metadata.is_deleting and pod
    )
    assert leaving.metadata.deletion_grace_period_seconds == 30
    reason = leaving.status.condition("DisruptionTarget")
    assert (reason.status, reason.reason) == ("True", "PreemptionByScheduler")
    assert reason.message == "default-scheduler: preempting to accommodate a higher priority pod"
    await world.until(lambda: world.pods.get("winner", "default").status.nominated_node_name == "n1")
    assert condition(world, "winner", "PodScheduled").message.startswith("0/1 nodes are available: 1 Insufficient cpu.")
    # The room belongs to the winner: one that is no more important does not slip in.
    await world.pod("thief", cpu="800m", priorityClassName="low")
    await world.until(lambda: condition(world, "thief", "PodScheduled"))
    await end(world, "victim")
    await world.until(lambda: world.where() == {"winner": "n1"})
    await world.until(lambda: world.pods.get("winner", "default").status.nominated_node_name == "")

    async def told() -> set[str]:
        return {event.reason for event in (await world.client.list(Event, namespace="default")).items}

    async with asyncio.timeout(10.0):
        while "Preempted" not in await told():  # events are written behind the scenes
            pass
    events = (await world.client.list(Event, namespace="default")).items
    winner = world.pods.get("winner", "default")
    message = next(event.message for event in events if event.reason == "Preempted")
    assert message == f"Preempted by pod {winner.metadata.uid} on node n1"


async def test_the_message_says_why_nobody_can_be_pushed(world: Any) -> None:
    await classes(world)
    await world.node("n1", cpu="1")
    await world.node("n2", cpu="1", unschedulable=True)
    await world.pod("first", cpu="800m", priorityClassName="high")
    await world.until(lambda: "first" in world.where())
    await world.pod("second", cpu="800m", priorityClassName="low")
    found = await world.until(lambda: condition(world, "second", "PodScheduled"))
    assert found.message == (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. "
        "no new claims to deallocate, preemption: 0/2 nodes are available: "
        "1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    )


async def test_a_policy_of_never_only_stands_first_in_the_queue(world: Any) -> None:
    await classes(world)
    await world.node("n1", cpu="1")
    await world.pod("first", cpu="800m", priorityClassName="low")
    await world.until(lambda: "first" in world.where())
    await world.pod("patient", cpu="800m", priorityClassName="high", preemptionPolicy="Never")
    found = await world.until(lambda: condition(world, "patient", "PodScheduled"))
    assert found.message.endswith("preemption: not eligible due to preemptionPolicy=Never.")
    assert "first" in world.where()
    await world.pod("behind", cpu="800m", priorityClassName="low")
    await world.until(lambda: condition(world, "behind", "PodScheduled"))
    await end(world, "first")
    await world.until(lambda: world.where() == {"patient": "n1"})


async def test_budgets_choose_the_victim(world: Any) -> None:
    await classes(world)
    selector = {"matchLabels": {"app": "kept"}}
    await world.create(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "kept"},
            "spec": {"minAvailable": 1, "selector": selector},
        }
    )
    await world.node("n1", cpu="1")
    await world.node("n2", cpu="1")
    await world.pod("a", cpu="800m", labels={"app": "kept"}, priorityClassName="low")
    await world.until(lambda: "a" in world.where())
    await world.pod("b", cpu="800m", labels={"app": "free"}, priorityClassName="low")
    await world.until(lambda: len(world.where()) == 2)
    await world.pod("new", cpu="800m", priorityClassName="high")
    await world.until(lambda: world.pods.get("b", "default").metadata.is_deleting)
    assert not world.pods.get("a", "default").metadata.is_deleting


async def test_several_winners_push_one_victim_each(world: Any) -> None:
    await classes(world)
    for name in ("n1", "n2", "n3"):
        await world.node(name, cpu="1")
    for number in range(3):
        await world.pod(f"low-{number}", cpu="800m", priorityClassName="low")
    await world.until(lambda: len(world.where()) == 3)
    for number in range(2):
        await world.pod(f"high-{number}", cpu="800m", priorityClassName="high")

    def leaving() -> list[str]:
        return [pod.metadata.name for pod in world.pods.list() if pod.metadata.is_deleting]

    await world.until(lambda: len(leaving()) == 2)
    for name in leaving():
        await end(world, name)
    await world.until(lambda: {"high-0", "high-1"} <= world.where().keys())
    assert len([name for name in world.where() if name.startswith("low")]) == 1
