"""Several DNS processes on the same ports, for a machine with cores to spare.

One interpreter uses one core. With SO_REUSEPORT the kernel spreads clients over processes by their address and port;
each is a whole server with its own watch, table and watermark, so that nothing is shared and nothing can disagree for
longer than two watches do. The price is the memory of each. This parent only starts, ends and watches over them. Each
hands its sockets over to the worker of the same number: those of one port cannot be told apart from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pilotage.dns.handover import is_served
from pilotage.kit.errors import PilotageError, UsageError
from pilotage.kit.tasks import task_set

WORKERS_MAX = 64
END_S = 10.0
"""For a worker to end after SIGTERM, before it is killed."""


RELIEVED = 9
"""The exit status of a worker whose sockets the next one has taken over."""


class WorkerEnded(PilotageError):
    """A worker ended by itself: all end, and whoever started us starts us again."""


async def run_workers(commands: Sequence[Sequence[str]]) -> None:
    """Run one process a command until cancelled, or all are relieved. Raises `WorkerEnded` as soon as one fails."""
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
            for _ in commands:
                if (status := await ended.get()) != RELIEVED:
                    raise WorkerEnded(f"a DNS worker ended with status {status}")
    finally:
        await asyncio.shield(_end(processes))


def handover_path(path: str, worker: int) -> str:
    """The socket of one worker; `worker` counts from 1."""
    return f"{path}.{worker}"


def check_handover(path: str, workers: int) -> None:
    """Whether `workers` processes (1: no workers) can relieve what is in service. Raises `UsageError`."""
    alone, more = is_served(path), is_served(handover_path(path, workers + 1 if workers > 1 else 1))
    if alone and workers > 1:
        raise UsageError(f"handover: a process without workers is in service at {path}: leave out --workers, or end it")
    if more and workers == 1:
        raise UsageError(f"handover: workers are in service at {path}: give as many --workers, or end them")
    if more:
        raise UsageError(f"handover: more than {workers} workers are in service at {path}: give as many, or end them")


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
