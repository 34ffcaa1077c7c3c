"""OpenAPI documents from Kubernetes' own definitions: what `kubectl explain`, `apply` and `diff` read.

Stands apart because it is a translation: the definitions (JSON Schema with nullable type lists) become the dialects
of OpenAPI v3 (one document a group-version) and v2 (one for all). Pure and costly (tens of milliseconds), so the
caller keeps the bytes; nothing is loaded until somebody asks.
Source: KEP-2896 (OpenAPI v3), Kubernetes API concepts, "OpenAPI interface definition".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pilotage.api.catalogue import Resource, Subresource
from pilotage.api.schema import raw_definitions
from pilotage.apiserver.core.custom_resource import CustomResource
from pilotage.apiserver.core.discovery import GroupVersions
from pilotage.apiserver.core.record import Document

_DEFS = "#/$defs/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_DELETE_OPTIONS = f"{_META}.DeleteOptions"
_STATUS = f"{_META}.Status"
_PATCH = f"{_META}.Patch"
_GVK = "x-kubernetes-group-version-kind"
_PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_ACTIONS = {"create": "post", "list": "list", "watch": "watchlist", "get": "get", "update": "put", "patch": "patch"}


def paths_index(groups: GroupVersions, hash_of: Mapping[str, str]) -> Document:
    """`/openapi/v3`: where each group-version's document is; the hash makes its address immutable."""
    index = {}
    for group, versions in groups.items():
        for version in versions:
            path = f"apis/{group}/{version}" if group else f"api/{version}"
            suffix = f"?hash={hash_of[path]}" if path in hash_of else ""
            index[path] = {"serverRelativeURL": f"/openapi/v3/{path}{suffix}"}
    return {"paths": index}


def content_hash(data: bytes) -> str:
    """The hash that goes into a document's address and ETag."""
    return hashlib.sha256(data).hexdigest()[:32].upper()


def v3_document(resources: Iterable[Resource], title_version: str) -> bytes:
    """The document of one group-version."""
    resources = tuple(resources)
    schemas = _schemas(resources)
    document = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": title_version},
        "paths": _paths(resources, "#/components/schemas/", v3=True),
        "components": {
            "schemas": {name: _translate(s, "#/components/schemas/", v3=True) for name, s in schemas.items()}
        },
    }
    return msgspec.json.encode(document)


def v2_document(resources: Iterable[Resource], title_version: str) -> bytes:
    """The document of everything, for clients that know no v3."""
    resources = tuple(resources)
    schemas = _schemas(resources)
    document = {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": title_version},
        "paths": _paths(resources, "#/definitions/", v3=False),
        "definitions": {name: _translate(s, "#/definitions/", v3=False) for name, s in schemas.items()},
    }
    return msgspec.json.encode(document)


def _schema_names(resource: Resource) -> list[str]:
    names = [resource.schema, resource.schema + "List", _DELETE_OPTIONS, _PATCH, _STATUS]
    names += [_subresource_schema(resource, item) for item in resource.subresources]
    return names


def _subresource_schema(resource: Resource, subresource: Subresource) -> str:
    if subresource.group is None:
        return resource.schema.rpartition(".")[0] + f".{subresource.kind}"
    return f"io.k8s.api.{subresource.group.split('.')[0]}.{subresource.version}.{subresource.kind}"


def _schemas(resources: Iterable[Resource]) -> dict[str, Any]:
    """Every schema that the resources need, custom ones among them."""
    custom: dict[str, Any] = {}
    names: list[str] = []
    for resource in resources:
        if isinstance(resource, CustomResource):
            custom |= resource.custom.definitions
        names += _schema_names(resource)
    return _reachable(names, custom)


def _reachable(roots: Iterable[str], custom: Mapping[str, Any]) -> dict[str, Any]:
    definitions = raw_definitions()
    found: dict[str, Any] = {}
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name in found or (name not in custom and name not in definitions):
            continue
        schema = found[name] = custom[name] if name in custom else msgspec.json.decode(definitions[name])
        pending += _references(schema)
    return dict(sorted(found.items()))


def _references(schema: Any) -> Iterable[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):  # a schema of schemas has a property of that name
                yield value.removeprefix(_DEFS)
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)


# Keywords that hold values, not schemas; and those of custom resources that v2 has no words for.
_VALUES = frozenset(("default", "example", "x-kubernetes-validations"))
_NOT_IN_V2 = frozenset(("allOf", "anyOf", "oneOf", "not", "nullable"))


def _translate(schema: Any, prefix: str, *, v3: bool) -> Any:
    """One definition in the target dialect: no null types, references by the target's prefix."""
    if isinstance(schema, list):
        return [_translate(item, prefix, v3=v3) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result: Document = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str):
            result["$ref"] = prefix + value.removeprefix(_DEFS)
        elif key == "type" and isinstance(value, list):
            result["type"] = next(item for item in value if item != "null")
        elif key in _VALUES or (not v3 and key in _NOT_IN_V2 and ("type" in schema or "properties" in schema)):
            if key in _VALUES:
                result[key] = value
        elif key == "oneOf":
            # IntOrString and Quantity; Kubernetes publishes them as formatted strings in v2.
            if v3:
                result["oneOf"] = _translate(value, prefix, v3=v3)
            else:
                result["type"] = "string"
        elif key == "enum" and _GVK in schema:
            result[key] = value
        elif key == "properties":
            result[key] = {name: _property(item, prefix, v3=v3) for name, item in value.items()}
        else:
            result[key] = _translate(value, prefix, v3=v3)
    return result


def _property(schema: Any, prefix: str, *, v3: bool) -> Any:
    translated = _translate(schema, prefix, v3=v3)
    if isinstance(translated, dict):
        if translated.get("enum") in ([], ["v1"]):
            del translated["enum"]
        if v3 and "$ref" in translated and len(translated) > 1:
            # Siblings of $ref are ignored in OpenAPI 3.0, hence allOf, as kube-apiserver writes it.
            reference = {"$ref": translated.pop("$ref")}
            return {**translated, "allOf": [reference], "default": {}}
    return translated


def _paths(resources: Iterable[Resource], prefix: str, *, v3: bool) -> Document:
    paths: Document = {}
    for resource in resources:
        kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        collection = resource.path(namespace="{namespace}") if resource.namespaced else resource.path()
        verbs = set(resource.verbs)
        paths[collection] = _operations(
            resource, verbs & {"list", "create", "deletecollection"}, kind, resource.schema, prefix, v3=v3
        )
        if resource.stored:
            paths[f"{collection}/{{name}}"] = _operations(
                resource, verbs & {"get", "update", "patch", "delete"}, kind, resource.schema, prefix, v3=v3
            )
            if resource.namespaced:
                paths[resource.path()] = _operations(resource, {"list"}, kind, resource.schema, prefix, v3=v3)
        for item in resource.subresources:
            group = resource.group if item.group is None else item.group
            kind = {"group": group, "version": item.version or resource.version, "kind": item.kind}
            schema = _subresource_schema(resource, item)
            if schema not in raw_definitions() and not isinstance(resource, CustomResource):
                continue  # streams such as exec carry no object
            paths[f"{collection}/{{name}}/{item.name}"] = _operations(
                resource, set(item.verbs), kind, schema, prefix, v3=v3
            )
    return {path: _completed(path, operations, v3=v3) for path, operations in paths.items()}


_PATH_PARAMETERS = (("namespace", "object name and auth scope, such as for teams and projects"), ("name", "name"))


def _completed(path: str, operations: Document, *, v3: bool) -> Document:
    """A path's operations with what its parts mean, each under an identifier of its own."""
    for operation in operations.values():
        if "{namespace}" in path:
            operation["operationId"] += "Namespaced"
        operation["operationId"] += path.partition("/{name}/")[2].title().replace("/", "")
    parameters = []
    for name, description in _PATH_PARAMETERS:
        if f"{{{name}}}" in path:
            shape: Document = {"type": "string", "uniqueItems": True}
            parameter = {"name": name, "in": "path", "required": True, "description": description}
            parameters.append({**parameter, **({"schema": shape} if v3 else shape)})
    return {**operations, "parameters": parameters} if parameters else operations


_METHODS = {
    "get": "get",
    "list": "get",
    "create": "post",
    "update": "put",
    "patch": "patch",
    "delete": "delete",
    "deletecollection": "delete",
}


def _operations(resource: Resource, verbs: set[str], kind: Document, schema: str, prefix: str, *, v3: bool) -> Document:
    return {
        _METHODS[verb]: {
            "operationId": f"{verb}{resource.group.title().replace('.', '')}{resource.version.title()}{kind['kind']}",
            "x-kubernetes-action": _ACTIONS.get(verb, verb),
            _GVK: kind,
            **_body(verb, schema, prefix, _patch_types(resource), v3=v3),
            **({"parameters": _parameters(verb, v3=v3)} if verb in ("create", "update", "patch") else {}),
            "responses": _responses(schema + ("List" if verb == "list" else ""), prefix, v3=v3),
        }
        for verb in sorted(verbs)
        if verb in _METHODS
    }


def _parameters(verb: str, *, v3: bool) -> list[Document]:
    # kubectl looks these up to learn whether the server validates fields and can try without writing.
    names = ["dryRun", "fieldManager", "fieldValidation", *(["force"] if verb == "patch" else [])]
    shapes = {name: {"type": "boolean" if name == "force" else "string", "uniqueItems": True} for name in names}
    return [{"name": name, "in": "query", **({"schema": shape} if v3 else shape)} for name, shape in shapes.items()]


def _patch_types(resource: Resource) -> tuple[str, ...]:
    """What kubectl may send: nobody knows how lists of a custom resource merge strategically."""
    if isinstance(resource, CustomResource):
        return tuple(each for each in _PATCH_TYPES if "strategic" not in each)
    return _PATCH_TYPES


def _body(verb: str, schema: str, prefix: str, patch_types: tuple[str, ...], *, v3: bool) -> Document:
    media: tuple[str, ...] = ("*/*",)
    if verb == "patch":
        reference, media = {"$ref": prefix + _PATCH}, patch_types
    elif verb in ("create", "update"):
        reference = {"$ref": prefix + schema}
    elif verb in ("delete", "deletecollection"):
        reference = {"$ref": prefix + _DELETE_OPTIONS}
    else:
        return {}
    if v3:
        return {"requestBody": {"content": {item: {"schema": reference} for item in media}}}
    return {"consumes": list(media)}


def _responses(schema: str, prefix: str, *, v3: bool) -> Document:
    reference = {"$ref": prefix + schema}
    if v3:
        return {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}}
    return {"200": {"description": "OK", "schema": reference}}
