"""What the core asks of its shell: one value per thing to do.

Stands apart so that the shell and the tests can speak of actions without the deciding. Each docstring says what must
be reported back, and how.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MountVolumes:
    """Prepare every volume, then report `VolumesMounted` or `VolumesFailed`. Independent of the sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSandbox:
    """Create namespaces and network, then report `SandboxReady` or `SandboxFailed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer:
    """Get the image, create, start, run postStart; report `ContainerStarted`, `…Refused` or `…Exited`."""

    name: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopContainer:
    """Run preStop, send the stop signal, kill after `grace_s` in all; a second one of the same name replaces the first.

    `ContainerExited` is reported by whoever watches the process, not by this action.
    """

    name: str
    grace_s: float
    hurry: bool = False  # it was asked before: no hook, no signal, only the nearer deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeContainer:
    """Hold the running container to what the node has granted; report `ContainerResized` or `ResizeFailed`."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeGroup:
    """Hold the pod's group to what it needs now, at once: before any container of this decision is resized or started.

    Report `GroupResized` or `GroupResizeFailed`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSandbox:
    """Take down network, namespaces and volumes (no process is left); report `SandboxRemoved`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmDeletion:
    """Delete the object from the API with grace period 0, guarded by its uid, after the last status was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordEvent:
    """Tell the user by an Event."""

    type: str
    reason: str
    message: str
    container: str = ""  # empty: about the pod


Action = (
    MountVolumes
    | CreateSandbox
    | StartContainer
    | StopContainer
    | ResizeContainer
    | ResizeGroup
    | RemoveSandbox
    | ConfirmDeletion
    | RecordEvent
)
