"""Containers' logs are put aside when they have grown, and only a few of them are kept.

Stands apart from `logs`, which reads them. As the kubelet does it: the log is renamed, its writer is told to open it
anew, older ones are compressed, the oldest go. A log that is being read is followed across (`logs`).

Beside `<attempt>.log`: `<attempt>.log.<time>` (the latest) and `<attempt>.log.<time>.gz`.
"""

import asyncio
import gzip
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from pilotage.agent.core.state import PodState
from pilotage.agent.runtime import Runtime
from pilotage.kit.clock import Clock


class Logged(Protocol):
    """A pod's worker, as far as logs go."""

    @property
    def state(self) -> PodState: ...

    def log_path_of(self, name: str, attempt: int) -> Path: ...


class LogRotation:
    """Of all containers of one node."""

    def __init__(self, runtime: Runtime, *, bytes_max: int, files_max: int, clock: Clock) -> None:
        self._runtime = runtime
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._clock = clock

    async def rotate(self, workers: Iterable[Logged]) -> None:
        """Look at every running container's log, once. Raises `OSError`."""
        for worker in tuple(workers):
            for record in worker.state.records:
                path = worker.log_path_of(record.name, record.attempt)
                if record.is_running and _size(path) > self._bytes_max:
                    await self._put_aside(record.container_id, path)

    async def _put_aside(self, container_id: str, path: Path) -> None:
        stamp = self._clock.wall().strftime("%Y%m%d-%H%M%S-%f")
        os.rename(path, f"{path}.{stamp}")
        await self._runtime.reopen_log(container_id)
        await asyncio.to_thread(compress_and_drop, path, self._files_max)


def put_aside(path: Path) -> list[Path]:
    """What was put aside of a log, oldest first."""
    return sorted(one for one in path.parent.glob(f"{path.name}.*") if not one.name.endswith(".new"))


def compress_and_drop(path: Path, files_max: int) -> None:
    """Keep the log and the latest of those put aside: all of these but the very latest compressed."""
    old = put_aside(path)
    kept = max(files_max - 1, 1)  # two files at least, as the kubelet asks for
    for extra in old[:-kept]:
        extra.unlink(missing_ok=True)
    for plain in old[-kept:-1]:
        if plain.suffix == ".gz":
            continue
        fresh = plain.with_name(f"{plain.name}.gz.new")
        with open(plain, "rb") as source, gzip.open(fresh, "wb") as target:
            shutil.copyfileobj(source, target)
        fresh.rename(plain.with_name(f"{plain.name}.gz"))
        plain.unlink()


def drop(path: Path) -> None:
    """Remove a log with all that was put aside of it."""
    for one in (*path.parent.glob(f"{path.name}.*"), path):
        one.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
