"""Serving custom resources: follows the definitions, makes their resources, cleans up behind them.

Stands apart as the shell of this package: the only part that waits, reads the cache and writes. Every change of a
definition is looked at once more as a whole: are its names free, what does it serve now, is it going away. A definition
that goes takes its objects with it before its finalizer is removed.
Source: KEP-95; "Finalizers" and conditions of CustomResourceDefinition in the Kubernetes API reference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from pilotage.api.catalogue import BUILTIN, Resource
from pilotage.api.status import ApiError
from pilotage.api.timestamp import render
from pilotage.apiserver.authentication import LOOPBACK
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.custom_resource import CustomResource
from pilotage.apiserver.core.options import DeleteOptions
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.custom.definition import FINALIZER, condition_is_true, name_conflicts, resources_of
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.resources import Resources
from pilotage.apiserver.subresources import builtin
from pilotage.kit.clock import Clock
from pilotage.storage import StorageError
from pilotage.telemetry import get_logger

log = get_logger()

DEFINITIONS = builtin("apiextensions.k8s.io", "v1", "customresourcedefinitions")
GROUP, PLURAL = DEFINITIONS.group, DEFINITIONS.plural
# While objects of a definition that is going away wait for their own finalizers.
CLEANUP_INTERVAL_S = 0.25
RETRY_S = 0.5
# Objects removed between two looks at everything else.
CLEANUP_BATCH = 500


class Definitions:
    """The custom resources of one server."""

    def __init__(
        self, registry: Registry, resources: Resources, clock: Clock, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._registry = registry
        self._resources = resources
        self._clock = clock
        self._on_change = on_change
        self._served: dict[str, tuple[Resource, ...]] = {}
        self._accepted: dict[str, Mapping[str, Any]] = {}  # definition → its group and accepted names
        self._specs: dict[str, tuple[Any, bool]] = {}  # definition → the spec its resources were made from
        self._changed: dict[str, None] = {}  # definitions to look at, in order
        self._wakeup = asyncio.Event()

    def observe(self, group: str, plural: str, previous: Document | None, current: Document | None) -> None:
        """A definition has changed."""
        document = current or previous
        if document is not None:
            self._look_at(document["metadata"]["name"])

    def _look_at(self, name: str) -> None:
        self._changed[name] = None
        self._wakeup.set()

    def _look_at_all(self, names: list[str]) -> None:
        for name in names:
            self._look_at(name)

    def load(self) -> None:
        """Serve every definition that was established before; call once, before the first request."""
        for record in self._registry.cache(DEFINITIONS).scan(""):
            if condition_is_true(record.document, "Established"):
                self._serve(record.name, record.document)
            self._look_at(record.name)

    async def run(self) -> None:
        """Follow the definitions until cancelled."""
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            again: list[str] = []
            while self._changed:
                name = next(iter(self._changed))
                del self._changed[name]
                try:
                    if not await self._reconcile(name):
                        again.append(name)
                except (ApiError, StorageError) as error:
                    log.warning("definition not yet served", definition=name, error=str(error))
                    again.append(name)
                except Exception:
                    log.exception("a definition cannot be served", definition=name)
            if again:
                asyncio.get_running_loop().call_later(CLEANUP_INTERVAL_S, self._look_at_all, again)

    async def _reconcile(self, name: str) -> bool:
        """Bring one definition to where it should be; False to look again soon."""
        record = self._registry.cache(DEFINITIONS).get(name)
        if record is None:
            self._forget(name)
            return True
        document = record.document
        if "deletionTimestamp" in document["metadata"]:
            return await self._clean_up(name, document)
        await self._establish(name, document)
        return True

    async def _establish(self, name: str, document: Document) -> None:
        spec = document["spec"]
        own = {"group": spec["group"], **spec["names"]}
        conflict = name_conflicts(document, self._names_in(spec["group"], but=name))
        if not conflict:
            self._accepted[name] = own
        established = not conflict or condition_is_true(document, "Established")
        if established:
            self._serve(name, document)
        status = self._status(document, conflict)
        if status != document.get("status"):
            await self._registry.amend(self._call(name), lambda current: {**current, "status": status})

    def _names_in(self, group: str, *, but: str) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = [
            names for definition, names in self._accepted.items() if definition != but and names["group"] == group
        ]
        found += [
            {"plural": each.plural, "singular": each.singular, "kind": each.kind, "listKind": each.list_kind}
            for each in BUILTIN
            if each.group == group
        ]
        return found

    def _status(self, document: Document, conflict: str) -> Document:
        old = document.get("status") or {}
        storage = next(each["name"] for each in document["spec"]["versions"] if each.get("storage"))
        stored = list(old.get("storedVersions") or ())
        status: Document = {
            **old,
            "storedVersions": stored if storage in stored else [*stored, storage],
            "acceptedNames": old.get("acceptedNames") or {"plural": "", "kind": ""},
        }
        if conflict:
            wanted = [("NamesAccepted", "False", "NamesConflict", conflict)]
            if not condition_is_true(document, "Established"):
                wanted.append(("Established", "False", "NotAccepted", "not all names are accepted"))
        else:
            status["acceptedNames"] = document["spec"]["names"]
            wanted = [
                ("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
                ("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
            ]
        return self._with_conditions(status, wanted)

    def _with_conditions(self, status: Document, wanted: list[tuple[str, str, str, str]]) -> Document:
        conditions = {each["type"]: each for each in status.get("conditions") or ()}
        for type_, value, reason, message in wanted:
            before = conditions.get(type_)
            if before is not None and before["status"] == value and before.get("reason") == reason:
                continue
            conditions[type_] = {
                "type": type_,
                "status": value,
                "lastTransitionTime": render(self._clock.wall()),
                "reason": reason,
                "message": message,
            }
        return {**status, "conditions": list(conditions.values())}

    def _serve(self, name: str, document: Document) -> None:
        """Make and serve the resources of a definition, unless they are what is served already."""
        key = (document["spec"], "deletionTimestamp" in document["metadata"])
        if self._specs.get(name) == key:
            return
        made = resources_of(document)
        self._withdraw(name)
        for resource in made:
            self._resources.add(resource)
        self._served[name], self._specs[name] = made, key
        self._on_change()

    def _withdraw(self, name: str) -> None:
        for resource in self._served.pop(name, ()):
            self._resources.remove(resource)
        self._specs.pop(name, None)

    def _forget(self, name: str) -> None:
        served = self._served.get(name, ())
        self._accepted.pop(name, None)
        if not served:
            return
        self._withdraw(name)
        for cursor in tuple(self._registry.cache(served[0]).cursors):
            cursor.expire()
        self._on_change()
        for other in self._registry.cache(DEFINITIONS).scan(""):  # somebody may have waited for these names
            self._look_at(other.name)

    async def _clean_up(self, name: str, document: Document) -> bool:
        if FINALIZER not in (document["metadata"].get("finalizers") or ()):
            return True  # somebody else's finalizer holds it
        if condition_is_true(document, "Established"):
            self._serve(name, document)  # as terminating: nothing new is made
        resource = next(iter(self._served.get(name, ())), None)
        if resource is not None and isinstance(resource, CustomResource):
            removing = ("Terminating", "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress")
            if not condition_is_true(document, "Terminating"):
                status = self._with_conditions(document.get("status") or {}, [removing])
                await self._registry.amend(self._call(name), lambda current: {**current, "status": status})
            if not await self._remove_objects(resource):
                return False
        await self._registry.amend(self._call(name), _without_finalizer)
        return True

    async def _remove_objects(self, resource: Resource) -> bool:
        """Delete what is there; True when nothing is left."""
        cache = self._registry.cache(resource)
        batch = [record for record in cache.scan("") if "deletionTimestamp" not in record.document["metadata"]]
        for record in batch[:CLEANUP_BATCH]:
            call = self._call(record.name, resource, record.namespace)
            try:
                await self._registry.delete(call, DeleteOptions())
            except ApiError as error:
                if error.reason != "NotFound":
                    raise
        return not cache.items

    def _call(self, name: str, resource: Resource = DEFINITIONS, namespace: str = "") -> Call:
        return Call(
            resource=resource,
            namespace=namespace,
            name=name,
            subresource="",
            user=LOOPBACK,
            now=self._clock.wall(),
            user_agent="kube-apiserver",
        )


def _without_finalizer(document: Document) -> Document:
    metadata = dict(document["metadata"])
    left = [each for each in metadata.get("finalizers") or () if each != FINALIZER]
    if left:
        metadata["finalizers"] = left
    else:
        metadata.pop("finalizers", None)
    return {**document, "metadata": metadata}
