"""Runs a coroutine as the whole of a process: which event loop, and what signals do.

Apart from the zygote because the stand-alone commands run components the same way.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable


def run_async(main: Callable[[], Awaitable[object]], *, spawns_processes: bool = False) -> int:
    """Run what `main` makes; SIGTERM and SIGINT cancel it. 0: it ended or was cancelled.

    On uvloop, except for a component that spawns many processes: uvloop (0.23) lets children inherit its ends of their
    own pipes, so that a grandchild which lives on keeps them from ever ending.
    """

    async def until_signalled() -> int:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            await main()
        except asyncio.CancelledError:
            return 0
        return 0

    with asyncio.Runner(loop_factory=_plain_loop if spawns_processes else _fast_loop) as runner:
        return runner.run(until_signalled())


def _plain_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if sys.version_info < (3, 12):  # later versions wait for children by descriptor of their own accord
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(loop)
        asyncio.set_child_watcher(watcher)
    return loop


def _fast_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()
