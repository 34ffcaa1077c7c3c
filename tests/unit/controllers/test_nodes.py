"""Node health, eviction times, pods of nobody, ranges."""

from typing import Any

import pytest

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Node
from pilotage.controllers.nodeipam.core import RangeExhaustedError, assign
from pilotage.controllers.nodelifecycle.core import plan
from pilotage.controllers.nodelifecycle.zones import INTERVAL_S, SLOW_INTERVAL_S, Eviction, Zones
from pilotage.controllers.podgc.core import forced_in_s, surplus
from pilotage.controllers.tainteviction.core import evicts_in_s


def node(name: str = "n1", *, conditions: dict[str, str] | None = None, **spec: Any) -> Node:
    found = [{"type": type, "status": status} for type, status in (conditions or {"Ready": "True"}).items()]
    document = {"metadata": {"name": name, "uid": name}, "spec": spec, "status": {"conditions": found}}
    return convert(Node, document)


def keys(found: Any) -> set[tuple[str, str]]:
    return {(taint.key.removeprefix("node.kubernetes.io/"), taint.effect) for taint in found or ()}


def test_silence_turns_everything_unknown_and_taints(now: Any) -> None:
    step = plan(node(conditions={"Ready": "True", "MemoryPressure": "False"}), 40.0, now)
    assert step.conditions is not None
    assert {condition.type: condition.status for condition in step.conditions} == dict.fromkeys(
        ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"), "Unknown"
    )
    assert {condition.reason for condition in step.conditions} == {"NodeStatusUnknown", "NodeStatusNeverUpdated"}
    assert keys(step.taints) == {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")}
    assert not step.is_ready
    assert step.check_after_s is None


def test_a_healthy_node_is_looked_at_again_when_silence_would_be_too_long(now: Any) -> None:
    step = plan(node(), 10.0, now)
    assert (step.conditions, step.taints, step.check_after_s) == (None, None, 30.0)


TAINTS = [
    ({"Ready": "False"}, {}, {("not-ready", "NoSchedule"), ("not-ready", "NoExecute")}),
    ({"Ready": "True", "MemoryPressure": "True"}, {}, {("memory-pressure", "NoSchedule")}),
    ({"Ready": "True"}, {"unschedulable": True}, {("unschedulable", "NoSchedule")}),
]


@pytest.mark.parametrize(("conditions", "spec", "expected"), TAINTS)
def test_conditions_and_cordon_as_taints(conditions: Any, spec: Any, expected: Any, now: Any) -> None:
    assert keys(plan(node(conditions=conditions, **spec), 0.0, now).taints) == expected


def test_only_taints_of_its_own_are_removed(now: Any) -> None:
    foreign = {"key": "example.com/mine", "effect": "NoSchedule"}
    stale = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}
    step = plan(node(taints=[stale, foreign]), 0.0, now)
    assert step.taints is not None
    assert [taint.key for taint in step.taints] == ["example.com/mine"]


def test_a_present_taint_keeps_its_time(now: Any) -> None:
    key = "node.kubernetes.io/not-ready"
    old = [
        {"key": key, "effect": "NoSchedule"},
        {"key": key, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
    ]
    assert plan(node(conditions={"Ready": "False"}, taints=old), 0.0, now).taints is None


def tolerations(seconds: int | None) -> list[dict[str, Any]]:
    limit = {} if seconds is None else {"tolerationSeconds": seconds}
    return [{"key": "k", "operator": "Exists", "effect": "NoExecute", **limit}]


@pytest.mark.parametrize(
    ("effect", "tolerated", "expected"),
    [
        ("NoSchedule", [], None),
        ("NoExecute", [], 0.0),
        ("NoExecute", tolerations(None), None),
        ("NoExecute", tolerations(300), 240.0),
        ("NoExecute", tolerations(30), 0.0),
        ("NoExecute", tolerations(-1), 0.0),
    ],
    ids=["only NoExecute evicts", "at once", "for ever", "after its time", "time is over", "negative is zero"],
)
def test_eviction(effect: str, tolerated: Any, expected: float | None, pod: Any, now: Any, before: Any) -> None:
    tainted = node(taints=[{"key": "k", "effect": effect, "timeAdded": before(60)}])
    assert evicts_in_s(pod(tolerations=tolerated), tainted, now) == expected


def test_the_most_impatient_toleration_decides(pod: Any, now: Any, before: Any) -> None:
    taints = [{"key": key, "effect": "NoExecute", "timeAdded": before(0)} for key in ("a", "b")]
    patient = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        for key, seconds in (("a", 100), ("b", 20))
    ]
    assert evicts_in_s(pod(tolerations=patient), node(taints=taints), now) == 20.0


def test_the_time_before_a_pod_came_does_not_count(pod: Any, now: Any, before: Any) -> None:
    tainted = node(taints=[{"key": "k", "effect": "NoExecute", "timeAdded": before(7200)}])
    assert evicts_in_s(pod(age_s=10, tolerations=tolerations(300)), tainted, now) == 290.0


@pytest.mark.parametrize(
    ("wish", "there", "gone_s", "expected"),
    [
        ({"node": "n1"}, True, 0, None),
        ({"node": "n1"}, False, 0, 40.0),
        ({"node": "n1"}, False, 41, 0.0),
        ({}, False, 0, None),
        ({"deleting": True}, False, 0, 0.0),
    ],
    ids=["has a node", "node just gone", "node long gone", "waits for a node", "unbound and deleted"],
)
def test_pods_of_nobody(wish: Any, there: bool, gone_s: float, expected: Any, pod: Any) -> None:
    assert forced_in_s(pod(**wish), node() if there else None, gone_s) == expected


def test_the_oldest_finished_pods_are_surplus(pod: Any) -> None:
    ended = [pod(f"p{age}", phase="Succeeded", age_s=age) for age in (10, 30, 20)]
    assert [item.metadata.name for item in surplus([*ended, pod("alive")], limit=1)] == ["p30", "p20"]


def test_ranges_fill_gaps_and_never_overlap() -> None:
    nodes = [node("a", podCIDR="10.244.1.0/24"), node("b", podCIDRs=["10.244.3.0/24"])]
    assert assign(node("new"), nodes, ("10.244.0.0/16",)) == ("10.244.2.0/24",)
    assert assign(nodes[0], nodes, ("10.244.0.0/16",)) == ()
    assert assign(node("new"), [], ("10.244.0.0/16", "fd00:1::/48")) == ("10.244.1.0/24", "fd00:1:0:1::/64")


def test_a_coarser_range_of_another_tool_is_respected() -> None:
    nodes = [node("a", podCIDR="10.244.0.0/22")]
    assert assign(node("new"), nodes, ("10.244.0.0/16",)) == ("10.244.4.0/24",)


def test_an_exhausted_range_says_so() -> None:
    nodes = [node(f"n{number}", podCIDR=f"10.244.{number}.0/24") for number in range(4)]
    with pytest.raises(RangeExhaustedError, match=r"10\.244\.0\.0/22"):
        assign(node("new"), nodes, ("10.244.0.0/22",))


def zones_of(ready: dict[str, list[bool]]) -> Zones:
    """Nodes are named by their zone and a number."""
    zones = Zones()
    for zone, states in ready.items():
        for number, state in enumerate(states):
            zones.observe(f"{zone}{number}", zone, state)
    return zones


EVICTIONS = [
    pytest.param({"/": [False]}, Eviction.STOPPED, id="the only node"),
    pytest.param({"/": [False, False], "/b": [False]}, Eviction.STOPPED, id="every node of every zone"),
    pytest.param({"/": [False], "/b": [True]}, Eviction.NOW, id="a whole zone, but another is well"),
    pytest.param({"/": [False, False, True]}, Eviction.NOW, id="two nodes are no disruption"),
    pytest.param({"/": [False] * 3 + [True]}, Eviction.STOPPED, id="most of a small zone"),
    pytest.param({"/": [False] * 3 + [True] * 3}, Eviction.NOW, id="half of a zone"),
    pytest.param({"/": [False] * 60 + [True] * 10}, Eviction.NOW, id="most of a large zone, slowly"),
]


@pytest.mark.parametrize(("ready", "expected"), EVICTIONS)
def test_who_is_driven_away_depends_on_how_many_are_lost(ready: Any, expected: Eviction) -> None:
    assert zones_of(ready).may_evict(node("/0"), 0.0)[0] is expected


def test_one_node_after_the_other_loses_its_pods() -> None:
    for ready, interval_s in (([False, False, True], INTERVAL_S), ([False] * 60 + [True], SLOW_INTERVAL_S)):
        zones = zones_of({"/": ready})
        assert zones.may_evict(node("/0"), 5.0) == (Eviction.NOW, 0.0)
        assert zones.may_evict(node("/1"), 6.0) == (Eviction.LATER, interval_s - 1)
        assert zones.may_evict(node("/1"), 5.0 + interval_s) == (Eviction.NOW, 0.0)
        zones.give_back(node("/1"))
        assert zones.may_evict(node("/1"), 6.0 + interval_s) == (Eviction.NOW, 0.0)


def test_others_are_asked_again_when_a_zone_is_lost_or_found() -> None:
    zones = zones_of({"/": [True] * 4, "/b": [False]})
    assert zones.observe("/0", "/", True) is False, "a heartbeat"
    assert [zones.observe(f"/{number}", "/", False) for number in range(4)] == [False, False, True, True]
    assert zones.all_lost
    assert zones.observe("/3", "/", True), "found again"
    assert zones.observe("/b0", "/b", None), "a zone that is gone is not lost"
    assert zones.observe("/3", "/c", True), "a node that moves changes two"


def test_stopped_evictions_take_their_taints_back_and_late_ones_keep_them(now: Any) -> None:
    key = "node.kubernetes.io/not-ready"
    both = [{"key": key, "effect": "NoSchedule"}, {"key": key, "effect": "NoExecute"}]
    lost = {"Ready": "False"}
    stopped = plan(node(conditions=lost, taints=both), 0.0, now, eviction=Eviction.STOPPED)
    assert keys(stopped.taints) == {("not-ready", "NoSchedule")}
    assert plan(node(conditions=lost, taints=both), 0.0, now, eviction=Eviction.LATER).taints is None
    assert keys(plan(node(conditions=lost), 0.0, now, eviction=Eviction.LATER).taints) == {("not-ready", "NoSchedule")}
