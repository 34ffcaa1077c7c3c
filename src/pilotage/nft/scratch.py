"""A place to try a transaction where nobody sees it: a network namespace that lasts as long as the call.

Stands apart because it is the one part of this package that makes a namespace. Called to learn how the kernel itself
would describe a structure, so that intent and reality are compared in the same words. Needs the right to make network
namespaces (root of the machine or of a user namespace).

Specification: unshare(2).
"""

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from pilotage.nft.errors import NftError

_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def in_scratch_network(function: Callable[[], T]) -> T:
    """Call `function` on a thread in a fresh network namespace and return what it returns."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            library = ctypes.CDLL(None, use_errno=True)
            if library.unshare(ctypes.c_int(_CLONE_NEWNET)):
                code = ctypes.get_errno()
                raise NftError(f"cannot make a network namespace to compare with: {os.strerror(code)}", code)
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    # A thread of its own: what it unshares ends with it.
    thread = threading.Thread(target=work, name="scratch network")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
