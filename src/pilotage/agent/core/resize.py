"""Changing a pod's resources while it runs (KEP-1287, KEP-5419): what is asked for, what is granted, what is in force.

Stands apart because three sets of numbers live side by side, for each container and for the pod as a whole: the
specification's, those the node has granted (`PodState.allocated`, `allocated_whole`), and those each container and the
group around them is held to (`ContainerRecord.resources`, `PodState.group`). Everything on the node counts with what is
granted. The group around them grows first and shrinks last. A container without a limit of its own is held to the
pod's. Leaves out the control groups (`runtime`) and the question whether a user may ask (the API server's).
"""

import json
from collections.abc import Mapping
from decimal import Decimal

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


def is_as_before(before: Pod, pod: Pod) -> bool:
    """Whether two versions of a pod ask for the same."""
    return asked_for(before) == asked_for(pod) and before.spec.resources == pod.spec.resources


def is_asked_for(pod: Pod, state: PodState) -> bool:
    """Whether the specification wants something else than what was granted."""
    granted = {one.name: _granted(one, state.allocated) for one in containers_in_order(pod)}
    return asked_for(pod) != granted or pod.spec.resources != state.allocated_whole


def as_allocated(pod: Pod, state: PodState) -> Pod:
    """The pod as the node treats it: with the resources that were granted."""
    if not is_asked_for(pod, state):
        return pod
    replace = msgspec.structs.replace

    def granted(containers: tuple[Container, ...]) -> tuple[Container, ...]:
        return tuple(replace(one, resources=_granted(one, state.allocated)) for one in containers)

    spec = replace(
        pod.spec,
        containers=granted(pod.spec.containers),
        init_containers=granted(pod.spec.init_containers),
        resources=state.allocated_whole,
    )
    return replace(pod, spec=spec)


def widest(pod: Pod, state: PodState) -> Pod:
    """The pod with the greater of what is granted and what is in force: no smaller may the group around it be."""
    replace = msgspec.structs.replace
    whole = state.allocated_whole
    for record in state.records:
        if record.is_running and record.resources is not None:
            held = with_inherited(record.resources, record.inherited).limits
            held = {name: amount for name, amount in held.items() if name in whole.limits}
            whole = replace(whole, limits=_greater(held, whole.limits))

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

    spec = replace(
        pod.spec,
        containers=wide(pod.spec.containers),
        init_containers=wide(pod.spec.init_containers),
        resources=whole,
    )
    return replace(pod, spec=spec)


def of_group(pod: Pod) -> ResourceRequirements:
    """What the pod's containers have together, in the notation of the API."""
    return ResourceRequirements(limits=_in_text(qos.pod_limits(pod)), requests=_in_text(qos.pod_requests(pod)))


def _in_text(amounts: Mapping[str, int]) -> dict[str, str]:
    return {
        name: quantity.render(Decimal(amount) / 1000) if name == "cpu" else quantity.render(amount, binary=True)
        for name, amount in amounts.items()
    }


def inherited(own: ResourceRequirements, whole: ResourceRequirements) -> dict[str, str]:
    """The limits of the pod as a whole that a container is held to because it has none of its own (KEP-2837)."""
    return {name: whole.limits[name] for name in RESIZABLE if name in whole.limits and name not in own.limits}


def with_inherited(own: ResourceRequirements, inherited: Mapping[str, str]) -> ResourceRequirements:
    """All that a container is held to."""
    return msgspec.structs.replace(own, limits={**own.limits, **inherited})


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


def under_way(state: PodState) -> bool:
    """A container, or the group around them, is not yet what was granted."""
    containers = any(one.resizing or one.restart_asked or _differs(one, state) for one in state.records)
    return containers or state.group_resizing or bool(state.group_error)


def error(state: PodState) -> str:
    """Why a resize does not come forward; empty while it does."""
    found = (one.resize_error for one in state.records if one.resize_error and _differs(one, state))
    return next(found, "") or state.group_error


def _differs(record: ContainerRecord, state: PodState) -> bool:
    wanted = state.allocated.get(record.name)
    if not record.is_running or record.resources is None or wanted is None:
        return False
    return record.resources != wanted or record.inherited != inherited(wanted, state.allocated_whole)


def needs_restart(container: Container, record: ContainerRecord, state: PodState) -> bool:
    """Whether the container's resizePolicy asks for a restart for one of the resources that change."""
    before = with_inherited(record.resources or ResourceRequirements(), record.inherited)
    granted = state.allocated[record.name]
    after = with_inherited(granted, inherited(granted, state.allocated_whole))
    return any(
        policy.restart_policy == "RestartContainer" and _amounts(before, name) != _amounts(after, name)
        for policy in container.resize_policy
        for name in (policy.resource_name,)
    )


def _amounts(resources: ResourceRequirements, name: str) -> tuple[str | None, str | None]:
    return resources.requests.get(name), resources.limits.get(name)


def in_words(
    allocated: Mapping[str, ResourceRequirements],
    whole: ResourceRequirements,
    generation: int,
    error: str = "",
) -> str:
    """What is wanted, as events of the kubelet carry it."""
    told: dict[str, object] = {
        "containers": [{"name": name, "resources": to_wire(found)} for name, found in allocated.items()],
        "generation": generation,
    }
    if whole.requests or whole.limits:
        told = {"resources": to_wire(whole), **told}
    if error:
        told["error"] = error
    return json.dumps(told, separators=(",", ":"))
