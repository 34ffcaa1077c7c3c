"""Hints shared out among zones: fair, stable, or none with a reason."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.controllers.conftest import make_pod

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Node, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.controllers.endpointslice import topology
from pilotage.controllers.endpointslice.core import decide
from pilotage.controllers.endpointslice.topology import OVERLOAD_MAX, Zones, share_out, survey


def node(name: str, zone: str = "", cpu: str = "4", *, ready: bool = True, **labels: str) -> Node:
    body = {
        "metadata": {"name": name, "labels": {**({topology.ZONE: zone} if zone else {}), **labels}},
        "status": {
            "allocatable": {"cpu": cpu} if cpu else {},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
    return convert(Node, body)


def spread(**counts: int) -> dict[str, str]:
    """Addresses in zones: `spread(a=2)` → two in zone a."""
    return {f"10.{zone}.{number}": zone for zone, count in counts.items() for number in range(count)}


def zones(**cpu: int) -> Zones:
    return Zones(by_node={}, cpu=cpu)


def counted(given_: Any) -> dict[str, int]:
    assert isinstance(given_, dict), given_
    return dict(Counter(given_.values()))


def test_processors_of_ready_workers_are_what_counts() -> None:
    control = {"node-role.kubernetes.io/control-plane": ""}
    found = survey(
        [
            node("n1", "a"),
            node("n2", "b", "2"),
            node("n3", "b", "500m"),
            node("n4", "c", ready=False),
            node("n5", "d", **control),
        ]
    )
    assert (found.cpu, found.problem) == ({"a": 4000, "b": 2500}, "")
    assert found.by_node == {"n1": "a", "n2": "b", "n3": "b", "n4": "c", "n5": "d"}


PROBLEMS = [
    pytest.param([node("n1", "a"), node("n2")], topology.NO_NODE_DATA, id="a node without zone"),
    pytest.param([node("n1", "a"), node("n2", "b", "")], topology.NO_NODE_DATA, id="a node without processors"),
    pytest.param([node("n1", "a"), node("n2", "b", ready=False)], topology.ONE_ZONE, id="one zone ready"),
    pytest.param([], topology.ONE_ZONE, id="no node"),
]


@pytest.mark.parametrize(("nodes", "problem"), PROBLEMS)
def test_nodes_that_do_not_say_enough(nodes: list[Node], problem: str) -> None:
    assert survey(nodes).problem == problem
    assert share_out(spread(a=9), {}, survey(nodes)) == problem


REFUSED = [
    pytest.param(spread(a=1), zones(a=4, b=4), "Insufficient number of endpoints (1), ", id="fewer than zones"),
    pytest.param(spread(a=2, b=1), zones(a=4, b=4), topology.OVERLOAD, id="three for two equal zones"),
    pytest.param({**spread(a=4, b=4), "10.0.0.1": ""}, zones(a=4, b=4), topology.NO_ZONE, id="one that is nowhere"),
]


@pytest.mark.parametrize(("endpoints", "known", "reason"), REFUSED)
def test_no_hints_with_a_reason(endpoints: dict[str, str], known: Zones, reason: str) -> None:
    outcome = share_out(endpoints, {}, known)
    assert isinstance(outcome, str) and outcome.startswith(reason)


SHARED = [
    pytest.param(spread(a=2, b=2), zones(a=4, b=4), {"a": 2, "b": 2}, id="everyone at home"),
    pytest.param(spread(a=10), zones(a=4, b=4), {"a": 5, "b": 5}, id="all in one zone"),
    pytest.param(spread(a=3, b=6), zones(a=4, b=8), {"a": 3, "b": 6}, id="in proportion to processors"),
    pytest.param(spread(c=6), zones(a=4, b=4), {"a": 3, "b": 3}, id="in a zone without ready nodes"),
]


@pytest.mark.parametrize(("endpoints", "known", "shares"), SHARED)
def test_shares(endpoints: dict[str, str], known: Zones, shares: dict[str, int]) -> None:
    given_ = share_out(endpoints, {}, known)
    assert counted(given_) == shares
    assert share_out(endpoints, given_ if isinstance(given_, dict) else {}, known) == given_


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 30), min_size=1),
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 64), min_size=2),
    st.data(),
)
def test_no_zone_is_overloaded_and_what_stands_stays(
    counts: dict[str, int], cpu: dict[str, int], data: st.DataObject
) -> None:
    endpoints, known = spread(**counts), zones(**cpu)
    before = {key: data.draw(st.sampled_from(sorted(cpu))) for key in list(endpoints)[:5]}
    given_ = share_out(endpoints, before, known)
    if isinstance(given_, str):
        return
    assert given_.keys() == endpoints.keys()
    held, total, cores = Counter(given_.values()), len(endpoints), sum(cpu.values())
    for zone in cpu:
        assert held[zone] >= math.ceil(total * cpu[zone] / cores / (1 + OVERLOAD_MAX))
    assert share_out(endpoints, given_, known) == given_, "hints that are good stay as they are"


def service(**annotations: str) -> Service:
    metadata = {"name": "web", "namespace": "default", "uid": "u", "annotations": annotations}
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}], "trafficDistribution": "PreferSameNode"}
    return convert(Service, {"metadata": metadata, "spec": spec})


def test_the_annotation_wins_and_only_ready_endpoints_have_hints() -> None:
    known = survey([node("n1", "a"), node("n2", "b")])
    pods = [make_pod(f"p{index}", ip=f"10.0.0.{index + 1}", ready_for_s=1, node="n1") for index in range(4)]
    pods.append(make_pod("waiting", ip="10.0.0.9", node="n2"))
    decision = decide(service(**{topology.MODE: "Auto"}), pods, known, [], "")
    hints = {item["addresses"][0]: item.get("hints") for item in decision.plan.create[0]["endpoints"]}
    assert hints.pop("10.0.0.9") is None
    assert sorted(item["forZones"][0]["name"] for item in hints.values() if item) == ["a", "a", "b", "b"]
    assert all("forNodes" not in item for item in hints.values() if item)
    assert decision.without_hints == {}
    (made,) = decision.plan.create
    stored = convert(EndpointSlice, {**made, "metadata": {**made["metadata"], "name": "web-1"}})
    fewer = decide(service(**{topology.MODE: "Auto"}), pods[:1], known, [stored], "")
    assert fewer.without_hints["IPv4"].startswith("Insufficient number of endpoints (1)")
    assert "hints" not in fewer.plan.update[0].document["endpoints"][0]


def test_a_distribution_nobody_can_follow_says_why() -> None:
    pods = [make_pod("p", ip="10.0.0.1", ready_for_s=1, node="n9")]
    assert decide(service(), pods, Zones(by_node={}), [], "").without_hints == {"IPv4": topology.NO_ZONE}
    assert decide(service(), pods, Zones(by_node={"n9": "a"}), [], "").without_hints == {}
