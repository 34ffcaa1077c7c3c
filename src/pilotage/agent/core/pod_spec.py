"""A pod's specification as the life of its containers reads it: which ones there are, and which of them run again.

Stands apart because deciding, showing and resource accounting ask the same questions. Leaves out everything about
time: when a container runs again is `lifecycle`'s.
"""

from pilotage.agent.core.container import ContainerPhase
from pilotage.agent.core.state import ContainerRecord, PodState
from pilotage.api.core_v1 import Container, ContainerRestartRule, EphemeralContainer, Pod


def is_sidecar(pod: Pod, container: Container) -> bool:
    """An init container that keeps running beside the main ones (KEP-753)."""
    return container.restart_policy == "Always" and is_init(pod, container)


def is_init(pod: Pod, container: Container) -> bool:
    """An init container, sidecars among them."""
    return any(one.name == container.name for one in pod.spec.init_containers)


def containers_in_order(pod: Pod) -> tuple[Container, ...]:
    """Init containers, then containers."""
    return (*pod.spec.init_containers, *pod.spec.containers)


def all_containers(pod: Pod) -> tuple[Container, ...]:
    """Those, and the ones that were added to look into the pod; these count for nothing but themselves."""
    return (*containers_in_order(pod), *pod.spec.ephemeral_containers)


def container_named(pod: Pod, name: str) -> Container:
    """The container of that name; raises `KeyError`."""
    for container in all_containers(pod):
        if container.name == name:
            return container
    raise KeyError(name)


def field_path(pod: Pod, name: str) -> str:
    """Where a container stands in its pod, as events refer to it."""
    for field, containers in (
        ("initContainers", pod.spec.init_containers),
        ("ephemeralContainers", pod.spec.ephemeral_containers),
    ):
        if any(one.name == name for one in containers):
            return f"spec.{field}{{{name}}}"
    return f"spec.containers{{{name}}}"


def should_restart(pod: Pod, container: Container, record: ContainerRecord) -> bool:
    """Whether an exited container runs again: its own rules, then its own policy, then the pod's (KEP-5307)."""
    if isinstance(container, EphemeralContainer):
        return False
    if record.restart_asked:
        return True
    exit_code = record.termination.exit_code if record.termination is not None else 0
    if is_sidecar(pod, container):
        return True
    init = is_init(pod, container)
    if init and exit_code == 0:
        return False
    if any(_matches(rule, exit_code) for rule in container.restart_policy_rules):
        return True
    policy = container.restart_policy or pod.spec.restart_policy
    if init:
        return policy != "Never"
    return policy == "Always" or (exit_code != 0 and policy == "OnFailure")


def _matches(rule: ContainerRestartRule, exit_code: int) -> bool:
    if rule.action != "Restart" or rule.exit_codes is None:
        return False
    found = exit_code in rule.exit_codes.values
    return found if rule.exit_codes.operator == "In" else not found


def is_over(pod: Pod, state: PodState) -> bool:
    """No container will ever run again unless somebody changes the pod: an init container or all main ones ended."""
    for container in pod.spec.init_containers:
        record = state.record(container.name)
        if (
            record.phase is ContainerPhase.EXITED
            and not is_sidecar(pod, container)
            and record.termination is not None
            and record.termination.exit_code != 0
            and not should_restart(pod, container, record)
            and not state.initialized
        ):
            return True
    return all(
        state.record(container.name).phase is ContainerPhase.EXITED
        and not should_restart(pod, container, state.record(container.name))
        for container in pod.spec.containers
    )


def verdict(pod: Pod, state: PodState) -> str:
    """Succeeded or Failed, for a pod none of whose processes is left."""
    if state.ended:
        return "Failed"
    mains = [state.record(container.name) for container in pod.spec.containers]
    succeeded = all(record.termination is not None and record.termination.exit_code == 0 for record in mains)
    return "Succeeded" if succeeded else "Failed"
