"""Which pods go first, and what the status says."""

from typing import Any

import pytest

from pilotage.api.apps_v1 import ReplicaSet
from pilotage.api.codec import convert
from pilotage.controllers.replicaset.core import plan, rank_for_deletion


def replicaset(replicas: int, **spec: Any) -> ReplicaSet:
    template = {"metadata": {"labels": {"app": "web"}}}
    metadata = {"name": "web", "namespace": "default", "uid": "uid-web", "generation": 3}
    return convert(ReplicaSet, {"metadata": metadata, "spec": {"replicas": replicas, "template": template, **spec}})


ORDER = [
    pytest.param({"node": ""}, {"node": "n1", "ready_for_s": 10}, id="unbound before bound"),
    pytest.param({"node": "n1", "phase": "Pending"}, {"node": "n1", "ready_for_s": 10}, id="pending before running"),
    pytest.param({"node": "n1"}, {"node": "n1", "ready_for_s": 10}, id="not ready before ready"),
    pytest.param(
        {"node": "n1", "ready_for_s": 10, "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}},
        {"node": "n1", "ready_for_s": 10},
        id="the cheaper one",
    ),
    pytest.param({"node": "n1", "ready_for_s": 10}, {"node": "n1", "ready_for_s": 1000}, id="ready for a shorter time"),
    pytest.param(
        {"node": "n1", "ready_for_s": 10, "restarts": 4}, {"node": "n1", "ready_for_s": 10}, id="more restarts"
    ),
    pytest.param(
        {"node": "n1", "ready_for_s": 10, "age_s": 20}, {"node": "n1", "ready_for_s": 10, "age_s": 5000}, id="younger"
    ),
]


@pytest.mark.parametrize(("first", "second"), ORDER)
def test_deletion_order(first: Any, second: Any, pod: Any, now: Any) -> None:
    doomed, spared = pod("z-first", **first), pod("a-second", **second)
    ranked = rank_for_deletion([spared, doomed], [], now)
    assert [item.metadata.name for item in ranked] == ["z-first", "a-second"]


def test_crowded_nodes_lose_first(pod: Any, now: Any) -> None:
    pods = [pod(name, node=node, ready_for_s=100) for name, node in (("a", "n1"), ("b", "n2"), ("c", "n2"))]
    assert rank_for_deletion(pods, pods, now)[-1].metadata.name == "a"


def test_equal_ages_within_a_power_of_two_do_not_decide(pod: Any, now: Any) -> None:
    older = pod("a", node="n1", ready_for_s=900, age_s=900)
    younger = pod("b", node="n1", ready_for_s=800, age_s=800)
    assert [item.metadata.name for item in rank_for_deletion([younger, older], [], now)] == ["a", "b"]


@pytest.mark.parametrize(
    ("replicas", "create", "delete"),
    [(5, 3, 0), (2, 0, 0), (1, 0, 1), (0, 0, 2)],
    ids=["short", "exact", "over", "zero"],
)
def test_the_difference_is_made_up(replicas: int, create: int, delete: int, pod: Any, now: Any) -> None:
    pods = [pod("a", ready_for_s=5), pod("b"), pod("gone", deleting=True), pod("done", phase="Succeeded")]
    step = plan(replicaset(replicas), pods, pods, now)
    assert (step.create, len(step.delete)) == (create, delete)


def test_status_counts(pod: Any, now: Any) -> None:
    pods = [
        pod("a", ready_for_s=100, labels={"app": "web"}),
        pod("b", ready_for_s=5, labels={"app": "web"}),
        pod("c"),
        pod("d", deleting=True),
    ]
    step = plan(replicaset(3, minReadySeconds=30), pods, pods, now)
    status = step.status
    assert (status.replicas, status.ready_replicas, status.available_replicas) == (3, 2, 1)
    assert (status.fully_labeled_replicas, status.terminating_replicas, status.observed_generation) == (2, 1, 3)
    assert step.check_after_s == 25.0
