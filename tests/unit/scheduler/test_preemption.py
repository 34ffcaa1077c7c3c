"""Whom a pod may push aside, and where."""

import random
from typing import Any

import pytest

from pilotage.api.labels import parse_selector
from pilotage.scheduler.core.cycle import Placement, Unschedulable, schedule
from pilotage.scheduler.core.model import PodKey
from pilotage.scheduler.core.preemption import Budget, NoPreemption, Preemption, lower_nominations, preempt


def attempt(pod: Any, cluster: Any, *budgets: Budget) -> Preemption | NoPreemption:
    verdict = schedule(pod, cluster)
    assert isinstance(verdict, Unschedulable)
    return preempt(pod, cluster, verdict.resolvable_nodes, budgets)


def names(found: Preemption | NoPreemption) -> tuple[str, list[str]]:
    assert isinstance(found, Preemption), found
    return found.node_name, [victim.key.name for victim in found.victims]


def budget(app: str, allowed: int, *disrupted: str) -> Budget:
    return Budget(
        namespace="default", selector=parse_selector(f"app={app}"), allowed=allowed, disrupted=frozenset(disrupted)
    )


def test_takes_the_fewest_of_the_least_important(pod: Any, node: Any, cluster: Any) -> None:
    placed = [pod("low", cpu="2", priority=1), pod("middle", cpu="1", priority=5), pod("high", cpu="1", priority=9)]
    made = cluster(node("n1"), n1=placed)
    assert names(attempt(pod("new", cpu="2", priority=10), made)) == ("n1", ["low"])
    assert names(attempt(pod("new", cpu="3", priority=10), made)) == ("n1", ["low", "middle"])


REFUSALS = [
    pytest.param(
        {"priority": 5},
        [{"priority": 5}],
        "0/1 nodes are available: 1 No preemption victims found for incoming pod.",
        id="equals are left alone",
    ),
    pytest.param(
        {"priority": 9, "nodeSelector": {"disk": "ssd"}},
        [{"priority": 1}],
        "0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        id="the node is wrong whoever leaves it",
    ),
    pytest.param(
        {"priority": 9, "cpu": "4"},
        [{"priority": 1, "cpu": "1"}, {"priority": 20, "cpu": "3"}],
        "0/1 nodes are available: 1 Insufficient cpu.",
        id="removing all that may go is not enough",
    ),
    pytest.param(
        {"priority": 9, "preemptionPolicy": "Never"},
        [{"priority": 1}],
        "not eligible due to preemptionPolicy=Never.",
        id="the pod pushes nobody",
    ),
]


@pytest.mark.parametrize(("wish", "placed", "message"), REFUSALS)
def test_refuses(wish: Any, placed: Any, message: str, pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("n1"), n1=[pod(f"p{i}", **{"cpu": "4", **item}) for i, item in enumerate(placed)])
    found = attempt(pod("new", **{"cpu": "1", **wish}), made)
    assert isinstance(found, NoPreemption)
    assert found.message == message


PREFERENCES = [
    pytest.param([{"priority": 3}], [{"priority": 2}], "n2", id="the lower top priority"),
    pytest.param([{"priority": 2, "cpu": "2"}, {"priority": 2, "cpu": "2"}], [{"priority": 2}], "n2", id="fewer pods"),
    pytest.param(
        [{"priority": 2, "started": "2026-01-01T00:00:00Z"}],
        [{"priority": 2, "started": "2026-01-02T00:00:00Z"}],
        "n2",
        id="the one that ran for less long",
    ),
    pytest.param([{"priority": 2}], [{"priority": 2}], "n1", id="the name when all else is equal"),
    pytest.param(
        [{"priority": 2, "labels": {"app": "db"}}], [{"priority": 8}], "n2", id="no broken budget at any priority"
    ),
]


@pytest.mark.parametrize(("first", "second", "winner"), PREFERENCES)
def test_prefers(first: Any, second: Any, winner: str, pod: Any, node: Any, cluster: Any) -> None:
    def made(prefix: str, items: Any) -> list[Any]:
        return [pod(f"{prefix}{i}", **{"cpu": "4", **item}) for i, item in enumerate(items)]

    state = cluster(node("n1"), node("n2"), n1=made("a", first), n2=made("b", second))
    assert names(attempt(pod("new", cpu="4", priority=10), state, budget("db", 0)))[0] == winner


def test_spares_pods_whose_budget_is_spent(pod: Any, node: Any, cluster: Any) -> None:
    placed = [
        pod("kept", cpu="2", priority=1, labels={"app": "db"}),
        pod("free", cpu="2", priority=5, labels={"app": "web"}),
    ]
    made = cluster(node("n1"), n1=placed)
    found = attempt(pod("new", cpu="2", priority=10), made, budget("db", 0))
    assert names(found) == ("n1", ["free"])
    both = attempt(pod("new", cpu="4", priority=10), made, budget("db", 0))
    assert isinstance(both, Preemption) and both.violations == 1  # best effort: priority wins over budgets
    granted = attempt(pod("new", cpu="4", priority=10), made, budget("db", 0, "kept"))
    assert isinstance(granted, Preemption) and granted.violations == 0


def test_removes_what_repels(pod: Any, node: Any, cluster: Any) -> None:
    """Anti-affinity is resolved by removing the pod it speaks of, and nothing else."""
    term = {"labelSelector": {"matchLabels": {"app": "noisy"}}, "topologyKey": "kubernetes.io/hostname"}
    wish = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    placed = [pod("noisy", labels={"app": "noisy"}, priority=5), pod("quiet", priority=1)]
    made = cluster(node("n1"), n1=placed)
    assert names(attempt(pod("new", priority=10, affinity=wish), made)) == ("n1", ["noisy"])


def test_waits_for_those_who_are_leaving(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("n1"), n1=[pod("old", cpu="4", priority=1, deleting=True)])
    wish = pod("new", cpu="4", priority=10)
    made.nominate(wish, "n1")
    found = attempt(wish, made)
    assert isinstance(found, NoPreemption)
    assert found.keeps_nomination
    assert found.message == "not eligible due to a terminating pod on the nominated node."
    made.displace(PodKey("default", "old"))
    assert schedule(wish, made) == Placement(node_name="n1", feasible=1)


def test_a_promised_node_is_taken_for_the_less_important_only(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("n1"))
    promised = pod("promised", cpu="4", priority=5)
    made.nominate(promised, "n1")
    refused = schedule(pod("late", cpu="1", priority=5), made)
    assert isinstance(refused, Unschedulable)
    assert refused.message == "0/1 nodes are available: 1 Insufficient cpu."
    assert isinstance(schedule(pod("urgent", cpu="4", priority=6), made), Placement)
    assert [info.key.name for info in lower_nominations(PodKey("default", "urgent"), 6, "n1", made)] == ["promised"]
    assert made.withdraw(promised.key) and not made.withdraw(promised.key)
    assert isinstance(schedule(pod("late", cpu="1", priority=5), made), Placement)


def test_the_snapshot_is_as_before(pod: Any, node: Any, cluster: Any) -> None:
    """Whatever is tried, nothing remains of it; and what is chosen makes the pod fit."""
    for seed in range(60):
        dice = random.Random(seed)
        placed = {
            f"n{n}": [
                pod(f"p{n}-{i}", cpu=str(dice.randint(1, 2)), priority=dice.randint(0, 5), labels={"app": "x"})
                for i in range(dice.randint(0, 4))
            ]
            for n in range(3)
        }
        made = cluster(*(node(name) for name in placed), **placed)
        before = {name: (set(info.pods), dict(info.requested)) for name, info in made.nodes.items()}
        wish = pod("new", cpu=str(dice.randint(2, 4)), priority=dice.randint(0, 6))
        verdict = schedule(wish, made)
        if isinstance(verdict, Placement):
            continue
        found = preempt(wish, made, verdict.resolvable_nodes, [budget("x", dice.randint(0, 2))])
        after = {name: (set(info.pods), dict(info.requested)) for name, info in made.nodes.items()}
        assert before == after, seed
        if isinstance(found, Preemption):
            assert all(victim.priority < wish.priority for victim in found.victims), seed
            for victim in found.victims:
                made.displace(victim.key)
            assert isinstance(schedule(wish, made), Placement), seed
            made.place(found.victims[-1], found.node_name)
            assert not isinstance(again := schedule(wish, made), Placement) or again.node_name != found.node_name, seed
