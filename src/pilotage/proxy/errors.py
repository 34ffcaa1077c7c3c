"""What can go wrong between the proxy and the technology that carries out its plans.

PilotageError
└─ BackendError        a change was refused and had no visible effect; nf_tables says the same with `NftError`
"""

from pilotage.kit import PilotageError


class BackendError(PilotageError):
    """The change was refused as a whole, or the tools that would carry it out are not there."""

    def __init__(self, message: str) -> None:
        super().__init__(message[:500])
