"""What a mutation of a policy makes of an object: an apply configuration merged, or a JSON patch carried out.

Stands apart because all of it is a function of the object, its schema and what the expression evaluated to. An apply
configuration is merged as server-side apply merges, and owns nothing afterwards. Differs from server-side apply, as in
Kubernetes: lists, maps and structs that are owned as a whole cannot be named in it, because whatever the policy leaves
out would silently go; a JSON patch can change them.

Source: KEP-3962.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.api.patch.apply import merge
from pilotage.api.patch.errors import PatchTestFailed
from pilotage.api.patch.fieldset import check_elements
from pilotage.api.patch.json_patch import json_patch
from pilotage.api.schema import ANY, Schema, schema_of
from pilotage.api.schema_conform import conform
from pilotage.api.schema_defaults import default
from pilotage.api.status import ApiError
from pilotage.apiserver.admission.operation import Document
from pilotage.apiserver.core.custom_resource import kind_of, schema_for

_UNKNOWN = "unknown field "


class MutationError(Exception):
    """The mutation cannot be carried out on this object."""


def configured(document: Document, resource: Resource, configuration: Document) -> Document:
    """The document with an apply configuration merged into it. Raises MutationError."""
    schema = schema_for(resource) or schema_of(resource.schema)
    wanted = {**configuration, "apiVersion": resource.api_version, "kind": resource.kind}
    problems = [f"{path}: a field cannot be set to null, a JSONPatch can remove it" for path in _nulls(wanted, "")]
    try:
        conformed = conform(resource, wanted, "Warn", schema=schema)
        check_elements(conformed.document, schema)
    except ApiError as error:
        raise MutationError(f"error applying patch: failed to convert patch object to typed object: {error}") from None
    problems += [f".{_field(warning)}: field not declared in schema" for warning in conformed.warnings]
    if problems:
        text = "failed to convert patch object to typed object"
        raise MutationError(f"error applying patch: {text}: {', '.join(problems)}")
    atomic = [*_atomic(conformed.document, schema, "")]
    if atomic:
        text = "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs"
        raise MutationError(f"error applying patch: {text}: {', '.join(atomic)}")
    merged: Document = merge(document, conformed.document, schema)
    return merged


def _field(warning: str) -> str:
    return warning.removeprefix(_UNKNOWN).strip('"')


def _nulls(value: Any, path: str) -> Iterator[str]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _nulls(item, f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nulls(item, f"{path}[{index}]")


def _atomic(value: Any, schema: Schema, path: str) -> Iterator[str]:
    """Paths of what is owned as a whole."""
    if isinstance(value, (dict, list)) and schema.atomic:
        yield path
    if isinstance(value, dict):
        for name, item in value.items():
            if name in schema.properties:
                yield from _atomic(item, schema.properties[name], f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _atomic(item, schema.items or ANY, f"{path}[{index}]")


def patched(document: Document, patch: list[Document]) -> Document:
    """The document with a JSON patch carried out; itself when one of the patch's tests fails. Raises MutationError."""
    try:
        changed = json_patch(document, patch, lenient=True)
    except PatchTestFailed:
        return document
    except ApiError as error:
        text = str(error).removeprefix("the server rejected our request due to an error in our request: ")
        raise MutationError(f"JSONPatch: {text}") from None
    if not isinstance(changed, dict) or not isinstance(changed.get("metadata"), dict):
        raise MutationError("JSONPatch: the patch leaves no object")
    return changed


def completed(document: Document, resource: Resource) -> Document:
    """The document as the next mutation finds it: in the shape of its kind, with defaults. Raises MutationError."""
    custom = kind_of(resource)
    try:
        if custom is not None:
            whole = custom.decode(resource, document, "Ignore", ()).document
            custom.default(whole)
        else:
            whole = conform(resource, document, "Strict").document
            default(resource, whole)
    except ApiError as error:
        raise MutationError(str(error)) from None
    return whole
