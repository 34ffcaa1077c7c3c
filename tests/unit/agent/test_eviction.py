"""When a node is short of something, and whose turn it is to go."""

from typing import Any

import pytest

from pilotage.agent.core import ephemeral, eviction, garbage
from pilotage.agent.core.allocatable import allocatable, for_pods
from pilotage.agent.core.eviction import Observation, PressureState, Settings, Threshold, ThresholdError, Usage
from pilotage.agent.core.garbage import ImageUse, Policy
from pilotage.api.core_v1 import Pod

from .builders import make_pod

MI, GI = 1 << 20, 1 << 30


class Node:
    """One signal, and what is looked at next."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**({"hard": {}} | settings))
        self.state = PressureState()
        self.now = 0.0

    def look(self, signal: str, available: int, *, after_s: float = 0.0) -> tuple[set[str], list[str]]:
        self.now += after_s
        seen = {signal: Observation(available=available, capacity=100 * MI)}
        verdict = eviction.look(self.settings.thresholds(), self.settings, seen, self.state, self.now)
        self.state = verdict.state
        return set(verdict.conditions), [one.signal for one in verdict.pressing]


NOTHING: tuple[set[str], list[str]] = (set(), [])


def test_a_hard_threshold_presses_at_once_and_its_condition_outlasts_it() -> None:
    node = Node(hard={"memory.available": "10%"}, pressure_transition_s=30.0)
    assert node.look("memory.available", 10 * MI) == NOTHING
    assert node.look("memory.available", 10 * MI - 1) == ({"MemoryPressure"}, ["memory.available"])
    assert node.look("memory.available", 50 * MI, after_s=10) == ({"MemoryPressure"}, [])
    assert node.look("memory.available", 50 * MI, after_s=19) == ({"MemoryPressure"}, [])
    assert node.look("memory.available", 50 * MI, after_s=1) == NOTHING


def test_a_soft_threshold_presses_after_its_grace_and_starts_anew() -> None:
    node = Node(soft={"nodefs.available": "20Mi"}, soft_grace_s={"nodefs.available": 60.0}, pressure_transition_s=0.0)
    assert node.look("nodefs.available", MI) == ({"DiskPressure"}, [])
    assert node.look("nodefs.available", MI, after_s=59) == ({"DiskPressure"}, [])
    assert node.look("nodefs.available", 30 * MI, after_s=0.5) == NOTHING
    assert node.look("nodefs.available", MI, after_s=0.5) == ({"DiskPressure"}, [])
    assert node.look("nodefs.available", MI, after_s=60) == ({"DiskPressure"}, ["nodefs.available"])


def test_a_minimum_is_reclaimed_before_it_is_enough() -> None:
    node = Node(
        hard={"imagefs.available": "10Mi"}, minimum_reclaim={"imagefs.available": "5Mi"}, pressure_transition_s=0.0
    )
    assert node.look("imagefs.available", 12 * MI) == NOTHING
    assert node.look("imagefs.available", 9 * MI)[1] == ["imagefs.available"]
    assert node.look("imagefs.available", 14 * MI)[1] == ["imagefs.available"]
    assert node.look("imagefs.available", 15 * MI) == NOTHING
    assert node.look("imagefs.available", 12 * MI) == NOTHING


@pytest.mark.parametrize(
    ("signal", "condition"), [(name, condition) for name, (condition, _) in eviction.SIGNALS.items()]
)
def test_every_signal_has_its_condition(signal: str, condition: str) -> None:
    assert Node(hard={signal: "50%"}).look(signal, 1)[0] == {condition}


def test_memory_is_the_most_urgent() -> None:
    settings = Settings(hard={"pid.available": "50%", "nodefs.available": "50%", "memory.available": "50%"})
    seen = {name: Observation(available=1, capacity=100) for name in eviction.SIGNALS}
    verdict = eviction.look(settings.thresholds(), settings, seen, PressureState(), 0.0)
    order = ["memory.available", "allocatableMemory.available", "nodefs.available", "pid.available"]
    assert [one.signal for one in verdict.pressing] == order
    assert verdict.conditions == set(eviction.CONDITIONS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hard": {"disk.free": "1"}}, "unknown eviction signal disk.free"),
        ({"hard": {"pid.available": "x"}}, "eviction threshold pid.available: 'x' is no quantity and no share"),
        ({"soft": {"pid.available": "1"}}, "soft eviction threshold pid.available needs a grace period"),
    ],
)
def test_thresholds_that_make_no_sense_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ThresholdError) as error:
        Settings(**settings).thresholds()
    assert str(error.value) == message


def pod(name: str, priority: int = 0, **requests: str) -> Pod:
    asked = {key.replace("_", "-"): value for key, value in requests.items()}
    container = {"name": "a", "resources": {"requests": asked}}
    return make_pod(container, metadata={"name": name, "uid": name}, priority=priority)


def test_who_exceeds_his_request_goes_first_then_priority_then_the_greatest_excess() -> None:
    pods = [
        (pod("within-low", -5, memory="1Gi"), Usage(memory_bytes=GI)),
        (pod("within-big", 0, memory="2Gi"), Usage(memory_bytes=GI)),
        (pod("above-high", 9, memory="1Mi"), Usage(memory_bytes=GI)),
        (pod("above-little", 0, memory="900Mi"), Usage(memory_bytes=GI)),
        (pod("above-much", 0), Usage(memory_bytes=GI)),
        (pod("critical", 2_000_000_000), Usage(memory_bytes=9 * GI)),
    ]
    found = [one.metadata.name for one in eviction.rank(pods, "memory.available")]
    assert found == ["above-much", "above-little", "above-high", "within-low", "within-big"]
    assert found == [one.metadata.name for one in eviction.rank(pods[::-1], "allocatableMemory.available")]


def test_disks_count_what_was_asked_for_and_processes_only_priority() -> None:
    pods = [
        (pod("asked", 0, ephemeral_storage="2Gi"), Usage(disk_bytes=GI, processes=9)),
        (pod("not-asked", 5), Usage(disk_bytes=MI, processes=500)),
        (pod("few", 0), Usage(processes=1)),
    ]
    assert [one.metadata.name for one in eviction.rank(pods, "nodefs.available")] == ["not-asked", "few", "asked"]
    assert [one.metadata.name for one in eviction.rank(pods, "pid.available")] == ["asked", "few", "not-asked"]
    pods = [(pod("some"), Usage(inodes=5)), (pod("many"), Usage(inodes=50))]
    assert [one.metadata.name for one in eviction.rank(pods, "nodefs.inodesFree")] == ["many", "some"]


def test_the_words_of_an_eviction() -> None:
    threshold = Threshold(signal="memory.available", amount="100Mi")
    seen = Observation(available=40 * MI, capacity=GI)
    container = {"name": "a", "resources": {"requests": {"memory": "16Mi"}}}
    found = eviction.message(threshold, seen, make_pod(container, "b"), {"a": Usage(memory_bytes=512 * MI)})
    assert found == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 40960Ki. "
        "Container a was using 524288Ki, request is 16Mi, has larger consumption of memory. "
    )
    threshold = Threshold(signal="pid.available", amount="10%")
    found = eviction.message(threshold, Observation(available=5, capacity=100), make_pod("a"), {})
    assert found == "The node was low on resource: pids. Threshold quantity: 10, available: 5. "


def test_limits_of_local_storage() -> None:
    def limited(limit: str, name: str = "a") -> dict[str, Any]:
        return {"name": name, "resources": {"limits": {"ephemeral-storage": limit}}}

    one = make_pod(limited("10Mi"), "b")
    assert ephemeral.is_limited(one)
    assert not ephemeral.is_limited(make_pod("a", volumes=[{"name": "v", "emptyDir": {}}]))
    assert ephemeral.exceeded(one, {}, {"a": 10 * MI, "b": GI}) == ""
    assert ephemeral.exceeded(one, {}, {"a": 11 * MI}) == (
        'Container a exceeded its local ephemeral storage limit "10Mi". '
    )
    both = make_pod(limited("10Mi"), limited("10Mi", "b"), volumes=[{"name": "v", "emptyDir": {}}])
    assert ephemeral.exceeded(both, {"v": 15 * MI}, {"a": 6 * MI}) == (
        "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi. "
    )
    sized = make_pod("a", volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}])
    assert ephemeral.exceeded(sized, {"v": 2 * MI}, {}) == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '


def test_allocatable() -> None:
    capacity = {"cpu": "4", "memory": "8388608Ki", "ephemeral-storage": "1000000Ki", "pods": "110"}
    reserved = {"cpu": "100m", "memory": "1Gi"}
    found = allocatable(
        capacity,
        kube_reserved=reserved,
        system_reserved={"cpu": "400m", "ephemeral-storage": "100000Ki"},
        eviction_hard={"memory.available": "100Mi", "nodefs.available": "10%"},
    )
    assert found == {
        "cpu": "3500m",
        "memory": f"{8388608 - 1024 * 1024 - 100 * 1024}Ki",
        "ephemeral-storage": "800000Ki",
        "pods": "110",
    }
    assert allocatable(capacity, kube_reserved={}, system_reserved={}, eviction_hard={}) == capacity
    greedy = allocatable(capacity, kube_reserved={"cpu": "5"}, system_reserved={}, eviction_hard={})
    assert greedy["cpu"] == "0"
    assert for_pods(capacity, reserved) == {
        "cpu": 3900, "memory": 7 * GI, "ephemeral-storage": 1000000 * 1024, "pods": 110
    }  # fmt: skip


def image(name: str, size: int, last_used: float = 0.0, *, in_use: bool = False, detected: float = 0.0) -> ImageUse:
    return ImageUse(digest=name, size_bytes=size, in_use=in_use, last_used=last_used, detected=detected)


IMAGES = [
    image("recent", 10, 90.0), image("older", 10, 50.0), image("never", 5), image("busy", 99, in_use=True),
    image("fresh", 50, 0.0, detected=950.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("available", "chosen", "failure"),
    [
        pytest.param(16, (), "", id="84 % used: nothing goes"),
        pytest.param(15, ("never",), "", id="85 %: down to 80 %, who was never used first"),
        pytest.param(14, ("never", "older"), "", id="then by last use"),
        pytest.param(
            0, ("never", "older", "recent"), "", id="what has just come and what is used stay",
        ),
    ],
)  # fmt: skip
def test_images_go_by_last_use(available: int, chosen: tuple[str, ...], failure: str) -> None:
    found = garbage.choose(IMAGES, Policy(), available=available, capacity=100, now=1000.0)
    assert (found.digests, found.failure) == (chosen, failure)


def test_too_little_to_collect_is_said() -> None:
    found = garbage.choose(IMAGES[:1], Policy(), available=0, capacity=100, now=1000.0)
    assert found.failure == (
        "Failed to garbage collect required amount of images. Attempted to free 20 bytes, "
        "but only found 10 bytes eligible to free."
    )


def test_old_images_go_although_there_is_room() -> None:
    found = garbage.choose(IMAGES, Policy(age_s_max=940.0), available=90, capacity=100, now=1000.0)
    assert found.digests == ("never", "older")
    assert garbage.all_unused(IMAGES) == ("never", "fresh", "older", "recent")
