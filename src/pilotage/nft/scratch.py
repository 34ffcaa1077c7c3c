"""A place to try a transaction where nobody sees it: a network namespace that lasts as long as the call.

Stands apart because it is the one part of this package that makes a namespace. Called to learn how the kernel itself
would describe a structure, so that intent and reality are compared in the same words. Needs the right to make network
namespaces (root of the machine or of a user namespace).

Specification: unshare(2).
"""

import ctypes
import os
from collections.abc import Callable
from typing import TypeVar

from pilotage.kit.threads import on_own_thread
from pilotage.nft.errors import NftError

_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def in_scratch_network(function: Callable[[], T]) -> T:
    """Call `function` on a thread in a fresh network namespace and return what it returns."""

    def inside() -> T:
        library = ctypes.CDLL(None, use_errno=True)
        if library.unshare(ctypes.c_int(_CLONE_NEWNET)):
            code = ctypes.get_errno()
            raise NftError(f"cannot make a network namespace to compare with: {os.strerror(code)}", code)
        return function()

    return on_own_thread(inside, name="scratch network")
