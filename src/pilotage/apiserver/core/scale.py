"""The Scale view of a workload (autoscaling/v1): its replica count under one shape for all kinds.

Stands apart because kubectl and autoscalers read and write it instead of the object. Pure translation both ways.
"""

from __future__ import annotations

from typing import Any

from pilotage.api.status import ApiError
from pilotage.apiserver.core.columns.column import NONE, selector_text
from pilotage.apiserver.core.record import Document

_COPIED_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(document: Document) -> Document:
    """A workload's Scale."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    replicas = spec.get("replicas")
    scale: Document = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: document["metadata"][key] for key in _COPIED_METADATA if key in document["metadata"]},
        "spec": {"replicas": 1 if replicas is None else replicas},
        "status": {"replicas": status.get("replicas", 0)},
    }
    selector = _selector(spec.get("selector"))
    if selector:
        scale["status"]["selector"] = selector
    return scale


def _selector(selector: Any) -> str:
    if not isinstance(selector, dict):
        return ""
    # A ReplicationController's selector is a plain map of labels.
    structured = selector if {"matchLabels", "matchExpressions"} & selector.keys() else {"matchLabels": selector}
    text = selector_text(structured)
    return "" if text == NONE else text


def scaled(document: Document, scale: Any) -> Document:
    """The workload with a Scale's replica count and, if it names one, its resourceVersion as a condition."""
    if not isinstance(scale, dict) or scale.get("kind", "Scale") != "Scale":
        raise ApiError("BadRequest", "the body must be one Scale object")
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 0:
        raise ApiError("Invalid", "spec.replicas: Invalid value: must be greater than or equal to 0")
    metadata = dict(document["metadata"])
    if version := (scale.get("metadata") or {}).get("resourceVersion"):
        metadata["resourceVersion"] = version
    return {**document, "metadata": metadata, "spec": {**(document.get("spec") or {}), "replicas": replicas}}
