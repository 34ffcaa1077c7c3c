"""What a CustomResourceDefinition says: is it sound, does it change what may not change, which resources does it make.

Stands apart from `definitions`, which serves them. Plain functions over the document; the registrar and the write
pipeline call them.
Source: CustomResourceDefinition in the Kubernetes API reference, and its "version priority".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pilotage.api import schema_names as names
from pilotage.api.catalogue import Resource, Subresource
from pilotage.api.schema_problems import Problems
from pilotage.api.status import FieldError
from pilotage.apiserver.core.custom_resource import CustomResource
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.custom.kind import DefinedKind
from pilotage.apiserver.custom.printer import PathError, parse_path
from pilotage.apiserver.custom.published import schema_name
from pilotage.apiserver.custom.structural import check_schema
from pilotage.apiserver.resources import version_priority

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_APPROVAL = "api-approved.kubernetes.io"
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_READ_WRITE = ("get", "patch", "update")


def check_definition(document: Document, old: Document | None) -> Sequence[FieldError]:
    """Everything wrong with a definition beyond what the tables of built-in kinds say."""
    problems = Problems()
    spec = document.get("spec") or {}
    _check_names(spec, problems)
    _check_group(document, spec, problems)
    if spec.get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        problems.invalid("spec.preserveUnknownFields", True, text)
    versions = spec.get("versions") or ()
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        name = version.get("name", "")
        problems.check(f"{path}.name", name, names.dns_label(name))
        if name in seen:
            problems.invalid(f"{path}.name", name, "must be unique")
        seen.add(name)
        _check_columns(version, path, problems)
        _check_scale(version, path, problems)
    # Unchanged schemas were judged when they were written.
    if old is None or (old.get("spec") or {}).get("versions") != spec.get("versions"):
        _check_schemas(versions, problems)
    _check_conversion(spec, problems)
    if old is not None:
        _check_change(document, old, problems)
    return problems.errors


def _check_schemas(versions: Sequence[Mapping[str, Any]], problems: Problems) -> None:
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") or {} for version in versions]
    if schemas and all(schema == schemas[0] for schema in schemas):
        # kube-apiserver moves a schema that all versions share to the top before it judges it.
        if schemas[0]:
            check_schema(schemas[0], "spec.validation.openAPIV3Schema", problems)
        return
    for index, schema in enumerate(schemas):
        if schema:
            check_schema(schema, f"spec.versions[{index}].schema.openAPIV3Schema", problems)


def _check_names(spec: Document, problems: Problems) -> None:
    given = spec.get("names") or {}
    for field in ("plural", "singular"):
        if given.get(field):
            problems.check(f"spec.names.{field}", given[field], names.dns_label(given[field]))
        elif field == "plural":
            problems.required("spec.names.plural")
    for field in ("kind", "listKind"):
        if given.get(field):
            wrong = names.dns_label(given[field].lower())
            problems.check(
                f"spec.names.{field}",
                given[field],
                wrong and f"may have mixed case, but should otherwise match: {wrong}",
            )
        elif field == "kind":
            problems.required("spec.names.kind")
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        problems.invalid("spec.names.listKind", given["listKind"], "kind and listKind may not be the same")
    for index, short in enumerate(given.get("shortNames") or ()):
        problems.check(f"spec.names.shortNames[{index}]", short, names.dns_label(short))
    for index, category in enumerate(given.get("categories") or ()):
        problems.check(f"spec.names.categories[{index}]", category, names.dns_label(category))
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        problems.unsupported("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced"))


def _check_group(document: Document, spec: Document, problems: Problems) -> None:
    group = spec.get("group", "")
    if not group:
        problems.required("spec.group")
    elif "." not in group:
        problems.invalid("spec.group", group, "should be a domain with at least one dot")
    protected = group in ("k8s.io", "kubernetes.io") or group.endswith((".k8s.io", ".kubernetes.io"))
    if protected and not (document["metadata"].get("annotations") or {}).get(_APPROVAL):
        text = f'protected groups must have approval annotation "{_APPROVAL}", see https://github.com/kubernetes/enhancements/pull/1111'
        problems.required(f"metadata.annotations[{_APPROVAL}]", text)


def _check_columns(version: Mapping[str, Any], path: str, problems: Problems) -> None:
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        where = f"{path}.additionalPrinterColumns[{index}]"
        for field in ("name", "type", "jsonPath"):
            if not column.get(field):
                problems.required(f"{where}.{field}")
        if column.get("type") and column["type"] not in _COLUMN_TYPES:
            problems.unsupported(f"{where}.type", column["type"], _COLUMN_TYPES)
        _check_path(column.get("jsonPath"), f"{where}.jsonPath", problems)
    for index, selectable in enumerate(version.get("selectableFields") or ()):
        _check_path(selectable.get("jsonPath"), f"{path}.selectableFields[{index}].jsonPath", problems)


def _check_path(text: str | None, path: str, problems: Problems) -> None:
    try:
        parse_path(text or ".")
    except PathError as error:
        if text:
            problems.invalid(path, text, str(error))


def _check_scale(version: Mapping[str, Any], path: str, problems: Problems) -> None:
    scale = (version.get("subresources") or {}).get("scale")
    if scale is None:
        return
    for field, roots, required in (
        ("specReplicasPath", ("spec",), True),
        ("statusReplicasPath", ("status",), True),
        ("labelSelectorPath", ("spec", "status"), False),
    ):
        value = scale.get(field) or ""
        where = f"{path}.subresources.scale.{field}"
        if not value:
            if required:
                problems.required(where)
        elif not value.startswith(tuple(f".{root}." for root in roots)):
            problems.invalid(where, value, f"should be a json path under {' or '.join(f'.{root}' for root in roots)}")


def _check_conversion(spec: Document, problems: Problems) -> None:
    conversion = spec.get("conversion") or {}
    if conversion.get("strategy") not in (None, "None", "Webhook"):
        problems.unsupported("spec.conversion.strategy", conversion["strategy"], ("None", "Webhook"))
    if conversion.get("strategy") == "Webhook":
        if not (conversion.get("webhook") or {}).get("clientConfig"):
            problems.required("spec.conversion.webhook.clientConfig", "required when strategy is set to Webhook")
        if len(spec.get("versions") or ()) > 1:
            problems.forbidden("spec.conversion.strategy", "this server converts between versions by None only")


def _check_change(document: Document, old: Document, problems: Problems) -> None:
    before, after = old.get("spec") or {}, document.get("spec") or {}
    established = condition_is_true(old, "Established")
    for path in ("group", "names.plural", *(("scope", "names.kind") if established else ())):
        was, now = _dig(before, path), _dig(after, path)
        if was != now:
            problems.invalid(f"spec.{path}", now, "field is immutable")
    known = {version.get("name") for version in after.get("versions") or ()}
    for index, stored in enumerate((document.get("status") or {}).get("storedVersions") or ()):
        if stored not in known:
            text = "missing from spec.versions; must remain in spec.versions until a storage migration is done"
            problems.invalid(f"status.storedVersions[{index}]", stored, text)


def _dig(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def condition_is_true(document: Document, type_: str) -> bool:
    """Whether a condition of a definition holds."""
    conditions = (document.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == type_ and each.get("status") == "True" for each in conditions)


def resources_of(definition: Document) -> tuple[Resource, ...]:
    """The resources an accepted definition serves, the preferred version first."""
    spec = definition["spec"]
    served = [version for version in spec["versions"] if version.get("served")]
    return tuple(
        _resource(definition, version) for version in sorted(served, key=lambda each: version_priority(each["name"]))
    )


def _resource(definition: Document, version: Mapping[str, Any]) -> CustomResource:
    spec = definition["spec"]
    accepted = spec["names"]
    wanted = version.get("subresources") or {}
    subresources = []
    if "status" in wanted:
        subresources.append(Subresource(name="status", kind=accepted["kind"], verbs=_READ_WRITE))
    if "scale" in wanted:
        subresources.append(
            Subresource(name="scale", kind="Scale", group="autoscaling", version="v1", verbs=_READ_WRITE)
        )
    return CustomResource(
        group=spec["group"],
        version=version["name"],
        plural=accepted["plural"],
        singular=accepted.get("singular") or accepted["kind"].lower(),
        kind=accepted["kind"],
        namespaced=spec["scope"] == "Namespaced",
        schema=schema_name(spec["group"], version["name"], accepted["kind"]),
        short_names=tuple(accepted.get("shortNames") or ()),
        categories=tuple(accepted.get("categories") or ()),
        subresources=tuple(subresources),
        custom=DefinedKind(definition, version),
    )


def name_conflicts(definition: Document, others: Iterable[Mapping[str, Any]]) -> str:
    """Which of a definition's names somebody else in its group has; "" when none.

    `others` are the names (plural, singular, shortNames, kind, listKind) accepted so far.
    """
    wanted = definition["spec"]["names"]
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        resources |= {other.get("plural", ""), other.get("singular", ""), *(other.get("shortNames") or ())}
        kinds |= {other.get("kind", ""), other.get("listKind", "")}
    for field in ("plural", "singular"):
        if wanted.get(field) and wanted[field] in resources:
            return f'"{wanted[field]}" is already in use'
    for short in wanted.get("shortNames") or ():
        if short in resources:
            return f'"{short}" is already in use'
    for field in ("kind", "listKind"):
        if wanted.get(field) and wanted[field] in kinds:
            return f'"{wanted[field]}" is already in use'
    return ""
