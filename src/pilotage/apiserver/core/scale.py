"""The Scale view of a workload (autoscaling/v1): its replica count under one shape for all kinds, custom ones too.

Stands apart because kubectl and autoscalers read and write it instead of the object. Pure translation both ways.
"""

from __future__ import annotations

from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.api.status import ApiError
from pilotage.apiserver.core.columns.column import NONE, dig, selector_text
from pilotage.apiserver.core.custom_resource import CustomResource, ScalePaths
from pilotage.apiserver.core.record import Document

_COPIED_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


BUILTIN = ScalePaths(replicas="spec.replicas", status_replicas="status.replicas", selector="spec.selector")


def scale_paths(resource: Resource) -> ScalePaths:
    """Where objects of a resource keep what their Scale shows."""
    if isinstance(resource, CustomResource) and resource.custom.scale is not None:
        return resource.custom.scale
    return BUILTIN


def scale_of(document: Document, paths: ScalePaths = BUILTIN) -> Document:
    """A workload's Scale."""
    replicas = dig(document, paths.replicas)
    if replicas is None and paths is not BUILTIN:
        replicas = 0
    scale: Document = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: document["metadata"][key] for key in _COPIED_METADATA if key in document["metadata"]},
        "spec": {"replicas": 1 if replicas is None else replicas},
        "status": {"replicas": dig(document, paths.status_replicas) or 0},
    }
    selector = _selector(dig(document, paths.selector) if paths.selector else None)
    if selector:
        scale["status"]["selector"] = selector
    return scale


def _selector(selector: Any) -> str:
    if isinstance(selector, str):  # a custom resource keeps it as text
        return selector
    if not isinstance(selector, dict):
        return ""
    # A ReplicationController's selector is a plain map of labels.
    structured = selector if {"matchLabels", "matchExpressions"} & selector.keys() else {"matchLabels": selector}
    text = selector_text(structured)
    return "" if text == NONE else text


def scaled(document: Document, scale: Any, paths: ScalePaths = BUILTIN) -> Document:
    """The workload with a Scale's replica count and, if it names one, its resourceVersion as a condition."""
    if not isinstance(scale, dict) or scale.get("kind", "Scale") != "Scale":
        raise ApiError("BadRequest", "the body must be one Scale object")
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 0:
        raise ApiError("Invalid", "spec.replicas: Invalid value: must be greater than or equal to 0")
    metadata = dict(document["metadata"])
    if version := (scale.get("metadata") or {}).get("resourceVersion"):
        metadata["resourceVersion"] = version
    return {**_with(document, paths.replicas.split("."), replicas), "metadata": metadata}


def _with(value: Any, path: list[str], wanted: int) -> Document:
    """A copy with another value at a path."""
    outer = value if isinstance(value, dict) else {}
    return {**outer, path[0]: _with(outer.get(path[0]), path[1:], wanted) if len(path) > 1 else wanted}
