"""A resource that somebody defined while the server runs: a Resource, and how its kind behaves.

Stands apart because routing, storing, printing and publishing ask a few questions of a resource whose answers, for the
built-in kinds, are tables, and for custom ones come from a definition. `custom` answers them; nothing here knows how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pilotage.api.catalogue import Resource
from pilotage.api.schema import Schema
from pilotage.api.schema_conform import Conformed, FieldValidation
from pilotage.api.status import FieldError
from pilotage.apiserver.core.record import Document

if TYPE_CHECKING:  # the table of all columns asks this module
    from pilotage.apiserver.core.columns.column import Column


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePaths:
    """Where a custom kind keeps what its `scale` subresource shows."""

    replicas: str  # of spec
    status_replicas: str
    selector: str = ""  # "": it has none


class Kind(Protocol):
    """How one version of a custom kind behaves."""

    schema: Schema  # what merging and field ownership need to know
    storage_api_version: str  # the version its objects are stored as
    since: int  # records older than this revision were written under another definition
    terminating: bool  # the definition is going away: nothing new may be made
    columns: tuple[Column, ...]
    fields: Mapping[str, Callable[[Document], str]]  # by which objects can be selected
    scale: ScalePaths | None
    definitions: Mapping[str, Any]  # OpenAPI schemas by name

    def decode(
        self, resource: Resource, document: Document, field_validation: FieldValidation, duplicates: tuple[str, ...]
    ) -> Conformed:
        """A body without fields the kind does not know. Raises ApiError BadRequest."""
        ...

    def default(self, document: Document) -> None:
        """Fill in defaults, in place."""
        ...

    def validate(self, resource: Resource, document: Document, old: Document | None) -> Sequence[FieldError]:
        """Everything wrong with a document."""
        ...

    def read(self, document: Document) -> Document:
        """A stored document as this version shows it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomResource(Resource):
    """One version of a custom resource."""

    custom: Kind


def kind_of(resource: Resource) -> Kind | None:
    """How a custom resource behaves; None for a built-in one."""
    return resource.custom if isinstance(resource, CustomResource) else None


def schema_for(resource: Resource) -> Schema | None:
    """A custom resource's own schema; None for a built-in one."""
    return resource.custom.schema if isinstance(resource, CustomResource) else None
