"""Several DNS processes on the same ports, for a machine with cores to spare.

One interpreter uses one core. With SO_REUSEPORT the kernel spreads clients over processes by their address and port;
each is a whole server with its own watch, table and watermark, so that nothing is shared and nothing can disagree for
longer than two watches do. The price is the memory of each. This parent only starts, ends and watches over them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pilotage.kit.errors import PilotageError
from pilotage.kit.tasks import task_set

WORKERS_MAX = 64
END_S = 10.0
"""For a worker to end after SIGTERM, before it is killed."""


class WorkerEnded(PilotageError):
    """A worker ended by itself: all end, and whoever started us starts us again."""


async def run_workers(commands: Sequence[Sequence[str]]) -> None:
    """Run one process a command until cancelled. Raises `WorkerEnded` as soon as one ends."""
    processes: list[asyncio.subprocess.Process] = []
    ended: asyncio.Queue[int] = asyncio.Queue()

    async def watch(process: asyncio.subprocess.Process) -> None:
        ended.put_nowait(await process.wait())

    try:
        async with task_set() as tasks:
            for words in commands:
                # setpriv(1): a worker ends with this process however that ends.
                whole = ("setpriv", "--pdeathsig", "TERM", "--", *words)
                process = await asyncio.create_subprocess_exec(*whole, stdin=asyncio.subprocess.DEVNULL)
                processes.append(process)
                tasks.start(watch(process))
            status = await ended.get()
    finally:
        await asyncio.shield(_end(processes))
    raise WorkerEnded(f"a DNS worker ended with status {status}")


async def _end(processes: Sequence[asyncio.subprocess.Process]) -> None:
    for process in processes:
        if process.returncode is None:
            process.terminate()
    try:
        async with asyncio.timeout(END_S):
            for process in processes:
                await process.wait()
    except TimeoutError:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
