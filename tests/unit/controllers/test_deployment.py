"""Rolling arithmetic, naming, history, conditions."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.api.apps_v1 import Deployment, ReplicaSet
from pilotage.api.codec import convert
from pilotage.controllers.deployment.core import find_new, new_replicaset, plan
from pilotage.controllers.deployment.rolling import proportional, rolling_step, surge_and_unavailable


def deployment(
    replicas: int = 3, *, image: str = "v2", status: Any = None, annotations: Any = None, **spec: Any
) -> Deployment:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": image}]}}
    metadata = {
        "name": "web",
        "namespace": "default",
        "uid": "uid-web",
        "generation": 2,
        "annotations": annotations or {},
    }
    body = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}
    return convert(Deployment, {"metadata": metadata, "spec": body, "status": status or {}})


def replicaset(
    name: str,
    replicas: int,
    *,
    available: int | None = None,
    image: str = "v1",
    revision: int = 1,
    created: int = 0,
    maximum: int | None = None,
    desired: int | None = None,
) -> ReplicaSet:
    labels = {"app": "web", "pod-template-hash": name}
    annotations = {"deployment.kubernetes.io/revision": str(revision)}
    if maximum is not None:
        annotations["deployment.kubernetes.io/max-replicas"] = str(maximum)
    if desired is not None:
        annotations["deployment.kubernetes.io/desired-replicas"] = str(desired)
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}}
    metadata = {"name": name, "annotations": annotations, "creationTimestamp": f"2026-01-01T00:00:{created:02}Z"}
    served = replicas if available is None else available
    status = {"replicas": replicas, "readyReplicas": served, "availableReplicas": served}
    return convert(
        ReplicaSet, {"metadata": metadata, "spec": {"replicas": replicas, "template": template}, "status": status}
    )


def strategy(surge: int | str, unavailable: int | str) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (4, "25%", "25%", (1, 1)),
        (3, "25%", "25%", (1, 0)),
        (1, "25%", "25%", (1, 0)),
        (10, 0, "1%", (0, 1)),
        (10, 3, 20, (3, 10)),
        (0, "25%", "25%", (0, 1)),
    ],
)
def test_bounds_in_pods(replicas: int, surge: Any, unavailable: Any, expected: tuple[int, int]) -> None:
    assert surge_and_unavailable(deployment(replicas, strategy=strategy(surge, unavailable))) == expected


@given(
    replicas=st.integers(0, 20),
    surge=st.integers(0, 5),
    unavailable=st.integers(0, 5),
    start=st.integers(0, 20),
    delays=st.lists(st.integers(0, 3), min_size=60, max_size=60),
)
def test_every_rollout_keeps_its_bounds_and_ends(
    replicas: int, surge: int, unavailable: int, start: int, delays: list[int]
) -> None:
    """Pods of the new set become available with arbitrary delays; the old ones serve until they are told to go."""
    made = deployment(replicas, strategy=strategy(surge, unavailable))
    allowed_surge, allowed_unavailable = surge_and_unavailable(made)
    old, new, available = min(start, replicas), 0, 0
    for delay in delays * 3:
        new_size, sizes = rolling_step(
            made, replicaset("new", new, available=available, image="v2"), [replicaset("old", old)]
        )
        assert new_size + sizes["old"] <= max(replicas + allowed_surge, old + new)
        assert min(available, new_size) + sizes["old"] >= min(replicas - allowed_unavailable, available + old)
        progress = (new_size, sizes["old"]) != (new, old) or available < new_size
        new, old = new_size, sizes["old"]
        available = min(new, available + delay)
        if not progress:
            break
    if any(delays):
        assert (new, old) == (replicas, 0)


def test_broken_old_pods_go_first() -> None:
    made = deployment(4, strategy=strategy(0, 1))
    _, sizes = rolling_step(
        made, replicaset("new", 0, image="v2"), [replicaset("older", 1, available=0), replicaset("old", 3, created=1)]
    )
    assert sizes == {"older": 0, "old": 3}


def test_a_resize_in_the_middle_is_shared_out() -> None:
    made = deployment(20, strategy=strategy(3, 2))
    old = replicaset("old", 8, maximum=13)
    new = replicaset("new", 5, available=0, image="v2", created=1, maximum=13)
    sizes = proportional(made, new, [old])
    assert sum(sizes.values()) == 23
    assert sizes["old"] > sizes["new"] > 5


def test_a_finished_rollout_drops_its_old_sets_on_resize() -> None:
    sizes = proportional(deployment(3), replicaset("new", 3, image="v2"), [replicaset("old", 1)])
    assert sizes == {"old": 0}


def test_names_carry_the_hash_of_the_template() -> None:
    document = new_replicaset(deployment(image="v2"), [], 3)
    mark = document["metadata"]["labels"]["pod-template-hash"]
    assert document["metadata"]["name"] == f"web-{mark}"
    assert document["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": mark}
    assert document["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] == mark
    assert 5 <= len(mark) <= 10
    assert not set(mark) & set("aeiou0113")
    assert mark != new_replicaset(deployment(image="v3"), [], 3)["metadata"]["labels"]["pod-template-hash"]
    collided = deployment(image="v2", status={"collisionCount": 1})
    assert mark != new_replicaset(collided, [], 3)["metadata"]["labels"]["pod-template-hash"]


def test_the_new_set_is_found_by_its_template_whatever_its_name() -> None:
    sets = [replicaset("other", 1), replicaset("by-hand", 1, image="v2", created=1)]
    assert find_new(deployment(image="v2"), sets) is sets[1]
    assert find_new(deployment(image="v9"), sets) is None


def test_nulls_that_only_one_side_wrote_do_not_make_another_set() -> None:
    sets = [replicaset("other", 1, image="v2")]
    made = deployment(image="v2")
    made.spec.template["metadata"]["creationTimestamp"] = None
    made.spec.template["spec"]["containers"][0]["env"] = None
    assert find_new(made, sets) is sets[0]


def test_a_rollback_renumbers_and_remembers(now: Any) -> None:
    sets = [
        replicaset("one", 0, image="v1", revision=1, desired=3),
        replicaset("two", 3, image="v2", revision=2, desired=3),
    ]
    step = plan(deployment(image="v1"), sets, False, now)
    changed = next(change for change in step.changes if change.replicaset.metadata.name == "one")
    assert changed.annotations["deployment.kubernetes.io/revision"] == "3"
    assert changed.annotations["deployment.kubernetes.io/revision-history"] == "1"
    assert step.revision == "3"


def test_recreate_waits_for_the_old_pods(now: Any) -> None:
    made = deployment(image="v2", strategy={"type": "Recreate"})
    old = replicaset("old", 3)
    step = plan(made, [old], True, now)
    assert step.create is None
    assert [(change.replicaset.metadata.name, change.replicas) for change in step.changes] == [("old", 0)]
    assert plan(made, [replicaset("old", 0)], True, now).create is None
    created = plan(made, [replicaset("old", 0)], False, now).create
    assert created is not None
    assert created["spec"]["replicas"] == 3


def test_history_keeps_the_youngest(now: Any) -> None:
    sets = [replicaset(f"old-{number}", 0, image=f"i{number}", revision=number) for number in range(1, 5)]
    sets.append(replicaset("new", 3, image="v2", revision=5, desired=3))
    step = plan(deployment(image="v2", revisionHistoryLimit=2), sets, False, now)
    assert [item.metadata.name for item in step.delete] == ["old-1", "old-2"]


def test_settled_means_no_writes(now: Any) -> None:
    made = deployment(3, image="v2", annotations={"deployment.kubernetes.io/revision": "1"})
    sets = [replicaset("new", 3, image="v2", desired=3, maximum=4)]
    first = plan(made, sets, False, now)
    assert (first.create, first.changes, first.delete, first.revision) == (None, (), (), "")
    again = plan(convert_with_status(made, first.status), sets, False, now + timedelta(hours=1))
    assert again.status == first.status
    assert again.check_after_s is None


def convert_with_status(made: Deployment, status: Any) -> Deployment:
    import msgspec

    return msgspec.structs.replace(made, status=status)


def test_progress_is_a_condition_with_a_deadline(now: Any) -> None:
    made = deployment(3, image="v2", progressDeadlineSeconds=60)
    sets = [replicaset("new", 3, available=1, image="v2", desired=3, maximum=4)]
    first = plan(made, sets, False, now)
    progressing = next(item for item in first.status.conditions if item.type == "Progressing")
    assert (progressing.status, progressing.reason) == ("True", "ReplicaSetUpdated")
    assert first.check_after_s == 61.0
    stuck = plan(convert_with_status(made, first.status), sets, False, now + timedelta(seconds=62))
    progressing = next(item for item in stuck.status.conditions if item.type == "Progressing")
    assert (progressing.status, progressing.reason) == ("False", "ProgressDeadlineExceeded")
    assert stuck.check_after_s is None
    done = [replicaset("new", 3, image="v2", desired=3, maximum=4)]
    finished = plan(convert_with_status(made, stuck.status), done, False, now + timedelta(seconds=90))
    progressing = next(item for item in finished.status.conditions if item.type == "Progressing")
    assert (progressing.status, progressing.reason) == ("True", "NewReplicaSetAvailable")
    available = next(item for item in finished.status.conditions if item.type == "Available")
    assert (available.status, available.reason) == ("True", "MinimumReplicasAvailable")
