"""Resources that change while a pod runs: what the node grants, what running containers are held to, what is shown."""

from typing import Any

import msgspec
import pytest

from pilotage.agent.core import lifecycle, reception, resize
from pilotage.agent.core.actions import ResizeContainer, ResizeGroup
from pilotage.agent.core.admission import NodeView
from pilotage.agent.core.state import ContainerExited, ContainerResized, ResizeFailed, ResizeJudged
from pilotage.agent.core.status import patch
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Pod, ResourceRequirements

from .builders import Life, make_pod, starts, stops, told

SMALL = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
LARGE = {"requests": {"cpu": "300m", "memory": "32Mi"}, "limits": {"cpu": "400m", "memory": "64Mi"}}


def asking(pod: Pod, resources: dict[str, Any], generation: int = 2) -> Pod:
    """The pod after somebody resized its container `a`."""
    changed = tuple(
        msgspec.structs.replace(one, resources=convert(ResourceRequirements, resources)) if one.name == "a" else one
        for one in pod.spec.containers
    )
    metadata = msgspec.structs.replace(pod.metadata, generation=generation)
    return msgspec.structs.replace(pod, metadata=metadata, spec=msgspec.structs.replace(pod.spec, containers=changed))


def running(**own: Any) -> Life:
    spec = {"restartPolicy": own.pop("pod_policy", "Always")}
    life = Life(make_pod({"name": "a", "resources": SMALL, **own}, **spec))
    life.bring_up()
    life.started("a")
    return life


def judged(life: Life, reason: str = "", message: str = "") -> ResizeJudged:
    return ResizeJudged(
        allocated=resize.asked_for(life.pod),
        whole=life.pod.spec.resources,
        generation=life.pod.metadata.generation,
        reason=reason,
        message=message,
    )


def granted(life: Life) -> list[Any]:
    return life.step(judged(life))


def resized(life: Life) -> list[Any]:
    record = life.state.record("a")
    wanted = life.state.allocated["a"]
    return life.step(ContainerResized(name="a", container_id=record.container_id, resources=wanted))


def conditions(life: Life) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in life.status().conditions if "Resize" in one.type}


def test_a_running_container_is_held_to_what_was_granted_without_a_restart() -> None:
    life = running()
    life.pod = asking(life.pod, LARGE)
    assert life.step() == []  # nobody has granted it yet
    assert granted(life) == [ResizeContainer(name="a")]
    assert life.step() == []  # under way
    (status,) = life.status().container_statuses
    assert status.allocated_resources == LARGE["requests"]
    assert status.resources == convert(ResourceRequirements, SMALL)
    assert conditions(life) == {"PodResizeInProgress": ("True", "")}
    ((reason, message),) = told(resized(life))
    assert reason == "ResizeCompleted"
    assert message.endswith('"generation":2}')
    (status,) = life.status().container_statuses
    assert (status.resources, status.restart_count) == (convert(ResourceRequirements, LARGE), 0)
    assert conditions(life) == {}
    assert life.step() == []


@pytest.mark.parametrize("code", [0, 143], ids=["ends well", "is killed"])
def test_a_resize_policy_may_ask_for_a_restart_whatever_the_restart_policy_says(code: int) -> None:
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    life = running(resizePolicy=policy, pod_policy="OnFailure")
    life.pod = asking(life.pod, LARGE)
    actions = granted(life)
    assert stops(actions) == [("a", 30.0)]
    assert ("Killing", "Container a resize requires restart") in told(actions)
    assert starts(life.exited("a", code)) == ["a"]
    assert "PodResizeInProgress" in conditions(life)
    assert "ResizeCompleted" in dict(told(life.started("a")))
    (status,) = life.status().container_statuses
    assert (status.resources, status.restart_count) == (convert(ResourceRequirements, LARGE), 1)
    assert conditions(life) == {}


def test_a_policy_for_one_resource_says_nothing_about_the_other() -> None:
    life = running(resizePolicy=[{"resourceName": "memory", "restartPolicy": "RestartContainer"}])
    life.pod = asking(life.pod, LARGE)
    assert granted(life) == [ResizeContainer(name="a")]


def test_what_the_kernel_refuses_is_told_and_tried_again() -> None:
    life = running()
    life.pod = asking(life.pod, LARGE)
    granted(life)
    failed = ResizeFailed(name="a", container_id="a-0", message="device or resource busy", at=life.now)
    assert life.step(failed) == []
    condition = life.status().condition("PodResizeInProgress")
    assert condition is not None
    assert (condition.reason, condition.message) == ("Error", "device or resource busy")
    assert life.wake_at == life.now + reception.RESIZE_RETRY_S
    assert life.step(after_s=reception.RESIZE_RETRY_S) == [ResizeContainer(name="a")]


def test_a_container_that_starts_later_starts_with_what_was_granted() -> None:
    life = running()
    life.exited("a", 1)
    life.exited("a", 1)
    life.pod = asking(life.pod, LARGE)
    granted(life)
    life.now = life.wake_at or life.now
    life.step()
    life.started("a")
    (status,) = life.status().container_statuses
    assert status.resources == convert(ResourceRequirements, LARGE)
    assert conditions(life) == {}


def test_a_resize_of_a_container_that_ends_meanwhile_is_over() -> None:
    life = running()
    life.pod = asking(life.pod, LARGE)
    granted(life)
    life.step(
        ContainerExited(
            name="a", container_id="a-0", exit_code=1, reason="Error", message="", started_at=life.now, at=life.now
        ),
        ContainerResized(name="a", container_id="a-0", resources=life.state.allocated["a"]),
    )
    life.started("a")
    assert conditions(life) == {}


@pytest.mark.parametrize("reason", ["Deferred", "Infeasible"])
def test_what_cannot_be_granted_changes_nothing_but_a_condition(reason: str) -> None:
    life = running()
    life.pod = asking(life.pod, LARGE)
    life.step(judged(life, reason, "no room"))
    (status,) = life.status().container_statuses
    assert status.allocated_resources == SMALL["requests"]
    assert conditions(life) == {"PodResizePending": ("True", reason)}
    assert resize.as_allocated(life.pod, life.state).spec.containers[0].resources == convert(
        ResourceRequirements, SMALL
    )
    life.pod = asking(life.pod, SMALL, generation=3)  # the user gives in
    assert granted(life) == []
    assert conditions(life) == {}


def test_conditions_that_are_over_are_taken_away() -> None:
    life = running()
    sent = patch(life.pod, life.status())["status"]["conditions"]
    assert {"$patch": "delete", "type": "PodResizePending"} in sent
    life.step(judged(life, "Deferred", "no room"))
    sent = patch(life.pod, life.status())["status"]["conditions"]
    assert {"$patch": "delete", "type": "PodResizePending"} not in sent
    assert {"$patch": "delete", "type": "PodResizeInProgress"} in sent


def test_the_group_around_a_pod_is_never_smaller_than_what_is_in_it() -> None:
    life = running()
    life.pod = asking(life.pod, {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": SMALL["limits"]})
    granted(life)
    held = resize.widest(life.pod, life.state).spec.containers[0].resources
    assert held.requests == {"cpu": "100m", "memory": "64Mi"}
    resized(life)
    held = resize.widest(life.pod, life.state).spec.containers[0].resources
    assert held.requests == {"cpu": "50m", "memory": "64Mi"}


# ── the pod as a whole (KEP-5419) ───────────────────────────────────────────────────────────────────────────────────


def whole(cpu: str, memory: str = "64Mi") -> dict[str, Any]:
    return {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": cpu, "memory": memory}}


def sharing(*containers: dict[str, Any]) -> Life:
    """A pod that limits itself as a whole to two cores, whose containers run."""
    life = Life(make_pod(*containers, resources=whole("2")))
    life.bring_up()
    for container in containers:
        life.started(container["name"])
    return life


def asking_as_a_whole(life: Life, cpu: str, memory: str = "64Mi") -> list[Any]:
    wanted = convert(ResourceRequirements, whole(cpu, memory))
    metadata = msgspec.structs.replace(life.pod.metadata, generation=2)
    spec = msgspec.structs.replace(life.pod.spec, resources=wanted)
    life.pod = msgspec.structs.replace(life.pod, metadata=metadata, spec=spec)
    return granted(life)


def held_to(life: Life, name: str = "a") -> dict[str, str]:
    record = life.state.record(name)
    assert record.resources is not None
    return resize.with_inherited(record.resources, record.inherited).limits


def kernel_resizes(life: Life, name: str = "a") -> list[Any]:
    record, own = life.state.record(name), life.state.allocated[name]
    inherited = resize.inherited(own, life.state.allocated_whole)
    return life.step(ContainerResized(name=name, container_id=record.container_id, resources=own, inherited=inherited))


def test_the_pod_as_a_whole_is_held_to_what_was_granted_and_its_containers_with_it() -> None:
    life = sharing({"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "500m", "memory": "32Mi"}}})
    assert (held_to(life), held_to(life, "b")) == ({"cpu": "2", "memory": "64Mi"}, {"cpu": "500m", "memory": "32Mi"})
    assert asking_as_a_whole(life, "4") == [ResizeContainer(name="a")]  # `b` has limits of its own
    assert life.groups[-1].limits == {"cpu": "4", "memory": "64Mi"}  # grown before its containers
    status = life.status()
    assert (status.allocated_resources, status.resources) == ({"cpu": "100m", "memory": "32Mi"}, life.groups[-1])
    assert conditions(life) == {"PodResizeInProgress": ("True", "")}
    ((reason, message),) = told(kernel_resizes(life))
    assert reason == "ResizeCompleted"
    assert '"resources":{"limits":{"cpu":"4","memory":"64Mi"}' in message
    assert (held_to(life), conditions(life)) == ({"cpu": "4", "memory": "64Mi"}, {})
    sent = patch(life.pod, life.status())["status"]
    assert sent["resources"]["limits"] == {"cpu": "4", "memory": "64Mi"}
    assert sent["allocatedResources"] == {"cpu": "100m", "memory": "32Mi"}


def test_the_pod_as_a_whole_shrinks_after_its_containers() -> None:
    life = sharing({"name": "a"})
    assert asking_as_a_whole(life, "1") == [ResizeContainer(name="a")]
    assert life.groups == []
    assert life.status().resources == convert(ResourceRequirements, whole("2"))
    assert "PodResizeInProgress" in conditions(life)
    assert told(kernel_resizes(life))[0][0] == "ResizeCompleted"
    assert [one.limits["cpu"] for one in life.groups] == ["1"]
    assert life.status().resources == convert(ResourceRequirements, whole("1"))


def test_the_group_is_resized_before_any_container_of_the_same_decision() -> None:
    life = sharing({"name": "a"})
    spec = msgspec.structs.replace(life.pod.spec, resources=convert(ResourceRequirements, whole("4")))
    life.pod = msgspec.structs.replace(life.pod, spec=spec)
    state = reception.receive(life.pod, life.state, judged(life))
    assert lifecycle.decide(life.pod, state, life.now).actions == (ResizeGroup(), ResizeContainer(name="a"))


def test_a_container_that_shares_the_pods_limit_may_ask_for_a_restart_when_it_changes() -> None:
    life = sharing({"name": "a", "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]})
    assert asking_as_a_whole(life, "2", "128Mi") == [ResizeContainer(name="a")]
    kernel_resizes(life)
    assert stops(asking_as_a_whole(life, "4", "128Mi")) == [("a", 30.0)]
    assert starts(life.exited("a", 143)) == ["a"]
    assert "ResizeCompleted" in dict(told(life.started("a")))
    assert held_to(life) == {"cpu": "4", "memory": "128Mi"}
    assert life.groups[-1].limits == {"cpu": "4", "memory": "128Mi"}


def test_a_group_that_the_kernel_does_not_shrink_is_told_and_tried_again() -> None:
    life = sharing({"name": "a", "resources": {"limits": {"cpu": "1", "memory": "16Mi"}}})
    life.group_refusal = "device or resource busy"
    assert asking_as_a_whole(life, "2", "32Mi") == []
    condition = life.status().condition("PodResizeInProgress")
    assert condition is not None
    assert (condition.reason, condition.message) == ("Error", "device or resource busy")
    assert life.status().resources == convert(ResourceRequirements, whole("2"))
    assert life.wake_at == life.now + reception.RESIZE_RETRY_S
    assert "ResizeCompleted" in dict(told(life.step(after_s=reception.RESIZE_RETRY_S)))
    assert conditions(life) == {}
    life.group_refusal = "device or resource busy"
    asking_as_a_whole(life, "2", "24Mi")
    asking_as_a_whole(life, "2", "32Mi")  # the user gives in
    assert conditions(life) == {}


def test_a_pod_without_resources_of_its_own_shows_those_of_its_containers_together() -> None:
    life = running()
    assert life.status().resources == convert(ResourceRequirements, SMALL)
    assert life.status().allocated_resources == SMALL["requests"]


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ("1", None),
        ("1500m", ("Deferred", "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000")),
        ("3", ("Infeasible", "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000")),
    ],
)
def test_the_node_judges(cpu: str, expected: tuple[str, str] | None) -> None:
    other = make_pod({"name": "b", "resources": {"requests": {"cpu": "1"}}})
    view = NodeView(
        name="n1", labels={}, taints=(), allocatable={"cpu": "2", "memory": "1Gi", "pods": "2"}, pods=(other,)
    )
    found = resize.judge(make_pod({"name": "a", "resources": {"requests": {"cpu": cpu}}}), view)
    assert (found and (found.reason, found.message)) == expected
