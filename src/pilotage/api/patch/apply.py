"""Server-side apply: every manager owns the fields it applied, and nobody else's are touched by accident.

`server_side_apply` merges a manager's intent into the live object, `track_update` keeps the owners right when objects
are written in any other way. Both are called by the API server for every write, with the subresource written to; `now`
is an RFC 3339 time. Arguments are never modified, results share unchanged parts with them.

Left out: tracking across API versions of a kind with different shapes; the built-ins served here have one each.

Specification: KEP-555, https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import json
from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.api.patch.compare import Comparison, compare, whole
from pilotage.api.patch.errors import ApplyConflict, PatchError
from pilotage.api.patch.fieldset import (
    MEMBER,
    FieldSet,
    check_elements,
    child_of,
    difference,
    element_key,
    fields_of,
    intersection,
    members,
    path_text,
    union,
)
from pilotage.api.patch.managed import Manager, Managers, Ownership, all_fields, decode, encode
from pilotage.api.schema import ANY, Schema, schema_of
from pilotage.api.schema_conform import conform

_Object = dict[str, Any]

# Fields the API server owns by itself, so no manager ever does.
_UNOWNED_METADATA = frozenset(
    {"name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion",
     "deletionTimestamp", "deletionGracePeriodSeconds"}
)  # fmt: skip
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def server_side_apply(
    live: _Object | None,
    applied: _Object,
    resource: Resource,
    *,
    manager: str,
    force: bool = False,
    subresource: str = "",
    now: str,
    schema: Schema | None = None,  # None: the built-in kind's own
) -> _Object:
    """The live object with the manager's intent applied; `live` itself when nothing changes.

    Raises ApplyConflict when fields of other managers would change and `force` is not set. `live` is None when the
    object does not exist yet; the result then is what to create.
    """
    schema = schema or schema_of(resource.schema)
    _check_applied(applied, resource)
    applied = conform(resource, applied, "Strict", schema=schema).document
    check_elements(applied, schema)
    intent = _owned_part(applied, resource, subresource)
    if live is None:
        owner = Manager(name=manager, operation="Apply", api_version=resource.api_version, subresource=subresource)
        created = {**applied, "metadata": dict(applied.get("metadata") or {})}
        created["metadata"]["managedFields"] = encode({owner: Ownership(fields=fields_of(intent, schema), time=now)})
        return created
    return _Apply(live, intent, resource, schema, subresource).run(manager, force, now)


def _check_applied(applied: _Object, resource: Resource) -> None:
    if not isinstance(applied, dict):
        raise PatchError.malformed("an applied configuration must be an object")
    if applied.get("apiVersion") != resource.api_version or applied.get("kind") != resource.kind:
        raise PatchError.malformed(
            f"the applied configuration must be a {resource.kind} of {resource.api_version}, "
            f"not {applied.get('kind')!r} of {applied.get('apiVersion')!r}"
        )
    metadata = applied.get("metadata")
    if isinstance(metadata, dict) and metadata.get("managedFields"):
        raise PatchError.malformed("metadata.managedFields must be nil")


def _owned_part(document: _Object, resource: Resource, subresource: str) -> _Object:
    """What a write through this (sub)resource can own: the rest is reset by the strategies and belongs to nobody."""
    part = {key: value for key, value in document.items() if key not in ("apiVersion", "kind", "metadata")}
    if subresource == "status":
        part = {"status": part["status"]} if "status" in part else {}
    elif not subresource and resource.subresource("status") is not None:
        part.pop("status", None)
    metadata = {key: value for key, value in document.get("metadata", {}).items() if key not in _UNOWNED_METADATA}
    if metadata:
        part["metadata"] = metadata
    return part


class _Apply:
    """One apply onto a live object."""

    def __init__(self, live: _Object, intent: _Object, resource: Resource, schema: Schema, subresource: str) -> None:
        self.live, self.intent, self.resource, self.schema = live, intent, resource, schema
        self.subresource = subresource
        self.managers = decode(live["metadata"].get("managedFields"))

    def run(self, manager: str, force: bool, now: str) -> _Object:
        api_version = self.resource.api_version
        owner = Manager(name=manager, operation="Apply", api_version=api_version, subresource=self.subresource)
        before = dict(self.managers)
        live_part = _owned_part(self.live, self.resource, "")
        if self.subresource == "status":
            live_part = _owned_part(self.live, self.resource, "status")
        if not self.managers:
            # Written before anybody was tracked: whatever is there belongs to this placeholder.
            first = Manager(name="before-first-apply", operation="Update", api_version=api_version)
            self.managers[first] = Ownership(fields=whole(live_part, self.schema), time=now)
        last = self.managers.get(owner)
        wanted = fields_of(self.intent, self.schema)
        if last is None or last.fields != wanted:
            self.managers[owner] = Ownership(fields=wanted, time=now)
        merged = merge(live_part, self.intent, self.schema)
        if last is not None:
            merged = prune(merged, last.fields, all_fields(self.managers.values()), self.schema)
        comparison = compare(live_part, merged, self.schema)
        self._take_over(comparison, owner, force)
        if not comparison.changed and not comparison.removed and self.managers == before:
            return self.live
        return self._assemble(merged)

    def _take_over(self, comparison: Comparison, owner: Manager, force: bool) -> None:
        contested = {
            manager: common
            for manager, owned in self.managers.items()
            if manager != owner and (common := intersection(owned.fields, comparison.changed))
        }
        if contested and not force and not (owner.name == "kubectl" and self._all_last_applied(contested)):
            raise ApplyConflict(
                {_printed(who, self.managers[who]): [*map(path_text, members(f))] for who, f in contested.items()}
            )
        _forget(self.managers, comparison, owner)

    def _all_last_applied(self, contested: dict[Manager, FieldSet]) -> bool:
        """Whether kubectl itself set the contested fields by client-side apply: moving over is no conflict."""
        try:
            last = json.loads(self.live["metadata"].get("annotations", {}).get(_LAST_APPLIED, ""))
            known = fields_of(_owned_part(last, self.resource, self.subresource), self.schema)
        except (ValueError, TypeError, AttributeError):
            return False
        return not any(difference(fields, known) for fields in contested.values())

    def _assemble(self, merged: _Object) -> _Object:
        result = {key: value for key, value in self.live.items() if key in ("apiVersion", "kind")}
        kept = self.live["metadata"]
        metadata = {key: value for key, value in kept.items() if key in _UNOWNED_METADATA}
        metadata |= merged.get("metadata", {})
        metadata["managedFields"] = encode(self.managers)
        result["metadata"] = metadata
        # Parts this subresource cannot write stay as they are.
        written = _owned_part(self.live, self.resource, self.subresource)
        result |= {
            key: value
            for key, value in self.live.items()
            if key not in written and key not in ("apiVersion", "kind", "metadata")
        }
        result |= {key: value for key, value in merged.items() if key != "metadata"}
        return result


def track_update(
    old: _Object | None,
    new: _Object,
    resource: Resource,
    *,
    manager: str,
    subresource: str = "",
    now: str,
    schema: Schema | None = None,  # None: the built-in kind's own
) -> _Object:
    """The written object with `managedFields` brought up to date after a create, update or patch.

    `old` is None on create. A client may hand over entries by writing them, which is how kubectl moves from client-side
    to server-side apply. An object whose entries were stripped by `[{}]` stays untracked until somebody applies.
    """
    schema = schema or schema_of(resource.schema)
    metadata = new.get("metadata") or {}
    given = metadata.get("managedFields")
    entries = _valid_entries(given) or (old or {}).get("metadata", {}).get("managedFields")
    if old is not None and (not entries or given == [{}]):
        return _with_managed_fields(new, metadata, None)
    owner = Manager(name=manager, operation="Update", api_version=resource.api_version, subresource=subresource)
    before = {} if old is None else _owned_part(old, resource, subresource)
    comparison = compare(before, _owned_part(new, resource, subresource), schema)
    if not comparison.changed and not comparison.removed:
        return _with_managed_fields(new, metadata, entries)
    managers = decode(entries)
    unchanged = dict(managers)
    _forget(managers, comparison, owner)
    last = managers.get(owner)
    fields = union(difference(last.fields, comparison.removed) if last else {}, comparison.changed)
    if fields and (last is None or fields != last.fields):
        managers[owner] = Ownership(fields=fields, time=now)
    if managers == unchanged:
        return _with_managed_fields(new, metadata, entries)
    return _with_managed_fields(new, metadata, encode(managers))


def _valid_entries(given: Any) -> list[_Object] | None:
    try:
        return given if given and decode(given) else None
    except PatchError:
        return None


def _with_managed_fields(document: _Object, metadata: _Object, entries: list[_Object] | None) -> _Object:
    if metadata.get("managedFields") is entries:
        return document
    metadata = {key: value for key, value in metadata.items() if key != "managedFields"}
    if entries:
        metadata["managedFields"] = entries
    return {**document, "metadata": metadata}


def _forget(managers: Managers, comparison: Comparison, owner: Manager) -> None:
    """Everybody but the owner loses what changed; everybody loses what is gone."""
    for manager, owned in list(managers.items()):
        fields = difference(owned.fields, comparison.removed)
        if manager != owner:
            fields = difference(fields, comparison.changed)
        if fields:
            managers[manager] = owned.with_fields(fields)
        else:
            del managers[manager]


def _printed(manager: Manager, owned: Ownership) -> str:
    text = json.dumps(manager.name)
    if manager.subresource:
        text += f" with subresource {json.dumps(manager.subresource)}"
    if manager.operation == "Update":
        text += f" using {manager.api_version}" + (f" at {owned.time}" if owned.time else "")
    return text


def merge(live: Any, applied: Any, schema: Schema) -> Any:
    """The live value with the applied one laid over it by the shape's merge rules."""
    if schema.atomic or live == applied:
        return applied if live != applied else live
    if isinstance(live, dict) and isinstance(applied, dict):
        merged = dict(live)
        for name, value in applied.items():
            merged[name] = merge(live[name], value, child_of(schema, name)) if name in live else value
        return merged
    if isinstance(live, list) and isinstance(applied, list) and schema.kind == "list":
        return _merge_list(live, applied, schema)
    return applied


def _merge_list(live: list[Any], applied: list[Any], schema: Schema) -> list[Any]:
    """Elements of both in the order of both, the applied one where they differ; what only the live list has goes first.

    As in Kubernetes' structured-merge-diff, so that a new element stands behind those that were there before it.
    """
    shape = schema.items or ANY
    keys = [element_key(item, schema) for item in live]
    known = dict(zip(keys, live, strict=True))
    intent = {element_key(item, schema): item for item in applied}
    shared = [key for key in intent if key in known]
    merged: list[Any] = []
    at, turn = 0, 0  # the next of `live`, the next of `shared`
    for key, item in intent.items():
        while at < len(live) and (turn == len(shared) or keys[at] != shared[turn]):
            if keys[at] not in intent:
                merged.append(live[at])
            at += 1
        if key in known:
            merged.append(merge(known[key], item, shape))
            turn += 1
        else:
            merged.append(item)
    return merged + [item for key, item in zip(keys[at:], live[at:], strict=True) if key not in intent]


def prune(value: Any, last: FieldSet, owned: FieldSet, schema: Schema) -> Any:
    """Without what the manager applied last time and nobody owns any more."""
    if schema.atomic or not last:
        return value
    if isinstance(value, dict):
        return _prune_fields(value, last, owned, schema)
    if isinstance(value, list) and schema.kind == "list":
        kept = []
        for item in value:
            key = element_key(item, schema)
            node = last.get(key)
            if node is None:
                kept.append(item)
            elif key in owned:
                kept.append(prune(item, node, owned[key], schema.items or ANY))
        return kept
    return value


def _prune_fields(value: _Object, last: FieldSet, owned: FieldSet, schema: Schema) -> _Object:
    kept = dict(value)
    for element, node in last.items():
        name = element.removeprefix("f:")
        if element == MEMBER or name not in kept:
            continue
        if element in owned:
            kept[name] = prune(kept[name], node, owned[element], child_of(schema, name))
        elif not node or MEMBER in node or (schema.kind == "object" and name != "metadata"):
            del kept[name]  # A field of a struct goes with all that hangs below, defaults included.
        else:
            kept[name] = prune(kept[name], node, {}, child_of(schema, name))
    return kept
