"""What can go wrong between us and nf_tables.

PilotageError
└─ NftError            the kernel (or libnftables on its behalf) refused a transaction, which then had no effect
"""

from pilotage.kit import PilotageError


class NftError(PilotageError):
    """A transaction was refused as a whole. `errno` is the kernel's code, 0 when only text is known."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message[:500])
        self.errno = errno
