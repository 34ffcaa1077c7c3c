"""Blocking kernel work on a thread, ended before anybody else goes on.

Apart because proxier and auditor need the same care: a call that is cancelled is still at work in the kernel seam.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


async def in_thread(function: Callable[..., R], *arguments: object) -> R:
    """Run `function` on a thread. When cancelled it still ends first, so that nobody else meets the kernel seam, or
    finds it closed, in the middle of a transaction."""
    work = asyncio.get_running_loop().run_in_executor(None, functools.partial(function, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
