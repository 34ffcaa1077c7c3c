"""HorizontalPodAutoscalers in their two shapes: autoscaling/v1, which knows only processor time, and v2, which is kept.

Stands apart as the one conversion between built-in versions that is more than names. What v1 has no field for travels
in annotations, so that an old client which reads and writes back loses nothing. Pure. Called by `stored_form`.

Source: autoscaling/v1 and v2 in the Kubernetes API reference; the annotations are Kubernetes' own names.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pilotage.apiserver.core.record import Document

_PREFIX = "autoscaling.alpha.kubernetes.io/"
_METRICS, _BEHAVIOR = f"{_PREFIX}metrics", f"{_PREFIX}behavior"
_CURRENT, _CONDITIONS = f"{_PREFIX}current-metrics", f"{_PREFIX}conditions"
_DEFAULT_CPU_PERCENT = 80


def to_v2(document: Document) -> Document:
    """A v1 document as v2."""
    metadata = dict(document["metadata"])
    annotations = dict(metadata.get("annotations") or {})
    spec, status = dict(document.get("spec") or {}), dict(document.get("status") or {})
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    others = _parsed(annotations.pop(_METRICS, ""), list)
    metrics = [_cpu(percent)] if percent is not None else []
    metrics += others
    spec["metrics"] = metrics or [_cpu(_DEFAULT_CPU_PERCENT)]
    behavior = _parsed(annotations.pop(_BEHAVIOR, ""), dict)
    if behavior:
        spec["behavior"] = behavior
    current = status.pop("currentCPUUtilizationPercentage", None)
    measured = [_cpu_status(current)] if current is not None else []
    measured += _parsed(annotations.pop(_CURRENT, ""), list)
    if measured:
        status["currentMetrics"] = measured
    conditions = _parsed(annotations.pop(_CONDITIONS, ""), list)
    if conditions:
        status["conditions"] = conditions
    return _joined(document, "autoscaling/v2", metadata, annotations, spec, status)


def to_v1(document: Document) -> Document:
    """A v2 document as v1."""
    metadata = dict(document["metadata"])
    annotations = dict(metadata.get("annotations") or {})
    spec, status = dict(document.get("spec") or {}), dict(document.get("status") or {})
    metrics = list(spec.pop("metrics", None) or ())
    own = next((item for item in metrics if _percent(item) is not None), None)
    if own is not None:
        spec["targetCPUUtilizationPercentage"] = _percent(own)
        metrics.remove(own)
    measured = list(status.pop("currentMetrics", None) or ())
    seen = next((item for item in measured if _measured(item) is not None), None)
    if seen is not None:
        status["currentCPUUtilizationPercentage"] = _measured(seen)
        measured.remove(seen)
    carried = (
        (_METRICS, metrics),
        (_BEHAVIOR, spec.pop("behavior", None)),
        (_CURRENT, measured),
        (_CONDITIONS, status.pop("conditions", None)),
    )
    annotations |= {name: msgspec.json.encode(value).decode() for name, value in carried if value}
    return _joined(document, "autoscaling/v1", metadata, annotations, spec, status)


def _joined(
    document: Document, version: str, metadata: Document, annotations: Document, spec: Document, status: Document
) -> Document:
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    made = {**document, "apiVersion": version, "metadata": metadata, "spec": spec}
    if "status" in document:
        made["status"] = status
    return made


def _cpu(percent: int) -> Document:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def _cpu_status(percent: int) -> Document:
    return {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}


def _percent(metric: Document) -> int | None:
    resource = metric.get("resource") or {}
    target = resource.get("target") or {}
    found: int | None = target.get("averageUtilization")
    return found if resource.get("name") == "cpu" and target.get("type") == "Utilization" else None


def _measured(metric: Document) -> int | None:
    resource = metric.get("resource") or {}
    current = resource.get("current") or {}
    # An average value beside it has no place in v1: such a metric is carried whole.
    found: int | None = current.get("averageUtilization")
    return found if resource.get("name") == "cpu" and current.keys() <= {"averageUtilization"} else None


def _parsed(text: str, kind: type) -> Any:
    """What an annotation carries; nothing for one that a user has damaged."""
    try:
        found = msgspec.json.decode(text) if text else kind()
    except msgspec.DecodeError:
        return kind()
    return found if isinstance(found, kind) else kind()
