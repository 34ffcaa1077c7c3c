"""The columns of what makes pods: deployments, replica sets, stateful and daemon sets, jobs, autoscalers."""

from __future__ import annotations

from datetime import datetime

from pilotage.api.timestamp import parse
from pilotage.apiserver.core.columns.column import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    Cell,
    Column,
    age_of,
    condition,
    container_images,
    container_names,
    count,
    dig,
    duration,
    map_text,
    number,
    selector_text,
    text,
)
from pilotage.apiserver.core.record import Document


def _ready_of_wanted(document: Document, now: datetime) -> Cell:
    wanted = dig(document, "spec.replicas")
    return f"{dig(document, 'status.readyReplicas') or 0}/{1 if wanted is None else wanted}"


def _selector(document: Document, now: datetime) -> Cell:
    return selector_text(dig(document, "spec.selector"))


def _controller(document: Document, now: datetime) -> Cell:
    for owner in dig(document, "metadata.ownerReferences") or ():
        if owner.get("controller"):
            group, _, _ = owner["apiVersion"].rpartition("/")
            return ".".join(filter(None, (owner["kind"].lower(), group))) + f"/{owner['name']}"
    return NONE


def _job_status(document: Document, now: datetime) -> Cell:
    if condition(document, "Complete").get("status") == "True":
        return "Complete"
    if condition(document, "Failed").get("status") == "True":
        return "Failed"
    if document["metadata"].get("deletionTimestamp"):
        return "Terminating"
    if condition(document, "Suspended").get("status") == "True":
        return "Suspended"
    for verdict in ("FailureTarget", "SuccessCriteriaMet"):
        if condition(document, verdict).get("status") == "True":
            return verdict
    return "Running"


def _job_completions(document: Document, now: datetime) -> Cell:
    succeeded = dig(document, "status.succeeded") or 0
    wanted, parallel = dig(document, "spec.completions"), dig(document, "spec.parallelism") or 0
    if wanted is not None:
        return f"{succeeded}/{wanted}"
    return f"{succeeded}/1 of {parallel}" if parallel > 1 else f"{succeeded}/1"


def _job_duration(document: Document, now: datetime) -> Cell:
    start, end = dig(document, "status.startTime"), dig(document, "status.completionTime")
    if not start:
        return ""
    return duration(int(((parse(end) if end else now) - parse(start)).total_seconds()))


def _last_schedule(document: Document, now: datetime) -> Cell:
    last = dig(document, "status.lastScheduleTime")
    return age_of(last, now) if last else NONE


def _target(document: Document, now: datetime) -> Cell:
    return f"{dig(document, 'spec.scaleTargetRef.kind')}/{dig(document, 'spec.scaleTargetRef.name')}"


def _metric_targets(document: Document, now: datetime) -> Cell:
    current = {
        dig(item, "resource.name"): dig(item, "resource.current.averageUtilization")
        for item in dig(document, "status.currentMetrics") or ()
    }
    shown = []
    for metric in dig(document, "spec.metrics") or ():
        name = dig(metric, "resource.name")
        if name is None:
            shown.append(f"{metric.get('type', '').lower()}: {UNKNOWN}")
            continue
        value = current.get(name)
        wanted = dig(metric, "resource.target.averageUtilization")
        shown.append(f"{name}: {UNKNOWN if value is None else f'{value}%'}/{wanted}%")
    return ", ".join(shown) or NONE


_POD_SPEC = "spec.template.spec"
_TEMPLATE = (
    Column("Containers", container_names(_POD_SPEC), priority=1),
    Column("Images", container_images(_POD_SPEC), priority=1),
)
_SELECTOR = Column("Selector", _selector, priority=1)
_REPLICAS = (
    NAME,
    Column("Desired", number("spec.replicas"), type="integer"),
    Column("Current", number("status.replicas"), type="integer"),
    Column("Ready", number("status.readyReplicas"), type="integer"),
    AGE,
    *_TEMPLATE,
)

WORKLOADS: dict[tuple[str, str], tuple[Column, ...]] = {
    ("apps", "deployments"): (
        NAME,
        Column("Ready", _ready_of_wanted),
        Column("Up-to-date", number("status.updatedReplicas"), type="integer"),
        Column("Available", number("status.availableReplicas"), type="integer"),
        AGE,
        *_TEMPLATE,
        _SELECTOR,
    ),
    ("apps", "replicasets"): (*_REPLICAS, _SELECTOR),
    ("", "replicationcontrollers"): (
        *_REPLICAS,
        Column("Selector", lambda document, now: map_text(dig(document, "spec.selector")), priority=1),
    ),
    ("apps", "statefulsets"): (NAME, Column("Ready", _ready_of_wanted), AGE, *_TEMPLATE),
    ("apps", "daemonsets"): (
        NAME,
        Column("Desired", number("status.desiredNumberScheduled"), type="integer"),
        Column("Current", number("status.currentNumberScheduled"), type="integer"),
        Column("Ready", number("status.numberReady"), type="integer"),
        Column("Up-to-date", number("status.updatedNumberScheduled"), type="integer"),
        Column("Available", number("status.numberAvailable"), type="integer"),
        Column("Node Selector", lambda document, now: map_text(dig(document, f"{_POD_SPEC}.nodeSelector"))),
        AGE,
        *_TEMPLATE,
        _SELECTOR,
    ),
    ("apps", "controllerrevisions"): (
        NAME,
        Column("Controller", _controller),
        Column("Revision", number("revision"), type="integer"),
        AGE,
    ),
    ("batch", "jobs"): (
        NAME,
        Column("Status", _job_status),
        Column("Completions", _job_completions),
        Column("Duration", _job_duration),
        AGE,
        *_TEMPLATE,
        _SELECTOR,
    ),
    ("batch", "cronjobs"): (
        NAME,
        Column("Schedule", text("spec.schedule")),
        Column("Timezone", text("spec.timeZone", NONE)),
        Column("Suspend", lambda document, now: "True" if dig(document, "spec.suspend") else "False"),
        Column("Active", count("status.active"), type="integer"),
        Column("Last Schedule", _last_schedule),
        AGE,
        Column("Containers", container_names("spec.jobTemplate.spec.template.spec"), priority=1),
        Column("Images", container_images("spec.jobTemplate.spec.template.spec"), priority=1),
    ),
    ("autoscaling", "horizontalpodautoscalers"): (
        NAME,
        Column("Reference", _target),
        Column("Targets", _metric_targets),
        Column("MinPods", text("spec.minReplicas", "<unset>")),
        Column("MaxPods", number("spec.maxReplicas"), type="integer"),
        Column("Replicas", number("status.currentReplicas"), type="integer"),
        AGE,
    ),
    ("autoscaling", "scales"): (
        NAME,
        Column("Desired", number("spec.replicas"), type="integer"),
        Column("Available", number("status.replicas"), type="integer"),
        AGE,
    ),
    ("policy", "poddisruptionbudgets"): (
        NAME,
        Column("Min Available", text("spec.minAvailable", "N/A")),
        Column("Max Unavailable", text("spec.maxUnavailable", "N/A")),
        Column("Allowed Disruptions", number("status.disruptionsAllowed"), type="integer"),
        AGE,
    ),
}
