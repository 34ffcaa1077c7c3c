"""How one version of a custom kind behaves: decode, default, validate, read.

Stands apart as the object behind `CustomResource`; made from one version of an accepted definition, never changed. What
a built-in kind's tables do for it, this does from a schema. Called by the write pipeline and by readers of old records.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.api.schema import Schema, compile_inline, schema_of
from pilotage.api.schema_conform import REPORTED_MAX, Conformed, FieldValidation, conform
from pilotage.api.schema_problems import Problems
from pilotage.api.schema_validation import check_metadata
from pilotage.api.status import ApiError, FieldError
from pilotage.apiserver.core.columns.column import Column
from pilotage.apiserver.core.custom_resource import ScalePaths
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.custom.printer import columns, first, parse_path
from pilotage.apiserver.custom.published import published
from pilotage.apiserver.custom.rules import Rules
from pilotage.apiserver.custom.shape import Node, fill, prune, shape_of
from pilotage.apiserver.custom.validator import MISSING, validator

_STRING = Schema(kind="string")
_HEAD = Schema(
    kind="object",
    properties={
        "apiVersion": _STRING,
        "kind": _STRING,
        "metadata": schema_of("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"),
    },
)
_BLOCKING = frozenset(("FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"))


class DefinedKind:
    """One version of a definition, compiled."""

    def __init__(self, definition: Document, version: Mapping[str, Any]) -> None:
        spec = definition["spec"]
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}
        subresources = version.get("subresources") or {}
        storage = next(each["name"] for each in spec["versions"] if each.get("storage"))
        self.storage_api_version = f"{spec['group']}/{storage}"
        self.since = int(definition["metadata"].get("resourceVersion") or 0)
        self.terminating = "deletionTimestamp" in definition["metadata"]
        self.shape: Node = shape_of(schema)
        if spec.get("preserveUnknownFields"):
            self.shape.preserve = True
        self.schema: Schema = compile_inline(schema)
        self.schema.preserve_unknown = self.schema.preserve_unknown or self.shape.preserve
        self.columns: tuple[Column, ...] = columns(version.get("additionalPrinterColumns"))
        self.fields: Mapping[str, Callable[[Document], str]] = {
            each["jsonPath"].lstrip("."): _reader(each["jsonPath"]) for each in version.get("selectableFields") or ()
        }
        self.scale = _scale(subresources.get("scale"))
        self.definitions = published(spec, version["name"], schema)
        self._check = validator(
            {key: value for key, value in schema.items() if key != "x-kubernetes-embedded-resource"}
        )
        self._rules = Rules(self.shape, Problems(), "")

    def decode(
        self, resource: Resource, document: Document, field_validation: FieldValidation, duplicates: tuple[str, ...]
    ) -> Conformed:
        """A body without fields the kind does not know. Raises ApiError BadRequest."""
        head = {key: document[key] for key in ("apiVersion", "kind", "metadata") if key in document}
        conformed = conform(resource, head, "Warn", schema=_HEAD)
        unknown: list[str] = []
        body = prune(document, self.shape, unknown, root=True)
        body |= conformed.document
        problems = (*conformed.warnings, *(f'unknown field "{path}"' for path in unknown))
        problems = (*problems, *(f'duplicate field "{path}"' for path in duplicates))[:REPORTED_MAX]
        if problems and field_validation == "Strict":
            cannot = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
            raise ApiError("BadRequest", f"{cannot}: strict decoding error: {', '.join(problems)}")
        return Conformed(document=body, warnings=problems if field_validation == "Warn" else ())

    def default(self, document: Document) -> None:
        """Fill in defaults, in place."""
        fill(document, self.shape)

    def validate(self, resource: Resource, document: Document, old: Document | None) -> Sequence[FieldError]:
        """Everything wrong with a document; what an update leaves unchanged is not judged again."""
        problems = Problems()
        check_metadata(resource, document.get("metadata", {}), problems)
        self._check(document, "", problems, MISSING if old is None else old)
        _check_lists(document, self.shape, "", problems)
        if self._rules:
            if any(error.reason in _BLOCKING for error in problems.errors):
                text = (
                    "some validation rules were not checked because the object was invalid; correct the existing "
                    "errors to complete validation"
                )
                problems.invalid("<nil>", None, text)
            else:
                self._rules.check(document, old, problems)
        return problems.errors

    def read(self, document: Document) -> Document:
        """A document stored under another definition or version: pruned and defaulted as this one says."""
        shown: Document = prune(copy.deepcopy(document), self.shape, [], root=True)
        fill(shown, self.shape)
        return shown


def _reader(path: str) -> Callable[[Document], str]:
    steps = parse_path(path)

    def read(document: Document) -> str:
        value = first(document, steps)
        return "" if value is None else ("true" if value else "false") if isinstance(value, bool) else str(value)

    return read


def _scale(source: Mapping[str, Any] | None) -> ScalePaths | None:
    if source is None:
        return None
    return ScalePaths(
        replicas=source.get("specReplicasPath", "").lstrip("."),
        status_replicas=source.get("statusReplicasPath", "").lstrip("."),
        selector=source.get("labelSelectorPath", "").lstrip("."),
    )


def _check_lists(value: Any, node: Node, path: str, problems: Problems) -> None:
    """Sets hold each value once, maps each key."""
    if not node.sets_below:
        return
    if isinstance(value, dict):
        for name, item in value.items():
            child = node.properties.get(name) or node.additional
            if child is not None:
                _check_lists(item, child, f"{path}.{name}" if path else name, problems)
    elif isinstance(value, list):
        seen: list[Any] = []
        known: set[str] = set()
        for index, item in enumerate(value):
            here = f"{path}[{index}]"
            if node.list_type != "atomic":
                keyed = node.list_type == "map" and isinstance(item, dict)
                key = {name: item.get(name) for name in node.list_keys} if keyed else item
                text = repr(sorted(key.items(), key=str)) if isinstance(key, dict) else repr(key)
                if text in known:
                    problems.duplicate(here, key)
                known.add(text)
                seen.append(key)
            if node.items is not None:
                _check_lists(item, node.items, here, problems)
