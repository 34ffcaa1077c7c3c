"""Volumes say which nodes reach them and who may use them; images, where a pod starts soonest."""

from typing import Any

import pytest

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Node, PersistentVolume
from pilotage.scheduler.core.cycle import Placement, Unschedulable, schedule
from pilotage.scheduler.core.model import ClaimInfo, Cluster
from pilotage.scheduler.core.preemption import Preemption, preempt
from pilotage.scheduler.core.scores import image_locality

USES = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}


def volume(*, node: str = "", **labels: str) -> PersistentVolume:
    spec: dict[str, Any] = {}
    if node:
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}}
    return convert(PersistentVolume, {"metadata": {"name": "pv", "labels": labels}, "spec": spec})


def with_volume(made: Cluster, found: PersistentVolume | None, *, exclusive: bool = False) -> Cluster:
    made.claims["default", "data"] = ClaimInfo(volume="pv", is_exclusive=exclusive)
    if found is not None:
        made.volumes["pv"] = found
    return made


PLACED = [
    pytest.param(volume(), "n1", id="reached from everywhere"),
    pytest.param(volume(node="n2"), "n2", id="of one node"),
    pytest.param(volume(**{"topology.kubernetes.io/zone": "b"}), "n2", id="of a zone"),
    pytest.param(volume(**{"topology.kubernetes.io/zone": "b__c"}), "n2", id="of several zones"),
]
REFUSED = [
    pytest.param(None, "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)", id="absent"),
    pytest.param(volume(node="n9"), "2 node(s) had volume node affinity conflict", id="of another node"),
    pytest.param(
        volume(**{"topology.kubernetes.io/zone": "c"}), "2 node(s) had no available volume zone", id="of another zone"
    ),
]


@pytest.mark.parametrize(("found", "expected"), PLACED)
def test_a_pod_goes_where_its_volume_is(found: Any, expected: str, pod: Any, node: Any, cluster: Any) -> None:
    made = with_volume(cluster(node("n1", zone="a"), node("n2", zone="b")), found)
    verdict = schedule(pod(**USES), made)
    assert isinstance(verdict, Placement) and verdict.node_name == expected


@pytest.mark.parametrize(("found", "reason"), REFUSED)
def test_a_volume_that_no_node_reaches(found: Any, reason: str, pod: Any, node: Any, cluster: Any) -> None:
    verdict = schedule(pod(**USES), with_volume(cluster(node("n1", zone="a"), node("n2", zone="b")), found))
    assert isinstance(verdict, Unschedulable)
    assert verdict.message == f"0/2 nodes are available: {reason}."
    assert verdict.resolvable_nodes == ()


def test_a_claim_for_one_pod_is_used_by_one_pod_and_preemption_may_change_by_whom(
    pod: Any, node: Any, cluster: Any
) -> None:
    first = pod("first", **USES)
    made = with_volume(cluster(node("n1"), node("n2"), n1=[first]), volume(), exclusive=True)
    second = pod("second", priority=10, **USES)
    verdict = schedule(second, made)
    assert isinstance(verdict, Unschedulable)
    assert verdict.plugins == ("VolumeRestrictions",)
    assert "ReadWriteOncePod access mode already in-use" in verdict.message
    pushed = preempt(second, made, verdict.resolvable_nodes, ())
    assert isinstance(pushed, Preemption) and (pushed.node_name, pushed.victims) == ("n1", (first,))
    made.displace(first.key)
    assert isinstance(schedule(second, made), Placement)


def holding(made: Node, *images: tuple[str, int]) -> Node:
    listed = [{"names": [name], "sizeBytes": size * 2**20} for name, size in images]
    document = {
        "metadata": {"name": made.metadata.name, "labels": made.metadata.labels},
        "status": {"allocatable": made.status.allocatable, "images": listed},
    }
    return convert(Node, document)


def scores(made: Cluster, info: Any) -> list[float] | None:
    found = image_locality.rate(info, made, [made.nodes[name] for name in sorted(made.nodes)])
    return None if found is None else [round(value, 1) for value in found]


def test_images_count_by_size_and_by_how_many_nodes_have_them(pod: Any, node: Any, cluster: Any) -> None:
    app = pod(containers=[{"name": "main", "image": "registry/app"}])
    assert scores(cluster(node("n1"), node("n2")), app) is None
    made = cluster(
        holding(node("n1"), ("registry/app:latest", 600)),
        holding(node("n2"), ("registry/app:v2", 600)),
    )
    assert scores(made, app) == [round(100 * (300 - 23) / (1000 - 23), 1), 0.0]
    made.set_node(holding(node("n2"), ("registry/app:latest", 600)))
    both = round(100 * (600 - 23) / (1000 - 23), 1)
    assert scores(made, app) == [both, both]
    made.remove_node("n2")
    assert made.image_holders == {"registry/app:latest": 1}
    verdict = schedule(app, made)
    assert isinstance(verdict, Placement)


def test_an_image_draws_a_pod_to_its_node(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("n1"), holding(node("n2"), ("registry/app:v1", 900)))
    verdict = schedule(pod(containers=[{"name": "main", "image": "registry/app:v1"}]), made)
    assert isinstance(verdict, Placement) and verdict.node_name == "n2"
