"""Is this object one that Kubernetes would accept? The verdict on a conforming, defaulted document.

Joins the parts: metadata rules here, tables of values (`schema_values`), then the kind's own rules (`schema_rules_*`).
Called by the API server on create and update after `schema_conform` and `schema_defaults`.

Left out: rules that compare with the stored object (the API server's strategies) or need other objects (admission).
"""

from __future__ import annotations

from typing import Any

from pilotage.api import schema_names as names
from pilotage.api.catalogue import Resource
from pilotage.api.schema import Schema, schema_of
from pilotage.api.schema_problems import Problems
from pilotage.api.schema_rules import RULES
from pilotage.api.schema_values import check_values
from pilotage.api.status import FieldError

_Object = dict[str, Any]

_STANDARD_FINALIZERS = frozenset({"orphan", "foregroundDeletion", "kubernetes"})


def validate(resource: Resource, document: _Object, *, schema: Schema | None = None) -> tuple[FieldError, ...]:
    """Everything wrong with the document, in Kubernetes' wording; empty when it is fine.

    `schema` is a custom resource's own, None for built-in kinds.
    """
    problems = Problems()
    check_metadata(resource, document.get("metadata", {}), problems)
    check_values(document, schema or schema_of(resource.schema), problems)
    for rule in RULES.get((resource.group, resource.kind), ()):
        rule(document, problems)
    return _once(problems)


def _once(problems: Problems) -> tuple[FieldError, ...]:
    """Tables and rules may both notice a missing field."""
    return tuple({(error.field, error.reason): error for error in reversed(problems.errors)}.values())[::-1]


def check_metadata(resource: Resource, metadata: _Object, problems: Problems) -> None:
    """Name, namespace, labels, annotations, owners and finalizers of an object."""
    name, rule = metadata.get("name", ""), names.name_rule(resource.group, resource.kind)
    if not name:
        problems.required("metadata.name", "name or generateName is required")
    else:
        problems.check("metadata.name", name, rule(name))
    generate = metadata.get("generateName")
    if generate:
        # The suffix makes a trailing dash good.
        problems.check(
            "metadata.generateName", generate, rule(generate[:-1] + "a" if generate[-1] == "-" else generate)
        )
    namespace = metadata.get("namespace", "")
    if resource.namespaced:
        if not namespace:
            problems.required("metadata.namespace")
        else:
            problems.check("metadata.namespace", namespace, names.dns_label(namespace))
    elif namespace:
        problems.forbidden("metadata.namespace", "not allowed on this type")
    check_labels(metadata.get("labels"), "metadata.labels", problems)
    _check_annotations(metadata.get("annotations"), problems)
    _check_finalizers(metadata.get("finalizers") or (), problems)
    _check_owners(metadata.get("ownerReferences") or (), problems)


def check_labels(labels: dict[str, str] | None, path: str, problems: Problems) -> None:
    """Keys and values of a label map."""
    for key, value in (labels or {}).items():
        problems.check(path, key, names.qualified_name(key))
        problems.check(path, value, names.label_value(value))


def _check_annotations(annotations: dict[str, str] | None, problems: Problems) -> None:
    total = 0
    for key, value in (annotations or {}).items():
        problems.check("metadata.annotations", key, names.qualified_name(key.lower()))
        total += len(key.encode()) + len(value.encode())
    if total > names.ANNOTATIONS_BYTES_MAX:
        problems.too_long("metadata.annotations", names.ANNOTATIONS_BYTES_MAX)


def _check_finalizers(finalizers: Any, problems: Problems) -> None:
    for index, finalizer in enumerate(finalizers):
        path = f"metadata.finalizers[{index}]"
        problem = names.qualified_name(finalizer)
        if problem is not None:
            problems.invalid(path, finalizer, problem)
        elif "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            problems.invalid(path, finalizer, "name is neither a standard finalizer name nor is it fully qualified")
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        problems.invalid(
            "metadata.finalizers", list(finalizers), "finalizer orphan and foregroundDeletion cannot be both set"
        )


def _check_owners(owners: Any, problems: Problems) -> None:
    controllers = [owner for owner in owners if owner.get("controller")]
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        for field, detail in (
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ):
            if not owner.get(field):
                problems.invalid(f"{path}.{field}", owner.get(field, ""), detail)
    if len(controllers) > 1:
        first, second = controllers[:2]
        problems.invalid(
            "metadata.ownerReferences",
            list(owners),
            f'Only one reference can have Controller set to true. Found "true" in references for {first.get("kind")}/'
            f"{first.get('name')} and {second.get('kind')}/{second.get('name')}",
        )
