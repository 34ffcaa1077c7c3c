"""Which kinds the garbage collector follows, and through which informers.

Kinds that other controllers hold already are shared; all others are followed by their metadata alone. Custom kinds
join when their definition appears. Leaves out what nobody owns or what only churns.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from pilotage.api.meta_v1 import Object
from pilotage.api.status import ApiError
from pilotage.client.client import Client
from pilotage.client.discovery import ServedResource, discover
from pilotage.client.errors import ConnectionFailed
from pilotage.client.informer import Informer
from pilotage.kit.backoff import Backoff
from pilotage.kit.tasks import task_set
from pilotage.telemetry import get_logger

Key = tuple[str, str]  # api version, kind

IGNORED_GROUPS = frozenset(
    {
        "admissionregistration.k8s.io",
        "apiregistration.k8s.io",
        "coordination.k8s.io",
        "events.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "node.k8s.io",
        "resource.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
    }
)
"""Leases and Events churn without owners that matter; the others are configuration of the cluster as a whole."""

IGNORED_CORE = frozenset({"Event", "LimitRange", "PersistentVolume", "PodTemplate", "ResourceQuota"})
DEFINITIONS: Key = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")

_RETRY = Backoff(initial_s=0.2, max_s=30.0)
_log = get_logger()


class Sources:
    """Informers by kind, growing and shrinking with what the server serves."""

    def __init__(self, client: Client, shared: Mapping[Key, Informer[Any]]) -> None:
        self.resources: dict[Key, ServedResource] = {}
        self._client = client
        self._informers: dict[Key, Informer[Any]] = dict(shared)
        self._shared = frozenset(shared)
        self._stale = asyncio.Event()
        self._discovered = False

    @property
    def synced(self) -> bool:
        """Whether every kind's objects are known, so that "no dependents" means none."""
        return (
            self._discovered
            and not self._stale.is_set()
            and all(informer.synced for informer in self._informers.values())
        )

    async def run(self, follow: Callable[[ServedResource, Informer[Any]], None]) -> None:
        """Discover, follow every kind once, and again whenever a definition changes; until cancelled.

        `follow` is called before an informer starts, or while a shared one runs.
        """
        self._stale.set()
        followed: set[Key] = set()
        failures = 0
        async with task_set() as tasks:
            while True:
                await self._stale.wait()
                try:
                    self.resources = {(item.api_version, item.kind): item for item in await discover(self._client)}
                except (ApiError, ConnectionFailed) as error:
                    failures += 1
                    _log.warning("discovery failed", error=str(error)[:300], failures=failures)
                    await asyncio.sleep(_RETRY.delay_s(failures))
                    continue
                failures = 0
                wanted = {key for key, item in self.resources.items() if is_followed(item)}
                for key in sorted(wanted - followed):
                    informer = self._informers.get(key)
                    if informer is None:
                        informer = Informer(self._client, self.resources[key].metadata_kind())
                        self._informers[key] = informer
                        follow(self.resources[key], informer)
                        if key == DEFINITIONS:
                            informer.add_handler(self._definition_changed)
                        tasks.start(informer.run(), key=key, name=f"gc-informer-{informer.kind.plural}")
                    else:
                        follow(self.resources[key], informer)
                for key in followed - wanted:
                    if key not in self._shared:
                        del self._informers[key]
                        tasks.cancel(key)
                followed = wanted
                self._stale.clear()
                self._discovered = True

    def _definition_changed(self, old: Object | None, new: Object | None) -> None:
        # A definition's status says when its kind is served, so every change of one is worth a look.
        if self._discovered:
            self._stale.set()


def is_followed(resource: ServedResource) -> bool:
    """Kinds that can be watched and deleted, minus the ignored ones."""
    group = resource.api_version.rpartition("/")[0]
    if group in IGNORED_GROUPS or (not group and resource.kind in IGNORED_CORE):
        return False
    return {"list", "watch", "delete"} <= set(resource.verbs)
