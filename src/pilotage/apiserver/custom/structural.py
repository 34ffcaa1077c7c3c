"""Is a schema structural, and does it make sense? Judged when a definition is written.

Stands apart from `definition`, which judges names and versions. Every node has a type, what judges values stays out of
what shapes them, defaults are valid, lists that merge have their keys, rules compile. Paths and messages are those of
kube-apiserver. Source: "Specifying a structural schema" in the documentation of custom resources.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilotage.api.schema_problems import Problems
from pilotage.apiserver.cel import PatternError, pattern
from pilotage.apiserver.custom.rules import Rules
from pilotage.apiserver.custom.shape import EMBEDDED_FIELDS, prune, shape_of
from pilotage.apiserver.custom.validator import MISSING, validator

Json = Mapping[str, Any]

TYPES = ("array", "boolean", "integer", "number", "object", "string")
# A schema that is deeper than any object may be describes nothing.
DEPTH_MAX = 64
NODES_MAX = 20_000
_UNSUPPORTED = ("definitions", "dependencies", "patternProperties", "id", "$ref", "$schema", "additionalItems")
_SHAPING = ("default", "additionalProperties", "nullable", "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string", "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations")  # fmt: skip
_DESCRIBING = ("type", "title", "description")
_LIST_TYPES = ("atomic", "set", "map")


def check_schema(schema: Json, path: str, problems: Problems) -> None:
    """Record everything that is wrong with the schema of a version."""
    if schema.get("type") != "object":
        if not schema.get("type"):
            problems.required(f"{path}.type", "must not be empty at the root")
        else:
            problems.invalid(f"{path}.type", schema["type"], "must be object at the root")
    if schema.get("nullable"):
        problems.forbidden(f"{path}.nullable", "nullable cannot be true at the root")
    _Walk(problems).node(schema, path, 0, root=True)
    if not problems.errors:
        Rules(shape_of(schema), problems, path)


class _Walk:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._left = NODES_MAX

    def node(self, schema: Json, path: str, depth: int, *, root: bool = False) -> None:
        """A node that shapes values, and all below."""
        problems = self._problems
        self._left -= 1
        if depth > DEPTH_MAX or self._left < 0:
            problems.invalid(path, "schema", "the schema is too large")
            return
        self._keywords(schema, path)
        kind = schema.get("type")
        free = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
        if not root and not kind and not free:
            what = "array items" if path.endswith(".items") else "specified object fields"
            problems.required(f"{path}.type", f"must not be empty for {what}")
        if kind and kind not in TYPES:
            problems.unsupported(f"{path}.type", kind, TYPES)
        if schema.get("x-kubernetes-int-or-string") and kind:
            problems.forbidden(f"{path}.type", "must be empty if x-kubernetes-int-or-string is true")
        additional = schema.get("additionalProperties")
        if additional is not None and schema.get("properties"):
            problems.forbidden(
                f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive"
            )
        if additional is False:
            problems.forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
        self._lists(schema, path)
        self._embedded(schema, path)
        if root:
            self._metadata(schema, path)
        if schema.get("default") is not None:
            self._default(schema, path)
        for name, child in (schema.get("properties") or {}).items():
            if not (root and name == "metadata"):
                self.node(child, f"{path}.properties[{name}]", depth + 1)
        if isinstance(additional, dict):
            self.node(additional, f"{path}.additionalProperties", depth + 1)
        items = schema.get("items")
        if isinstance(items, dict):
            self.node(items, f"{path}.items", depth + 1)
        elif kind == "array":
            problems.required(f"{path}.items", "must be specified")
        self._junctors(schema, path, depth)

    def _junctors(self, schema: Json, path: str, depth: int) -> None:
        for name in ("allOf", "anyOf", "oneOf"):
            for index, child in enumerate(schema.get(name) or ()):
                self._judging(
                    child, f"{path}.{name}[{index}]", depth + 1, bool(schema.get("x-kubernetes-int-or-string"))
                )
        if isinstance(schema.get("not"), dict):
            self._judging(schema["not"], f"{path}.not", depth + 1, False)

    def _judging(self, schema: Json, path: str, depth: int, number_or_text: bool) -> None:
        """A node inside a junctor: it may judge values, never shape them."""
        problems = self._problems
        self._left -= 1
        if depth > DEPTH_MAX or self._left < 0:
            problems.invalid(path, "schema", "the schema is too large")
            return
        self._keywords(schema, path)
        for name in (*_SHAPING, *_DESCRIBING):
            if name == "type" and number_or_text and schema.get("type") in ("integer", "string"):
                continue
            if schema.get(name) not in (None, "", False):
                problems.forbidden(f"{path}.{name}", "must be empty to be structural")
        for name, child in (schema.get("properties") or {}).items():
            self._judging(child, f"{path}.properties[{name}]", depth + 1, False)
        if isinstance(schema.get("items"), dict):
            self._judging(schema["items"], f"{path}.items", depth + 1, False)
        for name in ("allOf", "anyOf", "oneOf"):
            for index, child in enumerate(schema.get(name) or ()):
                self._judging(child, f"{path}.{name}[{index}]", depth + 1, number_or_text)
        if isinstance(schema.get("not"), dict):
            self._judging(schema["not"], f"{path}.not", depth + 1, False)

    def _keywords(self, schema: Json, path: str) -> None:
        problems = self._problems
        for name in _UNSUPPORTED:
            if schema.get(name):
                problems.forbidden(f"{path}.{name}", f"{name} is not supported")
        if schema.get("uniqueItems"):
            text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
            problems.forbidden(f"{path}.uniqueItems", text)
        if schema.get("pattern"):
            try:
                pattern(schema["pattern"])
            except PatternError as error:
                problems.invalid(
                    f"{path}.pattern", schema["pattern"], f"must be a valid regular expression, but isn't: {error}"
                )

    def _lists(self, schema: Json, path: str) -> None:
        problems = self._problems
        kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or ()
        if kind and schema.get("type") != "array":
            problems.invalid(
                f"{path}.type", schema.get("type", ""), "must be array if x-kubernetes-list-type is specified"
            )
        if kind and kind not in _LIST_TYPES:
            problems.unsupported(f"{path}.x-kubernetes-list-type", kind, _LIST_TYPES)
        if keys and kind != "map":
            text = "must be map if x-kubernetes-list-map-keys is non-empty"
            problems.invalid(f"{path}.x-kubernetes-list-type", kind, text)
        if kind != "map":
            return
        if not keys:
            problems.required(
                f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map"
            )
        items = schema.get("items")
        known = (items.get("properties") or {}) if isinstance(items, dict) else {}
        required = (items.get("required") or ()) if isinstance(items, dict) else ()
        for key in keys:
            if key not in known:
                text = "entries must all be names of item properties"
                problems.invalid(f"{path}.x-kubernetes-list-map-keys", list(keys), text)
            elif key not in required and known[key].get("default") is None:
                text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be required"
                problems.required(f"{path}.items.properties[{key}].default", text)

    def _embedded(self, schema: Json, path: str) -> None:
        if not schema.get("x-kubernetes-embedded-resource"):
            return
        if schema.get("type") != "object":
            text = "must be object if x-kubernetes-embedded-resource is true"
            self._problems.invalid(f"{path}.type", schema.get("type", ""), text)
        if not schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
            text = "must not be empty if x-kubernetes-embedded-resource is true"
            self._problems.required(f"{path}.properties", f"{text} without x-kubernetes-preserve-unknown-fields")

    def _metadata(self, schema: Json, path: str) -> None:
        metadata = (schema.get("properties") or {}).get("metadata")
        if not isinstance(metadata, dict):
            return
        for name in metadata.get("properties") or {}:
            if name not in ("name", "generateName"):
                text = (
                    "must not specify anything other than name and generateName, but metadata is implicitly specified"
                )
                self._problems.forbidden(f"{path}.properties[metadata]", text)
                return

    def _default(self, schema: Json, path: str) -> None:
        value, shape = schema["default"], shape_of(schema)
        unknown: list[str] = []
        prune(value, shape, unknown)
        unknown = [name for name in unknown if not (shape.embedded and name in EMBEDDED_FIELDS)]
        if unknown:
            self._problems.invalid(f"{path}.default", value, "must not have unknown fields")
        problems = Problems()
        validator(schema)(value, f"{path}.default", problems, MISSING)
        self._problems.errors.extend(problems.errors)
