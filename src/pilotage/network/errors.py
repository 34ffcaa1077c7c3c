"""What can go wrong with the node's plumbing, as those who retry see it.

NetworkError            the kernel refused; `code` is the errno, the text says which step
└─ NamespaceGone        the namespace a step needs does not exist: set it up anew rather than retry the step
"""

from pilotage.kit import PilotageError


class NetworkError(PilotageError):
    """The kernel refused a step. The message names the step; `code` is the errno (0 when there is none)."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class NamespaceGone(NetworkError):
    """The namespace is not there (any more)."""
