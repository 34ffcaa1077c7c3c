"""Follows the kinds of Gateway API that the cluster has just now, each with one watch.

Apart from the publisher because these kinds are custom ones: they may be installed later, at this version or that, and
be gone again. What is served is asked of discovery, which everybody may read; watching the definitions themselves would
take a right that nothing else needs. From the appearance of a kind on, its objects come by watch as all others do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from pilotage.api.status import ApiError
from pilotage.client import Client, ConnectionFailed, Informer
from pilotage.dns.external.core.gateways import GROUP, KINDS, Gateway, Route
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.telemetry import get_logger

LOOK_EVERY_S = 5.0
"""How soon a kind installed later is noticed."""
GONE_AFTER = 2
"""Looks in a row that must miss a kind before its names are withdrawn: a server that starts may not know it yet."""
_log = get_logger()

Kind = type[Gateway] | type[Route]


class GatewayKinds:
    """The Gateways and routes of the cluster; none of a kind that it has not."""

    def __init__(self, client: Client, changed: Callable[[], None]) -> None:
        self._client = client
        self._changed = changed
        self._followed: dict[str, Kind] = {}
        self._held: dict[str, Informer[Any]] = {}
        """Complete copies, by plural. One of a version no longer followed stays until the next one is complete."""
        self._missed: dict[str, int] = {}
        self._complete = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with task_set() as tasks:
            while True:
                try:
                    served = await self._served()
                except (ApiError, ConnectionFailed, ValueError, KeyError, TypeError) as error:
                    _log.debug("cannot ask which kinds of Gateway API are served", error=str(error)[:300])
                else:
                    self._follow(served, tasks)
                await asyncio.sleep(LOOK_EVERY_S)

    async def wait_complete(self) -> None:
        """Until every kind that is served has been read once: before, a name that is missing means nothing."""
        await self._complete.wait()

    def gateways(self) -> Sequence[Gateway]:
        informer = self._held.get(Gateway.plural)
        return informer.list() if informer is not None else ()

    def routes(self) -> Sequence[Route]:
        return [
            route for plural in sorted(self._held) if plural != Gateway.plural for route in self._held[plural].list()
        ]

    def snapshot(self) -> dict[str, Any]:
        """For debugging: what is followed and how far."""
        return {plural: informer.snapshot() for plural, informer in sorted(self._held.items())}

    async def _served(self) -> dict[str, str]:
        """Plural → apiVersion, the most preferred that has the kind. Raises what a strange answer makes it raise."""
        try:
            group = await self._document(f"/apis/{GROUP}")
        except ApiError as error:
            if error.code == 404:
                return {}
            raise
        preferred = group["preferredVersion"]["groupVersion"]
        versions = [preferred, *(version["groupVersion"] for version in group["versions"])]
        found: dict[str, str] = {}
        for version in dict.fromkeys(versions):
            for resource in (await self._document(f"/apis/{version}"))["resources"]:
                if resource["name"] in KINDS:
                    found.setdefault(resource["name"], version)
            if len(found) == len(KINDS):
                break
        return found

    async def _document(self, path: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(await self._client.request("GET", path))
        return document

    def _follow(self, served: dict[str, str], tasks: TaskSet) -> None:
        for plural, known in KINDS.items():
            version, followed = served.get(plural), self._followed.get(plural)
            if version is not None:
                self._missed.pop(plural, None)
                if followed is None or followed.api_version != version:
                    kind = type(known.__name__, (known,), {"api_version": version})
                    self._followed[plural] = kind
                    tasks.start(self._keep(plural, kind), key=plural, name=f"informer {known.kind}")
            elif followed is not None:
                self._missed[plural] = self._missed.get(plural, 0) + 1
                if self._missed[plural] >= GONE_AFTER:
                    tasks.cancel(plural)
                    del self._followed[plural], self._missed[plural]
                    if self._held.pop(plural, None) is not None:
                        self._changed()
        self._check()

    async def _keep(self, plural: str, kind: Kind) -> None:
        informer: Informer[Any] = Informer(self._client, kind)
        informer.add_handler(lambda _old, _new: self._changed())
        async with task_set() as tasks:
            tasks.start(informer.run())
            await informer.wait_synced()
            self._held[plural] = informer
            self._check()
            self._changed()
            await tasks.wait()

    def _check(self) -> None:
        if set(self._followed) <= set(self._held):
            self._complete.set()
