"""The shape of every built-in kind, compiled from Kubernetes' own schema data.

Apart from validation and defaulting because patching and server-side apply ask the same questions of a shape (is this
list a map, which key, is this struct atomic) without wanting a verdict. Fed by the definitions of the
`kubernetes_validate` distribution, read once as raw JSON and decoded one definition at a time, without the
descriptions, when a kind is first used; `raw_definitions` hands the same bytes to the OpenAPI documents.
`schema_conform`, `schema_defaults`, `schema_validation` and `patch` call it.

Left out: the schemas of custom resources are compiled by the same `compile_inline`, but where they come from is the
API server's business. The published data carries neither default values nor enumerations; those few that matter live
beside the code that uses them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import msgspec

KUBERNETES_VERSION = "1.36.0"

_PREFIX = "#/$defs/"

Kind = Literal["object", "map", "list", "string", "bytes", "integer", "number", "boolean", "quantity", "int-or-string",
               "time", "any"]  # fmt: skip

# List-map keys that Kubernetes defaults before it compares elements; the published data has no defaults.
# https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy
KEY_DEFAULTS: Mapping[str, str] = {"protocol": "TCP"}


@dataclass(slots=True, kw_only=True, eq=False)
class Schema:
    """One node of a shape. Nodes of a definition are shared by everything that refers to it and may be cyclic."""

    kind: Kind
    definition: str = ""  # Empty for an inline shape.
    properties: dict[str, Schema] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    items: Schema | None = None  # Element of a list, value of a map.
    atomic: bool = False  # Structs, maps and lists owned and replaced as a whole by server-side apply.
    list_keys: tuple[str, ...] = ()  # Keys of a `map` list; empty for a set.
    merge_key: str = ""  # Strategic merge patch: key of a merged list, empty for a list of scalars.
    merge: bool = False  # Strategic merge patch: lists are merged rather than replaced.
    retain_keys: bool = False
    replace: bool = False  # Strategic merge patch: maps are replaced rather than merged.
    nullable: bool = True
    preserve_unknown: bool = False
    integer_max: int = 0  # 0 means unbounded.
    enum: tuple[Any, ...] = ()
    default: Any = None
    plan: Any = None  # What `schema_values` has to check here, made at first use.

    @property
    def is_set(self) -> bool:
        return self.kind == "list" and not self.atomic and not self.list_keys


ANY = Schema(kind="any", preserve_unknown=True)
_STRING = Schema(kind="string")


class _Property(msgspec.Struct, frozen=True):
    """What we keep of a JSON schema; descriptions are skipped while decoding."""

    ref: str | None = msgspec.field(name="$ref", default=None)
    type: str | tuple[str, ...] | None = None
    format: str | None = None
    properties: dict[str, _Property] | None = None
    required: tuple[str, ...] = ()
    items: _Property | None = None
    additional: _Property | bool | None = msgspec.field(name="additionalProperties", default=None)
    one_of: tuple[dict[str, Any], ...] | None = msgspec.field(name="oneOf", default=None)
    enum: tuple[Any, ...] = ()
    default: Any = None
    nullable: bool | None = None
    list_type: str | None = msgspec.field(name="x-kubernetes-list-type", default=None)
    list_map_keys: tuple[str, ...] = msgspec.field(name="x-kubernetes-list-map-keys", default=())
    map_type: str | None = msgspec.field(name="x-kubernetes-map-type", default=None)
    patch_strategy: str | None = msgspec.field(name="x-kubernetes-patch-strategy", default=None)
    patch_merge_key: str = msgspec.field(name="x-kubernetes-patch-merge-key", default="")
    preserve_unknown: bool = msgspec.field(name="x-kubernetes-preserve-unknown-fields", default=False)
    int_or_string: bool = msgspec.field(name="x-kubernetes-int-or-string", default=False)
    embedded: bool = msgspec.field(name="x-kubernetes-embedded-resource", default=False)


class _Document(msgspec.Struct, frozen=True):
    definitions: dict[str, msgspec.Raw] = msgspec.field(name="$defs")


_decode_property = msgspec.json.Decoder(_Property).decode

# Definitions whose JSON form is not what their (missing) type says.
_SPECIAL: Mapping[str, Kind] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "any",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "any",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "any",
}

# Definitions that are either a struct or a plain value; objects found there have the struct's shape.
_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1"
_STRUCT_OR_VALUE: Mapping[str, str] = {
    f"{_EXTENSIONS}.JSONSchemaPropsOrArray": f"{_EXTENSIONS}.JSONSchemaProps",
    f"{_EXTENSIONS}.JSONSchemaPropsOrBool": f"{_EXTENSIONS}.JSONSchemaProps",
}

_compiled: dict[str, Schema] = {}


@lru_cache(maxsize=1)
def raw_definitions() -> Mapping[str, msgspec.Raw]:
    """Every definition as the JSON text it came in, keyed by name such as `io.k8s.api.core.v1.Pod`."""
    spec = importlib.util.find_spec("kubernetes_validate")  # Found, not imported: importing it loads jsonschema.
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package kubernetes-validate, which holds Kubernetes' schemas, is not installed")
    folder = f"{spec.submodule_search_locations[0]}/kubernetes-json-schema/v{KUBERNETES_VERSION}-local"
    with open(f"{folder}/_definitions.json", "rb") as file:
        return msgspec.json.decode(file.read(), type=_Document).definitions


def schema_of(definition: str) -> Schema:
    """The compiled shape of a definition; `ANY` for an empty or unknown name, which accepts everything."""
    found = _compiled.get(definition)
    if found is None:
        if not definition or definition not in raw_definitions():
            return ANY
        found = _compile_definition(definition)
    return found


def compile_inline(schema: Mapping[str, Any]) -> Schema:
    """Compile a structural schema, such as the `openAPIV3Schema` of a CustomResourceDefinition."""
    compiled = _compile(msgspec.convert(schema, _Property))
    if compiled.kind == "object":
        compiled.properties.setdefault("apiVersion", _STRING)
        compiled.properties.setdefault("kind", _STRING)
        compiled.properties["metadata"] = schema_of("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
    return compiled


def _compile_definition(name: str) -> Schema:
    source = _decode_property(raw_definitions()[name])
    # Registered before its properties are compiled, so that a definition may contain itself.
    node = _compiled[name] = Schema(kind="any", definition=name)
    if name in _SPECIAL:
        node.kind = _SPECIAL[name]
        node.preserve_unknown = node.kind == "any"
    elif source.properties is None and source.type is None:
        node.preserve_unknown = True
    else:
        _fill(node, source)
    if name in _STRUCT_OR_VALUE:
        node.items = schema_of(_STRUCT_OR_VALUE[name])
    return node


def _compile(source: _Property) -> Schema:
    if source.ref is None:
        node = Schema(kind="any")
        _fill(node, source)
        return node
    target = schema_of(source.ref.removeprefix(_PREFIX))
    if source.map_type is None and source.patch_strategy is None:
        return target
    # The property overrides how the struct is merged: a node of its own that shares the children.
    node = Schema(kind=target.kind, definition=target.definition, properties=target.properties,
                  required=target.required, items=target.items, atomic=target.atomic)  # fmt: skip
    _fill_merge_rules(node, source)
    return node


def _fill(node: Schema, source: _Property) -> None:
    types = (source.type,) if isinstance(source.type, str) else source.type or ()
    node.nullable = "null" in types or source.nullable is not False
    node.preserve_unknown = source.preserve_unknown
    node.enum = source.enum
    node.default = source.default
    if source.int_or_string or (source.one_of is not None and not types and not source.properties):
        node.kind = "int-or-string"
    elif "object" in types or source.properties is not None:
        _fill_object(node, source)
    elif "array" in types:
        node.kind = "list"
        node.items = _compile(source.items) if source.items else ANY
    elif "string" in types:
        node.kind = "bytes" if source.format == "byte" else "time" if source.format == "date-time" else "string"
    elif "integer" in types:
        node.kind = "integer"
        node.integer_max = 2**31 - 1 if source.format == "int32" else 2**63 - 1
    elif "number" in types:
        node.kind = "number"
    elif "boolean" in types:
        node.kind = "boolean"
    else:
        node.preserve_unknown = True
    _fill_merge_rules(node, source)


def _fill_object(node: Schema, source: _Property) -> None:
    node.required = source.required
    if source.properties is None and isinstance(source.additional, _Property):
        node.kind = "map"
        node.items = _compile(source.additional)
    elif source.properties is None:
        # `type: object` without properties: an empty struct, free-form only where extra keys are allowed.
        node.kind = "object"
        node.preserve_unknown = source.preserve_unknown or source.additional is True
    else:
        node.kind = "object"
        for name, child in source.properties.items():
            node.properties[name] = _compile(child)
        if source.embedded:
            node.properties["metadata"] = schema_of("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")


def _fill_merge_rules(node: Schema, source: _Property) -> None:
    strategies = source.patch_strategy.split(",") if source.patch_strategy else ()
    node.merge = "merge" in strategies
    node.retain_keys = "retainKeys" in strategies
    node.replace = "replace" in strategies
    node.merge_key = source.patch_merge_key
    if source.map_type is not None:
        node.atomic = source.map_type == "atomic"
    if node.kind == "list":
        # https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy: atomic unless declared;
        # where only a patch strategy is declared it counts as the list type.
        if source.list_type == "map":
            node.list_keys = source.list_map_keys
        elif source.list_type is None and node.merge:
            node.list_keys = (source.patch_merge_key,) if source.patch_merge_key else ()
        else:
            node.atomic = source.list_type != "set"
    elif node.kind == "any":
        node.atomic = True
