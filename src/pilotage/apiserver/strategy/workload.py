"""Workloads: empty statuses, and the labels by which a Job finds its pods.

Called by `prepare`. Source: the registries of apps/v1 and batch/v1 in Kubernetes 1.36.
"""

from __future__ import annotations

from typing import Any

_Object = dict[str, Any]

_JOB_LABELS = (("batch.kubernetes.io/controller-uid", "uid"), ("controller-uid", "uid"),
               ("batch.kubernetes.io/job-name", "name"), ("job-name", "name"))  # fmt: skip
_JOB_SELECTOR = "batch.kubernetes.io/controller-uid"


def create(workload: _Object) -> None:
    """Nothing has been done yet."""
    workload["status"] = {}


def create_counted(workload: _Object) -> None:
    """As `create`, for kinds that always state their replicas."""
    workload["status"] = {"replicas": 0}


def create_job(job: _Object) -> None:
    """Unless its owner chose a selector, a Job's pods are found by the Job's uid."""
    job["status"] = {}
    spec, metadata = job.setdefault("spec", {}), job["metadata"]
    if spec.get("manualSelector"):
        return
    template = spec.setdefault("template", {}).setdefault("metadata", {})
    labels = dict(template.get("labels") or {})
    for label, field in _JOB_LABELS:
        labels.setdefault(label, metadata[field])
    template["labels"] = labels
    spec.setdefault("selector", {}).setdefault("matchLabels", {}).setdefault(_JOB_SELECTOR, metadata["uid"])
