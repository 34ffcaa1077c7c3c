"""What every written object passes, in order: decode, default, admit, prepare, validate, record its managers.

Stands apart so that the registry reads as a story of writes, and so that the order, which matters, is stated once:
decoding conforms the document to its schema; defaulting fills it; admission may change or refuse it; the strategy owns
what clients may not write (status, generation, immutable fields); validation judges the result; last, managedFields say
who wrote what. Source: Kubernetes API concepts and "Admission control in Kubernetes".
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import msgspec

from pilotage.api.catalogue import Resource
from pilotage.api.patch.apply import track_update
from pilotage.api.schema_conform import conform, duplicate_fields
from pilotage.api.schema_defaults import default
from pilotage.api.schema_validation import validate
from pilotage.api.status import ApiError, FieldError, invalid
from pilotage.api.timestamp import render
from pilotage.apiserver import body
from pilotage.apiserver.admission import NO_HOOKS, Admission, Hooks, Operation
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.custom_resource import kind_of, schema_for
from pilotage.apiserver.core.negotiation import BodyType
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.strategy import check_update, prepare_create, prepare_update

# Without vowels and look-alikes, as apimachinery's rand: generated names must not spell words.
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_NAME_MAX = 63
_encode = msgspec.json.Encoder().encode

# Of a document and the one it replaces: what is wrong.
FurtherRule = Callable[[Document, Document | None], Sequence[FieldError]]


class Pipeline:
    """The stages, joined. One per server."""

    def __init__(
        self,
        admission: Admission,
        hooks: Hooks = NO_HOOKS,
        rules: Mapping[tuple[str, str], FurtherRule] = MappingProxyType({}),
    ) -> None:
        self._admission = admission
        self._hooks = hooks
        self._rules = rules  # (group, kind) → what the tables of built-in kinds cannot say of it

    def decode(self, call: Call, document: object, duplicates: tuple[str, ...] = ()) -> Document:
        """A body → a document in the shape of its kind. Raises ApiError BadRequest; unknown fields become warnings."""
        resource = call.resource
        if not isinstance(document, dict):
            raise ApiError("BadRequest", f"the body must be one {resource.kind} object")
        for key, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
            given = document.setdefault(key, wanted)
            if given != wanted:
                raise ApiError(
                    "BadRequest",
                    f"the {key} in the data ({str(given)[:80]}) does not match the expected {key} ({wanted})",
                )
        custom = kind_of(resource)
        if custom is not None:
            conformed = custom.decode(resource, document, call.options.field_validation, duplicates)
        else:
            conformed = conform(resource, document, call.options.field_validation, duplicates=duplicates)
        call.warnings.extend(conformed.warnings)
        return conformed.document

    def decode_body(self, call: Call, raw: bytes, kind: BodyType) -> Document:
        """Bytes of a create or update → a document."""
        document = body.decode(raw, kind)
        duplicates: tuple[str, ...] = ()
        # Looking for duplicate fields costs five times what decoding does. A compact body, as Go clients send it, that
        # is as long as its own re-encoding has lost nothing, so it has none.
        if call.options.field_validation != "Ignore" and kind is BodyType.JSON and len(_encode(document)) != len(raw):
            duplicates = duplicate_fields(raw)
        return self.decode(call, document, duplicates)

    async def create(self, call: Call, document: Document) -> Document:
        """A decoded body → the object to store. What is allocated for it collects in the call."""
        custom = kind_of(call.resource)
        if custom is not None and custom.terminating:
            text = "create not allowed while custom resource definition is terminating"
            raise ApiError("MethodNotAllowed", text)
        self._stamp_new(call, document)
        _default(call.resource, document)
        operation = _operation(call, "create", document, None)
        self._admission.review(operation)
        hooked = self._hooks.concern(operation)
        if hooked:
            document = await self._mutated(call, operation)
            if document is not operation.document:
                operation = self._reviewed_again(_operation(call, "create", document, None))
        prepare_create(call.resource, document)
        self._check(call, document, self._validate(call.resource, document, None))
        if hooked:
            await self._hooks.judge(operation)
        return self._finish(call, operation, None, document)

    async def update(self, call: Call, old: Document, new: Document) -> Document:
        """What an update leaves to store; `old` is not changed. What is allocated for it collects in the call."""
        self._keep_system_fields(old, new)
        _default(call.resource, new)
        new = prepare_update(call.resource, old, new, call.subresource)
        operation = _operation(call, "update", new, old)
        self._admission.review(operation)
        hooked = self._hooks.concern(operation)
        if hooked:
            new = await self._mutated(call, operation)
            if new is not operation.document:
                self._keep_system_fields(old, new)
                new = prepare_update(call.resource, old, new, call.subresource)
                operation = self._reviewed_again(_operation(call, "update", new, old))
        # Through status nothing changes but what components report, and that is taken as it is.
        taken = call.subresource == "status" and kind_of(call.resource) is None
        wrong = () if taken else self._validate(call.resource, new, old)
        self._check(call, new, (*wrong, *check_update(call.resource, old, new, call.subresource)))
        if hooked:
            await self._hooks.judge(operation)
        return self._finish(call, operation, old, new)

    async def _mutated(self, call: Call, operation: Operation) -> Document:
        """The document as others have completed it, conforming and defaulted again."""
        changed = await self._hooks.mutate(operation)
        assert operation.document is not None
        if changed is None:
            return operation.document
        before = operation.document["metadata"]
        document = self.decode(call, changed)
        document.setdefault("metadata", {})
        for field in ("name", "namespace", "uid", "creationTimestamp", "managedFields"):
            if field in before:
                document["metadata"][field] = before[field]
        _default(call.resource, document)
        return document

    def _reviewed_again(self, operation: Operation) -> Operation:
        """What others have changed is completed and judged like what the client sent. Raises ApiError."""
        warnings: list[str] = []
        self._admission.review(replace(operation, warnings=warnings))
        operation.warnings.extend(text for text in warnings if text not in operation.warnings)
        return operation

    def authorize_create(self, call: Call) -> None:
        """Whether an apply may create what it does not find. Raises ApiError Forbidden."""
        self._admission.authorize_create(call.user, call.resource, call.namespace, call.name)

    def bind(self, binding: Document) -> Document:
        """A Binding with the labels its node adds to the pod."""
        added = self._admission.bind(((binding.get("target") or {}).get("name")) or "")
        if not added:
            return binding
        metadata = binding.get("metadata") or {}
        return {**binding, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **added}}}

    async def delete(self, call: Call, old: Document) -> None:
        """Whether an object may be deleted. Raises ApiError Forbidden."""
        operation = _operation(call, "delete", None, old)
        self._admission.review(operation)
        if self._hooks.concern(operation):
            await self._hooks.mutate(operation)
            await self._hooks.judge(operation)

    def _validate(self, resource: Resource, document: Document, old: Document | None) -> Sequence[FieldError]:
        custom = kind_of(resource)
        if custom is not None:
            return custom.validate(resource, document, old)
        wrong = validate(resource, document)
        further = self._rules.get((resource.group, resource.kind))
        return wrong if further is None else (*wrong, *further(document, old))

    def _check(self, call: Call, document: Document, errors: Sequence[FieldError]) -> None:
        if errors:
            raise invalid(call.resource.kind, document["metadata"].get("name", ""), errors, call.resource.group)

    def _finish(self, call: Call, operation: Operation, old: Document | None, new: Document) -> Document:
        reservation = self._admission.reserve(operation)
        if reservation is not None:
            call.reserved.append(reservation)
        undo = self._admission.allocate(operation)
        if undo is not None:
            call.allocated.append(undo)
        if call.applied:
            return new  # server-side apply has recorded its managers itself
        return track_update(
            old,
            new,
            call.resource,
            manager=call.manager,
            subresource=call.subresource,
            now=render(call.now),
            schema=schema_for(call.resource),
        )

    def _stamp_new(self, call: Call, document: Document) -> None:
        metadata = document.setdefault("metadata", {})
        if metadata.get("resourceVersion"):
            raise ApiError("BadRequest", "resourceVersion should not be set on objects to be created")
        for field in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(field, None)
        if call.resource.namespaced:
            given = metadata.setdefault("namespace", call.namespace)
            if given != call.namespace:
                raise ApiError(
                    "BadRequest",
                    f"the namespace of the provided object does not match the namespace sent on the request "
                    f"({given!r}, {call.namespace!r})",
                )
        else:
            metadata.pop("namespace", None)
        if not metadata.get("name"):
            prefix = metadata.get("generateName")
            if not prefix:
                missing = FieldError(
                    field="metadata.name",
                    reason="FieldValueRequired",
                    message="Required value: name or generateName is required",
                )
                raise invalid(call.resource.kind, "", (missing,), call.resource.group)
            metadata["name"] = generate_name(prefix)
        call.name = metadata["name"]
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = render(call.now)

    def _keep_system_fields(self, old: Document, new: Document) -> None:
        before, after = old["metadata"], new["metadata"]
        for field in (
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "selfLink",
            "generateName",
        ):
            if field in before:
                after[field] = before[field]
            else:
                after.pop(field, None)


def generate_name(prefix: str) -> str:
    """`prefix` and five random characters, within a name's length."""
    # Nine letters are likelier by a tenth than the rest, which costs no uniqueness; one draw is five times faster.
    suffix = "".join(_SUFFIX_ALPHABET[byte % len(_SUFFIX_ALPHABET)] for byte in secrets.token_bytes(_SUFFIX_LENGTH))
    return prefix[: _NAME_MAX - _SUFFIX_LENGTH] + suffix


def _operation(
    call: Call, verb: Literal["create", "update", "delete"], document: Document | None, old: Document | None
) -> Operation:
    return Operation(
        verb=verb,
        resource=call.resource,
        namespace=call.namespace,
        name=call.name,
        subresource=call.subresource,
        user=call.user,
        document=document,
        old=old,
        warnings=call.warnings,
        dry_run=call.options.dry_run,
    )


def _default(resource: Resource, document: Document) -> None:
    custom = kind_of(resource)
    if custom is not None:
        custom.default(document)
    else:
        default(resource, document)
