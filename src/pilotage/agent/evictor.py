"""Keeps the node above its thresholds: looks, frees what belongs to nobody, then ends one pod at a time.

Stands apart from `core.eviction`, which decides; here is the order of the steps of one look. Fed by the meter; read by
the node's status and by admission. Also ends pods that exceed limits of their own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from pilotage.agent.core import ephemeral, eviction
from pilotage.agent.core.eviction import Observation, PressureState, Settings, Threshold, Verdict
from pilotage.agent.core.state import PodState
from pilotage.agent.meter import Measured, Meter
from pilotage.api.core_v1 import Pod
from pilotage.kit.clock import Clock
from pilotage.telemetry import get_logger

# An evicted pod gets this long to go before the next one is asked, as the kubelet's podCleanupTimeout.
CLEANUP_S = 30.0
_log = get_logger()


class Tenant(Protocol):
    """A pod that could be ended: its worker."""

    @property
    def uid(self) -> str: ...

    pod: Pod

    @property
    def state(self) -> PodState: ...

    def evict(self, message: str, *, grace_s: float) -> None: ...


class Evictor:
    """Of one node."""

    def __init__(
        self,
        settings: Settings,
        meter: Meter,
        *,
        tenants: Callable[[], Iterable[Tenant]],
        free_disk: Callable[[], Awaitable[None]],
        on_change: Callable[[], None],
        tell: Callable[[str, str], None],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._thresholds = settings.thresholds()
        self._meter = meter
        self._tenants = tenants
        self._free_disk = free_disk  # images that nobody uses
        self._on_change = on_change  # of the conditions
        self._tell = tell  # about the node: reason, message
        self._clock = clock
        self._state = PressureState()
        self._leaving: Tenant | None = None  # evicted, not yet gone
        self._leaving_until = 0.0
        self.conditions: frozenset[str] = frozenset()

    async def look(self) -> None:
        """One look, and what follows from it. Raises `OSError`."""
        leaving = self._is_leaving()  # asked before the signals are read: what it gave back must be in them
        _, verdict = await self.observe()
        if await self._end_who_exceeds_his_own():
            return
        if not verdict.pressing or leaving:
            return
        threshold = verdict.pressing[0]
        resource = eviction.SIGNALS[threshold.signal][1]
        self._tell("EvictionThresholdMet", f"Attempting to reclaim {resource}")
        if threshold.signal.startswith(("nodefs", "imagefs")):
            await self._free_disk()
            seen, verdict = await self.observe()
            if threshold not in verdict.pressing:
                return
        else:
            seen = await asyncio.to_thread(self._meter.signals)
        await self._end_one(threshold, seen)

    async def observe(self) -> tuple[Mapping[str, Observation], Verdict]:
        """Bring the conditions up to date, and do nothing about them."""
        seen = await asyncio.to_thread(self._meter.signals)
        verdict = eviction.look(self._thresholds, self._settings, seen, self._state, self._clock.monotonic())
        self._state = verdict.state
        if verdict.conditions != self.conditions:
            self.conditions = verdict.conditions
            self._on_change()
        return seen, verdict

    async def _end_who_exceeds_his_own(self) -> bool:
        ended = False
        for tenant in self._living():
            if ephemeral.is_limited(tenant.pod):
                measured = await self._measure(tenant)
                disk = {name: usage.disk_bytes for name, usage in measured.containers.items()}
                message = ephemeral.exceeded(tenant.pod, measured.volumes, disk)
                if message:
                    tenant.evict(message, grace_s=0.0)
                    ended = True
        return ended

    async def _end_one(self, threshold: Threshold, seen: Mapping[str, Observation]) -> None:
        living = self._living()
        measured = {tenant.uid: await self._measure(tenant) for tenant in living}
        ranked = eviction.rank([(one.pod, measured[one.uid].whole) for one in living], threshold.signal)
        if not ranked:
            _log.warning("too little is left, and there is no pod to evict", signal=threshold.signal)
            return
        tenant = next(one for one in living if one.uid == ranked[0].metadata.uid)
        containers = measured[tenant.uid].containers
        message = eviction.message(threshold, seen[threshold.signal], tenant.pod, containers)
        grace_s = eviction.IMMEDIATE_GRACE_S if threshold.is_hard else self._settings.pod_grace_s_max
        tenant.evict(message, grace_s=grace_s)
        self._leaving, self._leaving_until = tenant, self._clock.monotonic() + grace_s + CLEANUP_S

    def _is_leaving(self) -> bool:
        """Whether the last one is still on its way out: what it gives back is not seen yet."""
        if self._leaving is None:
            return False
        gone = self._leaving.state.sandbox == "removed" or self._leaving not in list(self._tenants())
        if gone or self._clock.monotonic() > self._leaving_until:
            self._leaving = None
        return self._leaving is not None

    def _living(self) -> list[Tenant]:
        return [one for one in self._tenants() if not one.state.finished and not one.state.ended]

    async def _measure(self, tenant: Tenant) -> Measured:
        containers = {record.name: record.container_id for record in tenant.state.records if record.container_id}
        return await asyncio.to_thread(self._meter.pod, tenant.pod, containers)
