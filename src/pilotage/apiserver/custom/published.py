"""A definition's schema as OpenAPI publishes it: what `kubectl explain` prints and clients generate code from.

Stands apart because it is a translation in one direction. Kubernetes' own extensions stay; the object gets the fields
every object has, and a list of its kind goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_META = "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1"
_API_VERSION = "APIVersion defines the versioned schema of this representation of an object."
_KIND = "Kind is a string value representing the REST resource this object represents."
_METADATA = "Standard object's metadata."


def schema_name(group: str, version: str, kind: str) -> str:
    """`com.example.v1.Widget`, the group's labels reversed."""
    return ".".join([*reversed(group.split(".")), version, kind])


def published(spec: Mapping[str, Any], version: str, schema: Mapping[str, Any]) -> Mapping[str, Json]:
    """The schemas of one version: the kind and its list."""
    group, names = spec["group"], spec["names"]
    kind, list_kind = names["kind"], names.get("listKind") or f"{names['kind']}List"
    name = schema_name(group, version, kind)
    gvk = [{"group": group, "kind": kind, "version": version}]
    properties = dict(schema.get("properties") or {})
    properties["apiVersion"] = {"description": _API_VERSION, "type": "string"}
    properties["kind"] = {"description": _KIND, "type": "string"}
    properties["metadata"] = {"description": _METADATA, "$ref": f"{_META}.ObjectMeta"}
    own: Json = {key: value for key, value in schema.items() if key not in ("properties", "type")}
    listed: Json = {
        "description": f"{list_kind} is a list of {kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": _API_VERSION, "type": "string"},
            "kind": {"description": _KIND, "type": "string"},
            "metadata": {"description": "Standard list metadata.", "$ref": f"{_META}.ListMeta"},
            "items": {
                "description": f"List of {names['plural']}.",
                "type": "array",
                "items": {"$ref": f"#/$defs/{name}"},
            },
        },
        "x-kubernetes-group-version-kind": [{"group": group, "kind": list_kind, "version": version}],
    }
    return {
        name: {**own, "type": "object", "properties": properties, "x-kubernetes-group-version-kind": gvk},
        f"{name}List": listed,
    }
