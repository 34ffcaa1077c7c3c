"""Serving the last good view until the API answers, and keeping it fresh afterwards.

Apart from `server` because all of it is about the time when the API is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pilotage.api.core_v1 import Namespace, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.client import Informer
from pilotage.dns.metrics import SNAPSHOT_SECONDS, STALE_VIEW
from pilotage.dns.snapshot import SnapshotFile, View
from pilotage.kit.clock import Clock
from pilotage.telemetry import get_logger

GRACE_S = 1.0
"""How long the API may take before the file is used instead."""
EVERY_S = 10.0
"""Between two looks whether there is something new to write."""
_log = get_logger()
Handler = Callable[[Any, Any], None]


class LastGood:
    """One file, three informers and the handlers that they feed."""

    def __init__(
        self,
        path: str,
        clock: Clock,
        services: Informer[Service],
        slices: Informer[EndpointSlice],
        namespaces: Informer[Namespace],
        handlers: tuple[Handler, Handler, Handler],
    ) -> None:
        self._file = SnapshotFile(path)
        self._clock = clock
        self._informers: tuple[Informer[Any], Informer[Any], Informer[Any]] = (services, slices, namespaces)
        self._handlers = handlers
        self._written: tuple[int, ...] = ()

    @property
    def _synced(self) -> bool:
        return all(informer.synced for informer in self._informers)

    async def restore(self) -> View | None:
        """After the grace, the file's view is applied if the API has not answered; None if it has, or has to be."""
        try:
            async with asyncio.timeout(GRACE_S):
                for informer in self._informers:
                    await informer.wait_synced()
            return None
        except TimeoutError:
            pass
        view = await asyncio.to_thread(self._file.read)
        if view is None or self._synced:
            return None
        for informer, handler, objects in zip(self._informers, self._handlers, _parts(view), strict=True):
            for item in objects:
                if informer.get_key(item.metadata.key) is None:
                    handler(None, item)
        STALE_VIEW.set(1)
        _log.warning("serving the last good view until the API answers", services=len(view.services))
        return view

    async def settle(self, view: View) -> None:
        """Once the API has answered, what it does not have any more is forgotten."""
        for informer, handler, objects in zip(self._informers, self._handlers, _parts(view), strict=True):
            await informer.wait_synced()
            for item in objects:
                if informer.get_key(item.metadata.key) is None:
                    handler(item, None)
        STALE_VIEW.set(0)

    async def run(self) -> None:
        """Write whenever something changed, until cancelled."""
        while True:
            await self.write()
            await asyncio.sleep(EVERY_S)

    async def write(self) -> bool:
        """Write now, if there is something new; whether there was."""
        versions = tuple(informer.resource_version for informer in self._informers)
        if not self._synced or versions == self._written:
            return False
        services, slices, namespaces = self._informers
        view = View(services=tuple(services.list()), slices=tuple(slices.list()), namespaces=tuple(namespaces.list()))
        started = self._clock.monotonic()
        try:
            await self._file.write(view, written=self._clock.wall().isoformat(timespec="seconds"))
        except OSError as error:
            _log.warning("cannot write the snapshot", path=str(self._file.path), error=str(error))
            return False
        SNAPSHOT_SECONDS.observe(self._clock.monotonic() - started)
        self._written = versions
        return True


def _parts(view: View) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    return view.services, view.slices, view.namespaces
