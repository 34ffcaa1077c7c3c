"""Control groups of nodes, classes and pods: what they are given, and how version 2 gets it."""

from pathlib import Path
from typing import Any

import pytest

from pilotage.agent.core import groups, qos
from pilotage.agent.core.groups import GroupLimits
from pilotage.agent.runtime.cgroup import ControlGroups, GroupUsage
from pilotage.agent.runtime.fake_cgroup import make_group, unified_root

from .builders import make_pod

MI, GI = 1 << 20, 1 << 30


def using(limits: dict[str, str] | None = None, requests: dict[str, str] | None = None, name: str = "a") -> Any:
    return {"name": name, "resources": {"limits": limits or {}, "requests": requests or {}}}


BOTH = {"cpu": "500m", "memory": "64Mi"}
GUARANTEED = make_pod(using(BOTH, BOTH))
BURSTABLE = make_pod(using(BOTH, {"cpu": "100m", "memory": "32Mi"}), using(None, {"cpu": "50m"}, "b"))
BEST_EFFORT = make_pod("a")


@pytest.mark.parametrize(
    ("pod", "place", "limits"),
    [
        pytest.param(
            GUARANTEED, "podu1",
            GroupLimits(cpu_shares=512, cpu_quota_us=50_000, memory_max=64 * MI, memory_min=64 * MI, pids_max=4096),
            id="Guaranteed: bounded by what it asks for",
        ),
        pytest.param(
            BURSTABLE, "burstable/podu1",
            GroupLimits(cpu_shares=153, memory_min=32 * MI, pids_max=4096),
            id="Burstable with one container without limits: not bounded",
        ),
        pytest.param(BEST_EFFORT, "besteffort/podu1", GroupLimits(cpu_shares=2, pids_max=4096), id="BestEffort"),
        pytest.param(
            make_pod("a", "b", resources={"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}),
            "burstable/podu1",
            GroupLimits(cpu_shares=1024, cpu_quota_us=200_000, memory_max=GI, pids_max=4096),
            id="the pod speaks for its containers",
        ),
        pytest.param(
            make_pod(using(BOTH, BOTH), overhead={"cpu": "100m", "memory": "1Mi"}), "podu1",
            GroupLimits(cpu_shares=614, cpu_quota_us=60_000, memory_max=65 * MI, memory_min=65 * MI, pids_max=4096),
            id="overhead comes on top",
        ),
    ],
)  # fmt: skip
def test_groups_of_pods(pod: Any, place: str, limits: GroupLimits) -> None:
    assert groups.directory(pod) == place
    assert groups.of_pod(pod) == limits


def test_classes_weigh_what_their_pods_ask_for() -> None:
    found = groups.of_classes([GUARANTEED, BURSTABLE, BURSTABLE, BEST_EFFORT])
    assert found["burstable"] == GroupLimits(cpu_shares=307, memory_min=64 * MI)
    assert found["besteffort"] == GroupLimits(cpu_shares=2)
    node = groups.of_node([GUARANTEED, BURSTABLE], milli_cpu=2000, memory_bytes=GI)
    assert node == GroupLimits(cpu_shares=2048, memory_max=GI, memory_min=96 * MI)


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262_144, 10_000), (0, 1), (512, 59), (2048, 174)])
def test_weights(shares: int, weight: int) -> None:
    assert groups.cpu_weight(shares) == weight


def test_weights_keep_the_order_of_shares() -> None:
    weights = [groups.cpu_weight(shares) for shares in range(2, 20_000, 7)]
    assert weights == sorted(weights)


def test_memory_is_protected_and_slowed_down() -> None:
    def protection(pod: Any, allocatable: int = GI) -> dict[str, str]:
        return dict(groups.memory_protection(pod, pod.spec.containers[0], allocatable))

    assert protection(GUARANTEED) == {"memory.min": str(64 * MI)}
    high = int(32 * MI + 0.9 * 32 * MI) // 4096 * 4096
    assert protection(BURSTABLE) == {"memory.min": str(32 * MI), "memory.high": str(high)}
    without_limit = make_pod(using(None, {"memory": "100Mi"}))
    assert int(protection(without_limit)["memory.high"]) == int(100 * MI + 0.9 * (GI - 100 * MI)) // 4096 * 4096
    assert protection(BEST_EFFORT) == {}


def test_version_2_gets_the_hierarchy_and_hands_controllers_down(tmp_path: Path) -> None:
    root = unified_root(tmp_path / "cgroup")
    there = ControlGroups("/pilotage/c/n1", root=root, make=make_group)
    assert there.unified
    there.open_node([BURSTABLE], milli_cpu=2000, memory_bytes=GI)
    there.open_pod(BURSTABLE)
    node = root / "pilotage/c/n1"
    assert (node / "memory.max").read_text() == str(GI)
    assert (node / "cpu.weight").read_text() == "174"
    assert (node / "besteffort/cpu.weight").read_text() == "1"
    pod = node / "burstable/podu1"
    found = {name: (pod / name).read_text() for name in ("cpu.weight", "cpu.max", "memory.min", "memory.max")}
    assert found == {"cpu.weight": "24", "cpu.max": "max 100000", "memory.min": str(32 * MI), "memory.max": "max"}
    assert (pod / "pids.max").read_text() == "4096"
    for group in (root, root / "pilotage", root / "pilotage/c", node, node / "burstable", pod):
        assert (group / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert there.path("u1", "c1") == "/pilotage/c/n1/burstable/podu1/c1"


def test_version_2_tells_usage_and_kills(tmp_path: Path) -> None:
    root = unified_root(tmp_path / "cgroup")
    there = ControlGroups("/p/n1", root=root, make=make_group)
    there.open_pod(GUARANTEED)
    assert there.usage("u1") == GroupUsage()
    assert there.usage("nobody") == GroupUsage()
    group = root / "p/n1/podu1"
    (group / "memory.current").write_text("5000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 3000\n")
    (group / "pids.current").write_text("7\n")
    assert there.usage("u1") == GroupUsage(memory_bytes=2000, processes=7)
    make_group(group / "c1")
    assert not there.was_oom_killed("u1", "c1")
    (group / "c1/memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert there.was_oom_killed("u1", "c1")


def test_version_2_follows_a_pod_that_is_resized_unless_it_uses_more(tmp_path: Path) -> None:
    there = ControlGroups("/p/n1", root=unified_root(tmp_path / "cgroup"), make=make_group)

    def sized(cpu: str, memory: str) -> Any:
        return make_pod("a", resources={"requests": {"memory": "16Mi"}, "limits": {"cpu": cpu, "memory": memory}})

    there.open_pod(sized("2", "64Mi"))
    group = tmp_path / "cgroup/p/n1/burstable/podu1"
    (group / "memory.current").write_text(str(40 * MI))
    there.open_pod(sized("500m", "48Mi"))
    assert ((group / "cpu.max").read_text(), (group / "memory.max").read_text()) == ("50000 100000", str(48 * MI))
    with pytest.raises(OSError, match=f"pod memory limit .{32 * MI}. below current usage .{40 * MI}."):
        there.open_pod(sized("1", "32Mi"))
    assert ((group / "cpu.max").read_text(), (group / "memory.max").read_text()) == ("50000 100000", str(48 * MI))


def test_a_controller_that_the_machine_lacks_is_an_error(tmp_path: Path) -> None:
    there = ControlGroups("/p/n1", root=unified_root(tmp_path / "cgroup", "cpu memory"), make=make_group)
    with pytest.raises(FileNotFoundError):
        there.open_pod(GUARANTEED)


def test_the_pod_decides_its_class_and_shares_what_it_has() -> None:
    whole = {"requests": {"memory": "4Gi", "cpu": "1"}, "limits": {"memory": "4Gi", "cpu": "1"}}
    pod = make_pod("a", "b", resources=whole)
    assert qos.qos_class(pod) == "Guaranteed"
    part = make_pod(using(None, {"memory": "1Gi"}), "b", resources={"requests": {"memory": "4Gi"}})
    assert qos.qos_class(part) == "Burstable"
    # 3 GiB are nobody's: half of them for each container of an 8 GiB node.
    scores = [qos.oom_score_adjust(part, container, 8 * GI) for container in part.spec.containers]
    assert scores == [1000 - 1000 * 5 // 16, 1000 - 1000 * 3 // 16]


def test_only_what_the_node_cannot_do_without_is_never_killed() -> None:
    for name, score in (("system-node-critical", -997), ("system-cluster-critical", 1000)):
        pod = make_pod("a", priority=2_000_001_000, priorityClassName=name)
        assert qos.oom_score_adjust(pod, pod.spec.containers[0], GI) == score
