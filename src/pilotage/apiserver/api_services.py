"""An APIService for every group-version served: what tells clients and people that an API is there.

Stands apart because it only mirrors the index of resources into objects; nothing in the server reads them. This server
serves everything itself: an APIService that names a Service, which would mean another server behind this one, is kept
and reported as not available.
Source: apiregistration.k8s.io/v1 in the Kubernetes API reference; priorities as kube-apiserver gives them.
"""

from __future__ import annotations

import asyncio

from pilotage.api.status import ApiError
from pilotage.api.timestamp import render
from pilotage.apiserver.authentication import LOOPBACK
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.custom_resource import CustomResource
from pilotage.apiserver.core.options import DeleteOptions
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.resources import Resources
from pilotage.apiserver.subresources import builtin
from pilotage.kit.clock import Clock
from pilotage.storage import StorageError
from pilotage.telemetry import get_logger

log = get_logger()

API_SERVICES = builtin("apiregistration.k8s.io", "v1", "apiservices")
_MANAGED = "kube-aggregator.kubernetes.io/automanaged"
_CORE_PRIORITY, _BUILTIN_PRIORITY, _CUSTOM_PRIORITY = 18_000, 17_000, 1_000
RETRY_S = 1.0


class ApiServices:
    """The APIServices of one server."""

    def __init__(self, registry: Registry, resources: Resources, clock: Clock) -> None:
        self._registry = registry
        self._resources = resources
        self._clock = clock
        self._wakeup = asyncio.Event()
        self._wakeup.set()

    def changed(self) -> None:
        """Other group-versions may be served than before."""
        self._wakeup.set()

    def observe(self, group: str, plural: str, previous: Document | None, current: Document | None) -> None:
        """An APIService has changed."""
        self._wakeup.set()

    async def run(self) -> None:
        """Keep them until cancelled."""
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            try:
                await self._reconcile()
            except (ApiError, StorageError) as error:
                log.warning("API services are behind", error=str(error))
                asyncio.get_running_loop().call_later(RETRY_S, self._wakeup.set)

    async def _reconcile(self) -> None:
        wanted = self._wanted()
        existing = {record.name: record.document for record in self._registry.cache(API_SERVICES).scan("")}
        for name, document in wanted.items():
            if name not in existing:
                body = self._registry.pipeline.decode(self._call(name), document)
                await self._registry.create(self._call(name), body)
        for name, document in existing.items():
            automatic = _MANAGED in (document["metadata"].get("labels") or {})
            if automatic and name not in wanted:
                await self._registry.delete(self._call(name), DeleteOptions())
        for record in tuple(self._registry.cache(API_SERVICES).scan("")):
            status = self._status(record.document)
            if status != record.document.get("status"):
                await self._registry.amend(
                    self._call(record.name), lambda current: {**current, "status": self._status(current)}
                )

    def _wanted(self) -> dict[str, Document]:
        found: dict[str, Document] = {}
        for group, versions in self._resources.group_versions().items():
            for rank, (version, resources) in enumerate(versions.items()):
                custom = all(isinstance(each, CustomResource) for each in resources)
                spec: Document = {
                    "version": version,
                    "groupPriorityMinimum": _CUSTOM_PRIORITY if custom else _BUILTIN_PRIORITY,
                    "versionPriority": max(100 - rank, 1),
                }
                if group:
                    spec["group"] = group
                else:
                    spec["groupPriorityMinimum"] = _CORE_PRIORITY
                name = f"{version}.{group}"
                found[name] = {
                    "apiVersion": "apiregistration.k8s.io/v1",
                    "kind": "APIService",
                    "metadata": {"name": name, "labels": {_MANAGED: "true" if custom else "onstart"}},
                    "spec": spec,
                }
        return found

    def _status(self, document: Document) -> Document:
        local = not (document.get("spec") or {}).get("service")
        wanted = (
            ("True", "Local", "Local APIServices are always available")
            if local
            else ("False", "NotAggregated", "this server does not pass requests on to other servers")
        )
        conditions: list[Document] = (document.get("status") or {}).get("conditions") or []
        before = conditions[0] if conditions else {}
        if (before.get("status"), before.get("reason"), before.get("message")) == wanted:
            status: Document = document["status"]
            return status
        value, reason, message = wanted
        return {
            "conditions": [
                {
                    "type": "Available",
                    "status": value,
                    "lastTransitionTime": render(self._clock.wall()),
                    "reason": reason,
                    "message": message,
                }
            ]
        }

    def _call(self, name: str) -> Call:
        return Call(
            resource=API_SERVICES,
            namespace="",
            name=name,
            subresource="",
            user=LOOPBACK,
            now=self._clock.wall(),
            user_agent="kube-apiserver",
        )
