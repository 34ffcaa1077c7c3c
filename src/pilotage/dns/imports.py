"""Watches ServiceImports once the cluster knows the kind, and only then.

Apart from `server` because most clusters are in no cluster set: until the kind appears (its definition is installed by
whoever runs the cluster set) names of the cluster set's zone are the upstreams', and nothing is watched or logged.
"""

from __future__ import annotations

import asyncio

from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.status import ApiError
from pilotage.client import Client, ConnectionFailed, Informer
from pilotage.dns.core.cluster_set import ServiceImport, as_service, as_slice, cluster_set_table
from pilotage.dns.core.name import Name
from pilotage.dns.core.table import Table
from pilotage.kit.tasks import TaskSet

LOOK_EVERY_S = 10.0
"""How soon a kind installed later is noticed."""


class Imports:
    """Keeps the cluster set's table beside the cluster's own."""

    def __init__(self, client: Client, table: Table, zone: Name) -> None:
        self._client = client
        self._table = table
        self._made = cluster_set_table(table.settings, zone)

    async def run(self, tasks: TaskSet) -> None:
        """Wait for the kind, then serve it until cancelled."""
        while not await self._is_known():  # noqa: ASYNC110 - the other end is another process
            await asyncio.sleep(LOOK_EVERY_S)  # a watch of definitions would ask for rights that nothing else needs
        imports = Informer(self._client, ServiceImport)
        imports.add_handler(self._on_import)
        tasks.start(imports.run(), name="informer ServiceImport")
        await imports.wait_synced()
        self._made.synced = True
        self._table.adopt(self._made)

    async def _is_known(self) -> bool:
        try:
            await self._client.list(ServiceImport, limit=1)
        except (ApiError, ConnectionFailed):
            return False
        return True

    def _on_import(self, old: ServiceImport | None, new: ServiceImport | None) -> None:
        either = new or old
        assert either is not None
        self._made.set_service(as_service(old) if old else None, as_service(new) if new else None)
        self._table.drop((either.metadata.namespace, either.metadata.name))

    def on_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """An informer's handler, from the beginning: slices may come before the kind is known."""
        before, after = (as_slice(old) if old else None), (as_slice(new) if new else None)
        if before is None and after is None:
            return
        self._made.set_slice(before, after)
        for part in (before, after):
            if part is not None:
                self._table.drop((part.metadata.namespace, part.service_name))

    def on_namespace(self, name: str, *, exists: bool) -> None:
        self._made.set_namespace(name, exists=exists)
