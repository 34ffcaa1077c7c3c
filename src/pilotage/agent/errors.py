"""What can go wrong with a pod, as the user sees it.

PilotageError
├─ StartRefused       a container cannot be created; carries the API's waiting reason
└─ MountFailure       a volume cannot be prepared
"""

from pilotage.kit.errors import PilotageError


class StartRefused(PilotageError):
    """`reason` is ErrImagePull, ErrImageNeverPull, InvalidImageName, CreateContainerConfigError or …Error."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MountFailure(PilotageError):
    """The message names the volume, as in a FailedMount event."""
