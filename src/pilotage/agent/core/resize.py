"""Changing a pod's resources while it runs (KEP-1287): what is asked for, what is granted, what is in force.

Stands apart because three sets of numbers live side by side: the specification's, those the node has granted
(`PodState.allocated`), and those each container is held to (`ContainerRecord.resources`). Everything on the node counts
with what is granted. Leaves out the control groups (`runtime`) and the question whether a user may ask (the API
server's).
"""

import json
from collections.abc import Mapping

import msgspec

from pilotage.agent.core import qos
from pilotage.agent.core.admission import NodeView, Rejection
from pilotage.agent.core.container import ContainerPhase
from pilotage.agent.core.pod_spec import containers_in_order
from pilotage.agent.core.state import ContainerRecord, PodState
from pilotage.api import quantity
from pilotage.api.codec import to_wire
from pilotage.api.core_v1 import Container, Pod, ResourceRequirements

RESIZABLE = ("cpu", "memory")


def asked_for(pod: Pod) -> dict[str, ResourceRequirements]:
    """By container, what the specification says now."""
    return {container.name: container.resources for container in containers_in_order(pod)}


def is_asked_for(pod: Pod, state: PodState) -> bool:
    """Whether the specification wants something else than what was granted."""
    return asked_for(pod) != {one.name: _granted(one, state.allocated) for one in containers_in_order(pod)}


def as_allocated(pod: Pod, state: PodState) -> Pod:
    """The pod as the node treats it: with the resources that were granted."""
    if not is_asked_for(pod, state):
        return pod
    replace = msgspec.structs.replace

    def granted(containers: tuple[Container, ...]) -> tuple[Container, ...]:
        return tuple(replace(one, resources=_granted(one, state.allocated)) for one in containers)

    spec = replace(pod.spec, containers=granted(pod.spec.containers), init_containers=granted(pod.spec.init_containers))
    return replace(pod, spec=spec)


def widest(pod: Pod, state: PodState) -> Pod:
    """The pod with the greater of what is granted and what is in force: no smaller may the group around it be."""
    replace = msgspec.structs.replace

    def wide(containers: tuple[Container, ...]) -> tuple[Container, ...]:
        found = []
        for container in containers:
            granted, record = _granted(container, state.allocated), state.record(container.name)
            held = record.resources if record.is_running and record.resources is not None else granted
            both = ResourceRequirements(
                limits=_greater(held.limits, granted.limits), requests=_greater(held.requests, granted.requests)
            )
            found.append(replace(container, resources=both))
        return tuple(found)

    spec = replace(pod.spec, containers=wide(pod.spec.containers), init_containers=wide(pod.spec.init_containers))
    return replace(pod, spec=spec)


def _greater(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """By name; what only one of them has is taken from it."""
    return {
        name: max(one.get(name, text), other.get(name, text), key=quantity.parse)
        for name, text in {**one, **other}.items()
    }


def _granted(container: Container, allocated: Mapping[str, ResourceRequirements]) -> ResourceRequirements:
    return allocated.get(container.name, container.resources)


def judge(pod: Pod, node: NodeView) -> Rejection | None:
    """None when the node can give what the pod asks for; else Infeasible (never) or Deferred (not now).

    `node.pods` are the other pods, as they are allocated.
    """
    wanted = qos.pod_requests(pod)
    for name in RESIZABLE:
        capacity = qos.amount(name, node.allocatable.get(name, "0"))
        if wanted.get(name, 0) > capacity:
            message = f"Node didn't have enough capacity: {name}, requested: {wanted[name]}, capacity: {capacity}"
            return Rejection(reason="Infeasible", message=message)
    for name in RESIZABLE:
        capacity = qos.amount(name, node.allocatable.get(name, "0"))
        used = sum(qos.pod_requests(other).get(name, 0) for other in node.pods)
        if wanted.get(name, 0) and wanted[name] + used > capacity:
            message = (
                f"Node didn't have enough resource: {name}, requested: {wanted[name]}, used: {used}, "
                f"capacity: {capacity}"
            )
            return Rejection(reason="Deferred", message=message)
    return None


def is_due(record: ContainerRecord, state: PodState) -> bool:
    """A running container is held to something else than what was granted."""
    return record.phase is ContainerPhase.RUNNING and _differs(record, state)


def under_way(state: PodState) -> tuple[ContainerRecord, ...]:
    """The containers that are not yet what was granted; none of them: a resize is complete."""
    return tuple(one for one in state.records if one.resizing or one.restart_asked or _differs(one, state))


def _differs(record: ContainerRecord, state: PodState) -> bool:
    wanted = state.allocated.get(record.name)
    return record.is_running and None not in (record.resources, wanted) and record.resources != wanted


def needs_restart(container: Container, record: ContainerRecord, state: PodState) -> bool:
    """Whether the container's resizePolicy asks for a restart for one of the resources that change."""
    before, after = record.resources or ResourceRequirements(), state.allocated[record.name]
    return any(
        policy.restart_policy == "RestartContainer" and _amounts(before, name) != _amounts(after, name)
        for policy in container.resize_policy
        for name in (policy.resource_name,)
    )


def _amounts(resources: ResourceRequirements, name: str) -> tuple[str | None, str | None]:
    return resources.requests.get(name), resources.limits.get(name)


def in_words(allocated: Mapping[str, ResourceRequirements], generation: int, error: str = "") -> str:
    """What is wanted, as events of the kubelet carry it."""
    told: dict[str, object] = {
        "containers": [{"name": name, "resources": to_wire(found)} for name, found in allocated.items()],
        "generation": generation,
    }
    if error:
        told["error"] = error
    return json.dumps(told, separators=(",", ":"))
