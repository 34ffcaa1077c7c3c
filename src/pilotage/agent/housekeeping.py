"""What a node does every few seconds for all of its pods: eviction, images, control groups of classes, long logs.

Stands apart from `agent` as the place where these meet; each of them is a module of its own. Blocking work is done on
threads.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping

from pilotage.agent.collector import ImageCollector
from pilotage.agent.config import Config
from pilotage.agent.core import allocatable, eviction
from pilotage.agent.evictor import Evictor
from pilotage.agent.log_rotation import LogRotation
from pilotage.agent.meter import Meter
from pilotage.agent.runtime.cgroup import ControlGroups
from pilotage.agent.worker import PodWorker
from pilotage.api.core_v1 import Pod
from pilotage.kit.clock import Clock
from pilotage.telemetry import get_logger

_log = get_logger()


class Housekeeping:
    """Of one node."""

    def __init__(
        self,
        config: Config,
        *,
        capacity: Mapping[str, str],
        meter: Meter,
        groups: ControlGroups | None,  # None: this process may not make any
        collector: ImageCollector,
        rotation: LogRotation,
        workers: Callable[[], Collection[PodWorker]],
        on_change: Callable[[], None],
        tell: Callable[[str, str, str], None],
        clock: Clock,
    ) -> None:
        self._config = config
        self._for_pods = allocatable.for_pods(capacity, config.kube_reserved, config.system_reserved)
        self._meter = meter
        self._groups = groups
        self._collector = collector
        self._rotation = rotation
        self._workers = workers
        self._tell = tell  # about the node: type, reason, message
        self._evictor = Evictor(
            config.eviction,
            meter,
            tenants=workers,
            free_disk=self._free_disk,
            on_change=on_change,
            tell=lambda reason, message: tell("Warning", reason, message),
            clock=clock,
        )

    @property
    def conditions(self) -> frozenset[str]:
        """Of `core.eviction`: those that hold."""
        return self._evictor.conditions

    async def open(self) -> None:
        """Before the first pod, and before the node says how it is."""
        self._open_groups()
        await self._evictor.observe()

    async def run(self) -> None:
        """Until cancelled. One thing that fails does not keep the others from being done."""
        loop = asyncio.get_running_loop()
        collected_at = loop.time()
        while True:
            await asyncio.sleep(self._config.housekeeping_s)
            try:
                await self._evictor.look()
                self._open_groups()
                await self._rotation.rotate(self._workers())
                if loop.time() - collected_at >= self._config.garbage_period_s:
                    collected_at = loop.time()
                    await self._collect()
            except OSError as error:
                _log.warning("housekeeping failed, and is tried again", error=str(error)[:300])

    def _open_groups(self) -> None:
        if self._groups is not None:
            self._groups.open_node(
                self._pods(),
                milli_cpu=self._for_pods["cpu"],
                memory_bytes=self._for_pods["memory"],
            )

    def _pods(self) -> list[Pod]:
        return [one.allocated for one in self._workers() if not one.state.finished]

    async def _collect(self) -> None:
        seen = await asyncio.to_thread(self._meter.signals)
        failure = await asyncio.to_thread(self._collector.collect, seen.get(eviction.IMAGEFS))
        if failure:
            self._tell("Warning", "ImageGCFailed", failure)

    async def _free_disk(self) -> None:
        await asyncio.to_thread(self._collector.remove_unused)
