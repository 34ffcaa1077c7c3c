"""Daemons that surge: the new pod stands beside the old one until it serves."""

from typing import Any

import pytest
from tests.unit.controllers.conftest import make_pod

from pilotage.api.apps_v1 import DaemonSet
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Node, Pod
from pilotage.controllers.daemonset.core import plan
from pilotage.controllers.daemonset.retries import FORGET_S, PAUSE, Retries

OLD, NEW = "old", "new"


def daemonset(surge: int | str, **rolling: Any) -> DaemonSet:
    strategy = {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0, **rolling}}
    spec = {"template": {"spec": {"containers": [{"name": "main"}]}}, "updateStrategy": strategy}
    return convert(DaemonSet, {"metadata": {"name": "log", "namespace": "default", "uid": "u"}, "spec": spec})


def nodes(count: int) -> list[Node]:
    return [convert(Node, {"metadata": {"name": f"n{i}"}}) for i in range(count)]


def member(number: int, revision: str, *, ready: bool = True, **wish: Any) -> Pod:
    return make_pod(
        f"log-{revision}-{number}",
        node=f"n{number}",
        labels={"controller-revision-hash": revision},
        ready_for_s=50 if ready else None,
        age_s=900 if revision == OLD else 10,
        **wish,
    )


CASES = [
    pytest.param(1, [member(0, OLD), member(1, OLD), member(2, OLD)], [], ["n0"], id="one at a time"),
    pytest.param("50%", [member(0, OLD), member(1, OLD), member(2, OLD)], [], ["n0", "n1"], id="half, rounded up"),
    pytest.param(
        1,
        [member(0, OLD), member(0, NEW, ready=False), member(1, OLD), member(2, OLD)],
        [],
        [],
        id="waits for the successor",
    ),
    pytest.param(
        1,
        [member(0, OLD), member(0, NEW), member(1, OLD), member(2, OLD)],
        ["log-old-0"],
        ["n1"],
        id="the old one goes when its successor serves",
    ),
    pytest.param(
        1,
        [member(0, OLD, ready=False), member(1, OLD), member(2, OLD)],
        [],
        ["n0", "n1"],
        id="a broken one costs no surge",
    ),
    pytest.param(1, [member(0, NEW), member(1, NEW), member(2, NEW)], [], [], id="all are new"),
    pytest.param(
        1,
        [member(0, OLD, deleting=True), member(0, NEW), member(1, OLD), member(2, NEW)],
        [],
        ["n1"],
        id="the next node while the old one leaves",
    ),
    pytest.param(1, [member(0, NEW), member(1, NEW)], [], ["n2"], id="a node without any"),
]


@pytest.mark.parametrize(("surge", "pods", "delete", "create"), CASES)
def test_surge(surge: int | str, pods: list[Pod], delete: list[str], create: list[str], now: Any) -> None:
    step = plan(daemonset(surge), pods, nodes(3), f"log-{NEW}", now)
    assert [pod.metadata.name for pod in step.delete] == delete
    assert list(step.create) == create


def test_only_one_pod_of_each_kind_stays(now: Any) -> None:
    pods = [member(0, OLD), member(0, NEW, ready=False), make_pod("third", node="n0", age_s=1)]
    step = plan(daemonset(1), pods, nodes(1), f"log-{NEW}", now)
    assert [pod.metadata.name for pod in step.delete] == ["third"]


def test_without_surge_the_second_pod_is_one_too_many(now: Any) -> None:
    step = plan(daemonset(0, maxUnavailable=1), [member(0, OLD), member(0, NEW)], nodes(1), f"log-{NEW}", now)
    assert [pod.metadata.name for pod in step.delete] == ["log-new-0"]


def test_a_pod_that_failed_keeps_its_place_until_the_next_is_due(now: Any) -> None:
    ended = [member(0, NEW, phase="Failed"), member(1, NEW, phase="Succeeded")]
    waiting = plan(daemonset(0, maxUnavailable=1), ended, nodes(2), NEW, now, {"n0", "n1"})
    assert ([pod.metadata.name for pod in waiting.delete], waiting.create) == (["log-new-1"], ())
    due = plan(daemonset(0, maxUnavailable=1), ended, nodes(2), NEW, now)
    assert [pod.metadata.name for pod in due.delete] == ["log-new-0", "log-new-1"]


def test_pauses_double_and_are_forgotten() -> None:
    retries, place, moment = Retries(), ("u", "n1"), 0.0
    pauses = []
    for number in range(13):
        assert retries.failed(place, f"pod-{number}", moment)
        assert not retries.failed(place, f"pod-{number}", moment), "the same pod is no news"
        pauses.append(retries.left_s(place, moment))
        moment += pauses[-1]
        assert retries.left_s(place, moment) == 0
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, PAUSE.max_s, PAUSE.max_s]
    assert retries.left_s(("u", "n2"), moment) == 0
    retries.failed(place, "late", moment + FORGET_S)
    assert retries.left_s(place, moment + FORGET_S) == 0
