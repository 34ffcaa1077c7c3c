"""The verbs on stored objects: create, get, update, patch, delete.

Stands apart from HTTP above it and storage below it: documents in, records out, errors as ApiError. Every write is a
loop of read, compute, compare-and-swap; a lost race is retried from the winner's state unless the client named the
version it saw. Called by the HTTP front, the subresources and bootstrap; `lists` and `watches` do the reading of many.
Source: Kubernetes API concepts; optimistic concurrency as in API conventions, "Concurrency Control and Consistency".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from pilotage.api.catalogue import Resource
from pilotage.api.patch.apply import server_side_apply
from pilotage.api.patch.json_patch import json_patch
from pilotage.api.patch.merge_patch import merge_patch
from pilotage.api.patch.strategic_merge_patch import strategic_merge_patch
from pilotage.api.status import ApiError, already_exists, conflict, not_found
from pilotage.api.timestamp import render
from pilotage.apiserver.cache import ResourceCache
from pilotage.apiserver.call import Call
from pilotage.apiserver.core import deletion
from pilotage.apiserver.core.custom_resource import kind_of, schema_for
from pilotage.apiserver.core.negotiation import BodyType
from pilotage.apiserver.core.options import DeleteOptions
from pilotage.apiserver.core.record import Document, Record, encode, with_revision
from pilotage.apiserver.core.stored_form import shown, to_stored
from pilotage.apiserver.pipeline import Pipeline
from pilotage.apiserver.store import ObjectStore
from pilotage.storage import ConflictError

# Every retry starts from a newer state; this many lost races in a row means the client should slow down.
ATTEMPTS_MAX = 16
GENERATED_NAME_ATTEMPTS_MAX = 8

_NO_STRATEGY = (
    "the body of the request was in an unknown format - accepted media types include: "
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
)

Transform = Callable[[Document], Awaitable[Document]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The outcome of a write."""

    record: Record
    created: bool = False
    deleted: bool = False  # the write completed a deletion, or was one that left nothing behind


class Registry:
    """Objects of every resource, by verb."""

    def __init__(self, store: ObjectStore, pipeline: Pipeline) -> None:
        self.store = store
        self.pipeline = pipeline

    def cache(self, resource: Resource) -> ResourceCache:
        """The objects of a resource."""
        return self.store.resource(resource)

    def get(self, call: Call) -> Record:
        """The object a call names. Raises ApiError NotFound."""
        record = self.cache(call.resource).get(call.key)
        if record is None:
            raise not_found(call.resource.plural, call.name, call.resource.group)
        return record

    async def create(self, call: Call, body: Document) -> Written:
        """Store a new object. Raises ApiError AlreadyExists, Invalid, Forbidden, BadRequest."""
        generated = not (body.get("metadata") or {}).get("name")
        for attempt in range(1, GENERATED_NAME_ATTEMPTS_MAX + 1):
            given = msgspec.json.decode(msgspec.json.encode(body)) if generated else body
            try:
                with call.provisional() as keep:
                    document = to_stored(call.resource, await self.pipeline.create(call, given))
                    call.name = document["metadata"]["name"]
                    if call.options.dry_run:
                        if self.cache(call.resource).get(call.key) is not None:
                            raise already_exists(call.resource.plural, call.name, call.resource.group)
                        return Written(record=_unsaved(call.key, document, 0), created=True)
                    record = await self.store.create(call.resource, call.key, document)
                    keep()
            except ConflictError:
                if generated and attempt < GENERATED_NAME_ATTEMPTS_MAX:
                    continue
                taken = already_exists(call.resource.plural, call.name, call.resource.group)
                if not generated:
                    raise taken from None
                text = f"{taken}, the server was not able to generate a unique name for the object"
                raise ApiError("AlreadyExists", text, details=replace(taken.details, retry_after_seconds=1)) from None
            return Written(record=record, created=True)
        raise AssertionError("unreachable")

    async def update(self, call: Call, body: Document) -> Written:
        """Replace an object with a decoded body (PUT). Raises ApiError NotFound, Conflict, Invalid."""
        metadata = body.setdefault("metadata", {})
        name = metadata.setdefault("name", call.name)
        if name != call.name:
            raise ApiError(
                "BadRequest",
                f"the name of the object ({str(name)[:80]}) does not match the name on the URL ({call.name})",
            )
        if call.resource.namespaced and metadata.setdefault("namespace", call.namespace) != call.namespace:
            raise ApiError("BadRequest", "the namespace of the object does not match the namespace on the request")

        async def transform(current: Document) -> Document:
            return {**body, "metadata": dict(metadata)}

        return await self.modify(call, transform, conditional=bool(metadata.get("resourceVersion")))

    async def patch(self, call: Call, kind: BodyType, patch: object) -> Written:
        """Change an object by a patch; an apply creates what is absent. Raises ApiError, also for a bad patch."""
        if kind is BodyType.APPLY:
            return await self._apply(call, patch)

        async def transform(current: Document) -> Document:
            match kind:
                case BodyType.JSON_PATCH:
                    patched = json_patch(current, patch)
                case BodyType.MERGE_PATCH:
                    patched = merge_patch(current, patch)
                case _:
                    if kind_of(call.resource) is not None:
                        raise ApiError("UnsupportedMediaType", _NO_STRATEGY)
                    patched = strategic_merge_patch(current, patch, call.resource)
            return self.pipeline.decode(call, patched)

        return await self.modify(call, transform, conditional=names_version(patch))

    async def _apply(self, call: Call, patch: object) -> Written:
        if not call.options.field_manager:
            raise ApiError("BadRequest", "fieldManager is required for apply patch")
        if not isinstance(patch, dict):
            raise ApiError("BadRequest", "an applied configuration must be one object")
        call.applied = True

        def apply(live: Document | None) -> Document:
            return server_side_apply(
                live,
                patch,
                call.resource,
                manager=call.options.field_manager,
                force=call.options.force,
                subresource=call.subresource,
                now=render(call.now),
                schema=schema_for(call.resource),
            )

        async def transform(current: Document) -> Document:
            return apply(current)

        conditional = names_version(patch)
        try:
            return await self.modify(call, transform, conditional=conditional)
        except ApiError as error:
            if error.reason != "NotFound" or call.subresource or conditional:
                raise
        self.pipeline.authorize_create(call)
        metadata = patch.setdefault("metadata", {})
        if not isinstance(metadata, dict) or metadata.setdefault("name", call.name) != call.name:
            raise ApiError("BadRequest", "the name of the applied object does not match the name on the URL")
        document = apply(None)
        try:
            return await self.create(call, document)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        return await self.modify(call, transform, conditional=conditional)

    async def modify(self, call: Call, transform: Transform, *, conditional: bool = False) -> Written:
        """Read, transform a private copy, run the pipeline, compare and swap; retry lost races unless `conditional`."""
        for _ in range(ATTEMPTS_MAX):
            current = self.get(call)
            new = await transform(shown(call.resource, current).copy())
            self._check_same_object(call, current, new)
            try:
                with call.provisional() as keep:
                    old = shown(call.resource, current).document
                    new = await self.pipeline.update(call, old, new)
                    written = await self._write(call, current, new)
                    if not call.options.dry_run:
                        keep()
                    return written
            except ConflictError:
                if conditional:
                    raise conflict(call.resource.plural, call.name, call.resource.group) from None
        raise ApiError("TooManyRequests", f"{call.resource.group_resource} {call.name!r} changes too often, try again")

    async def amend(self, call: Call, change: Callable[[Document], Document]) -> Written:
        """A change of the server's own making: no admission, no validation, no manager. Retries lost races."""
        for _ in range(ATTEMPTS_MAX):
            current = self.get(call)
            new = change(current.copy())
            try:
                return await self._write(call, current, new)
            except ConflictError:
                continue
        raise ApiError("TooManyRequests", f"{call.resource.group_resource} {call.name!r} changes too often, try again")

    async def _write(self, call: Call, current: Record, new: Document) -> Written:
        new["metadata"]["resourceVersion"] = str(current.revision)
        new = to_stored(call.resource, new)
        if deletion.finished(call.resource, new):
            if not call.options.dry_run:
                await self.store.delete(call.resource, current)
            return Written(record=_unsaved(current.key, new, current.revision), deleted=True)
        if new == current.document:
            return Written(record=current)  # nothing changed: no revision, no event, as in Kubernetes
        if call.options.dry_run:
            return Written(record=_unsaved(current.key, new, current.revision))
        return Written(record=await self.store.update(call.resource, current, new))

    def _check_same_object(self, call: Call, current: Record, new: Document) -> None:
        metadata = new.setdefault("metadata", {})  # a patch may have taken it away
        if metadata.get("name") != call.name:
            raise ApiError("BadRequest", "metadata.name may not be changed")
        if (version := metadata.get("resourceVersion")) and version != str(current.revision):
            raise conflict(call.resource.plural, call.name, call.resource.group)
        uid, actual = metadata.get("uid"), current.document["metadata"].get("uid")
        if uid and uid != actual:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}"
            raise conflict(call.resource.plural, call.name, call.resource.group, why)

    async def delete(self, call: Call, options: DeleteOptions) -> Written:
        """Delete now, or mark for deletion; `deleted` says which. Raises ApiError NotFound, Conflict."""
        for _ in range(ATTEMPTS_MAX):
            current = self.get(call)
            await self.pipeline.delete(call, shown(call.resource, current).document)
            deletion.check_preconditions(call.resource, call.name, current.document, options)
            document = current.copy()
            gone = deletion.mark_deleted(call.resource, document, options, call.now)
            if options.dry_run:
                return Written(record=_unsaved(current.key, document, current.revision), deleted=gone)
            try:
                if gone:
                    return Written(record=await self.store.delete(call.resource, current), deleted=True)
                if document == current.document:
                    return Written(record=current)
                return Written(record=await self.store.update(call.resource, current, document))
            except ConflictError:
                continue  # preconditions are checked against the new state
        raise ApiError("TooManyRequests", f"{call.resource.group_resource} {call.name!r} changes too often, try again")


def names_version(given: object) -> bool:
    """Whether a body says which resourceVersion it was made for: then a lost race is the client's to retry."""
    metadata = given.get("metadata") if isinstance(given, dict) else None
    return isinstance(metadata, dict) and bool(metadata.get("resourceVersion"))


def _unsaved(key: str, document: Document, revision: int) -> Record:
    """A record that was never stored: what a dry run or a completed deletion answers with."""
    data = encode(document)
    if revision:
        return Record(key, with_revision(data, revision), revision)
    document = msgspec.json.decode(data)
    document["metadata"].pop("resourceVersion", None)
    return Record(key, msgspec.json.encode(document), 0)
