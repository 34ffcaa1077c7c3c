"""Sums on nodes, and what a pod reserves."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduler.conftest import make_node, make_pod

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Pod, PodSpec
from pilotage.api.labels import parse_selector
from pilotage.scheduler.core.model import Cluster, HostPort, PodKey, pod_requests, reserved


def container(cpu: str, *, sidecar: bool = False) -> dict[str, Any]:
    always = {"restartPolicy": "Always"} if sidecar else {}
    return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **always}


REQUESTS = [
    pytest.param({"containers": [container("1"), container("500m")]}, 1500, id="containers add up"),
    pytest.param({"containers": [container("1")], "initContainers": [container("3")]}, 3000, id="the greatest moment"),
    pytest.param(
        {"containers": [container("1")], "initContainers": [container("2", sidecar=True)]}, 3000, id="sidecars stay"
    ),
    pytest.param(
        {"containers": [container("1")], "initContainers": [container("2", sidecar=True), container("5")]},
        7000,
        id="an init container beside an earlier sidecar",
    ),
    pytest.param(
        {"containers": [container("1")], "initContainers": [container("5"), container("2", sidecar=True)]},
        5000,
        id="a later sidecar does not count beside it",
    ),
    pytest.param({"containers": [container("1")], "overhead": {"cpu": "250m"}}, 1250, id="overhead on top"),
    pytest.param(
        {"containers": [container("1")], "resources": {"requests": {"cpu": "4"}}}, 4000, id="the pod's own request"
    ),
    pytest.param({"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]}, 2000, id="a limit alone"),
]


@pytest.mark.parametrize(("spec", "millicores"), REQUESTS)
def test_requests(spec: Any, millicores: int) -> None:
    assert pod_requests(convert(PodSpec, spec))["cpu"] == millicores


@pytest.mark.parametrize(
    ("asked", "granted", "held", "pending", "millicores"),
    [
        pytest.param("2", "2", "2", "", 2000, id="nothing changes"),
        pytest.param("3", "2", "2", "Deferred", 3000, id="it is to grow"),
        pytest.param("1", "1", "2", "", 2000, id="it has yet to shrink"),
        pytest.param("1", "2", "2", "", 2000, id="nobody has looked at it yet"),
        pytest.param("100", "2", "2", "Infeasible", 2000, id="it can never be had"),
        pytest.param("2", "", "", "", 2000, id="no agent has said anything"),
    ],
)
def test_a_pod_that_is_being_resized_takes_the_most_it_may_have(
    asked: str, granted: str, held: str, pending: str, millicores: int
) -> None:
    status: dict[str, Any] = {"allocatedResources": {"cpu": granted}, "resources": {"requests": {"cpu": held}}}
    conditions = [{"type": "PodResizePending", "status": "True", "reason": pending}] if pending else []
    spec = {"containers": [container("100m")], "resources": {"requests": {"cpu": asked}}}
    pod = convert(
        Pod,
        {"metadata": {"name": "p"}, "spec": spec, "status": {"conditions": conditions, **(status if granted else {})}},
    )
    assert reserved(pod)["cpu"] == millicores


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        (("TCP", "0.0.0.0", 80), ("TCP", "10.0.0.1", 80), True),
        (("TCP", "10.0.0.2", 80), ("TCP", "10.0.0.1", 80), False),
        (("TCP", "0.0.0.0", 80), ("UDP", "0.0.0.0", 80), False),
        (("TCP", "0.0.0.0", 80), ("TCP", "0.0.0.0", 81), False),
    ],
)
def test_host_ports(one: Any, other: Any, conflict: bool) -> None:
    assert HostPort(*one).conflicts(HostPort(*other)) == conflict
    assert HostPort(*other).conflicts(HostPort(*one)) == conflict


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["place", "displace", "add node", "remove node"]),
        st.integers(0, 5),
        st.integers(0, 2),
        st.integers(0, 3),
    ),
    max_size=40,
)


@given(STEPS)
def test_increments_equal_a_fresh_count(steps: list[tuple[str, int, int, int]]) -> None:
    cluster = Cluster()
    nodes: set[str] = set()
    placed: dict[str, tuple[str, int]] = {}
    for step, number, place, cpu in steps:
        name, node = f"p{number}", f"n{place}"
        match step:
            case "place":
                labels = {"app": "ab"[cpu % 2], "n": str(number)}
                cluster.place(make_pod(name, cpu=str(cpu), labels=labels), node)
                placed[name] = (node, cpu)
            case "displace":
                cluster.displace(PodKey("default", name))
                placed.pop(name, None)
            case "add node":
                cluster.set_node(make_node(node))
                nodes.add(node)
            case _:
                cluster.remove_node(node)
                nodes.discard(node)
        assert cluster.nodes.keys() == nodes
        for known in nodes:
            info = cluster.nodes[known]
            here = {pod: amount for pod, (where, amount) in placed.items() if where == known}
            assert {key.name for key in info.pods} == here.keys()
            assert info.requested.get("cpu", 0) == 1000 * sum(here.values())
            assert info.scored_cpu == sum(1000 * amount or 100 for amount in here.values())
        for app in "ab":
            for text in (f"app={app}", f"app={app},n in (1,2)", f"app!={app}", "n"):
                selector = parse_selector(text)
                naive = {
                    name
                    for name, (_, cpu) in placed.items()
                    if selector.matches({"app": "ab"[cpu % 2], "n": name.removeprefix("p")})
                }
                assert {pod.key.name for pod in cluster.labelled("default", selector)} == naive
        assert not list(cluster.labelled("other", parse_selector("app")))
