"""metadata.managedFields as values: who owns which fields, since when.

Between the wire's list of entries and the algorithms of `apply`, which want a mapping from manager to set. Called by
`apply` only.

Specification: ManagedFieldsEntry in
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from pilotage.api.patch.errors import PatchError
from pilotage.api.patch.fieldset import FieldSet, union

# As the Kubernetes API server: beyond this many Update entries the oldest become one, so objects stay bounded.
UPDATE_MANAGERS_MAX = 10
_ANCIENT = "ancient-changes"

Operation = Literal["Apply", "Update"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """Identity of one entry: the same name owns separately by apply, by update, and through each subresource."""

    name: str
    operation: Operation
    api_version: str
    subresource: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What one manager owns and when that last changed."""

    fields: FieldSet
    time: str

    def with_fields(self, fields: FieldSet) -> Ownership:
        return self if fields is self.fields else replace(self, fields=fields)


Managers = dict[Manager, Ownership]


def decode(entries: Any) -> Managers:
    """The owners of an object; entries of an unknown format are refused."""
    managers: Managers = {}
    for entry in entries or ():
        if not isinstance(entry, dict) or entry.get("operation") not in ("Apply", "Update"):
            raise PatchError.malformed("metadata.managedFields: every entry needs the operation Apply or Update")
        if entry.get("fieldsType", "FieldsV1") != "FieldsV1" or not isinstance(entry.get("fieldsV1", {}), dict):
            raise PatchError.malformed("metadata.managedFields: fieldsType must be FieldsV1")
        manager = Manager(
            name=entry.get("manager", ""),
            operation=entry["operation"],
            api_version=entry.get("apiVersion", ""),
            subresource=entry.get("subresource", ""),
        )
        managers[manager] = Ownership(fields=entry.get("fieldsV1", {}), time=entry.get("time", ""))
    return managers


def encode(managers: Managers) -> list[dict[str, Any]]:
    """The entries in Kubernetes' order: apply before update, then by time, then by name."""
    entries = []
    for manager, owned in sorted(_capped(managers).items(), key=_order):
        entry: dict[str, Any] = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
        }
        if owned.time:
            entry["time"] = owned.time
        entry |= {"fieldsType": "FieldsV1", "fieldsV1": owned.fields}
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    return entries


def _order(item: tuple[Manager, Ownership]) -> tuple[str, ...]:
    manager, owned = item
    return manager.operation, owned.time, manager.name, manager.api_version, manager.subresource


def _capped(managers: Managers) -> Managers:
    updates = [item for item in managers.items() if item[0].operation == "Update" and not item[0].subresource]
    excess = len(updates) - UPDATE_MANAGERS_MAX
    if excess <= 0:
        return managers
    oldest = sorted(updates, key=_order)[: excess + 1]
    gone = {manager for manager, _ in oldest}
    kept = {manager: owned for manager, owned in managers.items() if manager not in gone}
    ancient = Manager(name=_ANCIENT, operation="Update", api_version=oldest[0][0].api_version)
    kept[ancient] = Ownership(fields=all_fields(owned for _, owned in oldest), time=max(o.time for _, o in oldest))
    return kept


def all_fields(owners: Iterable[Ownership]) -> FieldSet:
    """What the owners have together."""
    together: FieldSet = {}
    for owned in owners:
        together = union(together, owned.fields)
    return together
