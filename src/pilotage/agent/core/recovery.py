"""What an agent makes of a pod's state that an earlier one left: nobody knows how far that one came.

Stands apart because it is a function of what was written down. Called by the worker, which asks the runtime for what
is really there.
"""

import msgspec

from pilotage.agent.core.state import ContainerExited, ContainerRecord, PodState
from pilotage.api.core_v1 import ResourceRequirements


def taken_up(state: PodState) -> PodState:
    """The state to go on from; what was under way is begun again."""
    replace = msgspec.structs.replace
    if state.sandbox in ("creating", "removing"):
        state = replace(state, sandbox="lost")
    if state.volumes == "mounting":
        state = replace(state, volumes="absent")
    # A group that nobody remembers the size of is set right.
    group = state.group if state.sandbox != "ready" else state.group or ResourceRequirements()
    return replace(state, deletion_told=False, group=group, group_resizing=False)


def lost(record: ContainerRecord, now: float) -> ContainerExited:
    """The end of a container that ran and that the runtime knows nothing of."""
    return ContainerExited(
        name=record.name,
        container_id=record.container_id,
        exit_code=137,
        reason="ContainerStatusUnknown",
        message="The container could not be located when the agent came back",
        started_at=record.started_at,
        at=now,
    )
