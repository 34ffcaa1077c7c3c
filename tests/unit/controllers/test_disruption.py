"""How many pods may be disturbed."""

from datetime import datetime
from typing import Any

import pytest

from pilotage.api.codec import convert
from pilotage.api.policy_v1 import PodDisruptionBudget
from pilotage.controllers.disruption.core import needs_sizes, plan


def budget(disrupted: dict[str, str] | None = None, **spec: Any) -> PodDisruptionBudget:
    return convert(
        PodDisruptionBudget,
        {
            "metadata": {"name": "web", "namespace": "default", "generation": 3},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
            "status": {"disruptedPods": disrupted or {}},
        },
    )


ALLOWANCES = [
    pytest.param({"minAvailable": 2}, 3, 3, {}, (1, 2, 3), id="one above the minimum"),
    pytest.param({"minAvailable": 3}, 3, 3, {}, (0, 3, 3), id="exactly the minimum"),
    pytest.param({"minAvailable": 2}, 3, 1, {}, (0, 2, 3), id="below the minimum"),
    pytest.param({"minAvailable": "50%"}, 3, 3, {"a": 3}, (1, 2, 3), id="a percentage rounds up"),
    pytest.param({"minAvailable": "50%"}, 3, 3, {"a": 10}, (0, 5, 10), id="a percentage of what is asked for"),
    pytest.param({"maxUnavailable": 1}, 3, 3, {"a": 3}, (1, 2, 3), id="one may be unavailable"),
    pytest.param({"maxUnavailable": 1}, 3, 2, {"a": 3}, (0, 2, 3), id="one is unavailable already"),
    pytest.param({"maxUnavailable": "30%"}, 4, 4, {"a": 4}, (2, 2, 4), id="30% of 4 rounds up to 2"),
    pytest.param({"maxUnavailable": 5}, 3, 3, {"a": 3}, (3, 0, 3), id="more than there are"),
    pytest.param({"maxUnavailable": 1}, 4, 4, {"a": 2, "b": 2}, (1, 3, 4), id="two workloads add up"),
    pytest.param({"maxUnavailable": 1}, 0, 0, {}, (0, 0, 0), id="no pods"),
    pytest.param({}, 2, 2, {}, (0, 0, 0), id="no number stated"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "pods", "ready", "sizes", "answer"), ALLOWANCES)
def test_allows(
    spec: Any, pods: int, ready: int, sizes: Any, answer: tuple[int, int, int], pod: Any, now: datetime
) -> None:
    made = [pod(f"p{i}", ready_for_s=60 if i < ready else None) for i in range(pods)]
    step = plan(budget(**spec), made, sizes, now)
    assert (step.status.disruptions_allowed, step.status.desired_healthy, step.status.expected_pods) == answer
    assert step.status.current_healthy == (0 if not made else ready)
    condition = step.status.conditions[0]
    assert (condition.type, condition.status) == ("DisruptionAllowed", "True" if answer[0] else "False")
    assert condition.reason == ("SufficientPods" if answer[0] else "InsufficientPods")
    assert step.status.observed_generation == condition.observed_generation == 3


def test_a_granted_eviction_counts_until_it_is_seen_or_runs_out(pod: Any, now: datetime, before: Any) -> None:
    pods = [pod(f"p{i}", ready_for_s=60) for i in range(3)]
    step = plan(budget({"p0": before(20)}, minAvailable=1), pods, {}, now)
    assert (step.status.current_healthy, step.status.disruptions_allowed) == (2, 1)
    assert step.check_after_s == 100.0
    late = plan(budget({"p0": before(121)}, minAvailable=1), pods, {}, now)
    assert (late.status.current_healthy, late.status.disrupted_pods) == (3, {})
    assert [item.metadata.name for item in late.not_deleted] == ["p0"]


def test_pods_on_their_way_out_are_neither_healthy_nor_remembered(pod: Any, now: datetime, before: Any) -> None:
    pods = [pod("p0", ready_for_s=60, deleting=True), pod("p1", ready_for_s=60)]
    step = plan(budget({"p0": before(1), "gone": before(1)}, minAvailable=1), pods, {}, now)
    assert (step.status.current_healthy, step.status.disruptions_allowed) == (1, 0)
    assert step.status.disrupted_pods == {}


def test_unknown_sizes_allow_nothing(pod: Any, now: datetime) -> None:
    step = plan(budget(maxUnavailable=1), [pod("p", ready_for_s=9)], "found no controllers", now)
    assert step.status.disruptions_allowed == 0
    assert (step.status.conditions[0].reason, step.status.conditions[0].message) == (
        "SyncFailed",
        "found no controllers",
    )


@pytest.mark.parametrize(
    ("spec", "needed"), [({"minAvailable": 1}, False), ({"minAvailable": "1%"}, True), ({"maxUnavailable": 1}, True)]
)
def test_sizes_are_asked_for_only_when_they_decide(spec: Any, needed: bool) -> None:
    assert needs_sizes(budget(**spec)) is needed
