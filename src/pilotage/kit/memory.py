"""Memory that a process has taken and needs no more.

Apart because it speaks to the C library. Called by whoever made much at its start and lives long; leaves out everything
that Python's own allocator keeps.

Specification: malloc_trim(3).
"""

import ctypes


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can; takes milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
