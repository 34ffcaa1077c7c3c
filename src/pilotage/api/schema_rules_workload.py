"""The rules of everything that makes pods from a template.

Called through `schema_rules`; the template's pods are judged by `schema_rules_pod`.

Source: the API reference of Kubernetes 1.36 for apps/v1, batch/v1, policy/v1 and autoscaling/v2.
"""

from __future__ import annotations

from typing import Any

from pilotage.api import schema_names as names
from pilotage.api.labels import SelectorError, from_label_selector
from pilotage.api.meta_v1 import LabelSelector, LabelSelectorRequirement
from pilotage.api.schema_problems import Problems
from pilotage.api.schema_rules_pod import pod_spec

_Object = dict[str, Any]

_EMPTY_SELECTOR = "empty selector is invalid for {}"


def template(document: _Object, problems: Problems) -> None:
    """Selector present and matching the template's labels; pods that are always restarted."""
    spec = document.get("spec", {})
    kind = str(document.get("kind", "")).lower()
    selector = spec.get("selector")
    if selector is None:
        problems.required("spec.selector")
    elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
        problems.invalid("spec.selector", selector, _EMPTY_SELECTOR.format(kind))
    else:
        check_selector(selector, "spec.selector", problems)
    pod_template(spec, "spec.template", problems, selector)
    policy = spec.get("template", {}).get("spec", {}).get("restartPolicy", "Always")
    if policy != "Always":
        problems.unsupported("spec.template.spec.restartPolicy", policy, ("Always",))


def pod_template(spec: _Object, path: str, problems: Problems, selector: _Object | None = None) -> None:
    """The template's labels and pod."""
    if "template" not in spec:
        problems.required(path)
        return
    labels = spec["template"].get("metadata", {}).get("labels") or {}
    for key, value in labels.items():
        problems.check(f"{path}.labels", key, names.qualified_name(key))
        problems.check(f"{path}.labels", value, names.label_value(value))
    if selector and not selects(selector, labels):
        problems.invalid(f"{path}.metadata.labels", labels, "`selector` does not match template `labels`")
    pod_spec(spec["template"].get("spec", {}), f"{path}.spec", problems)


def selects(selector: _Object, labels: dict[str, str]) -> bool:
    """Whether a LabelSelector matches; one that is malformed is reported elsewhere."""
    typed = LabelSelector(
        match_labels=selector.get("matchLabels") or {},
        match_expressions=tuple(
            LabelSelectorRequirement(
                key=item.get("key", ""), operator=item.get("operator", ""), values=tuple(item.get("values") or ())
            )
            for item in selector.get("matchExpressions") or ()
        ),
    )
    try:
        compiled = from_label_selector(typed)
    except SelectorError:
        return True
    return compiled is not None and compiled.matches(labels)


def check_selector(selector: _Object, path: str, problems: Problems) -> None:
    """Keys, values and operators of a LabelSelector."""
    for key, value in (selector.get("matchLabels") or {}).items():
        problems.check(f"{path}.matchLabels", key, names.qualified_name(key))
        problems.check(f"{path}.matchLabels", value, names.label_value(value))
    for index, item in enumerate(selector.get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{index}]"
        operator, values = item.get("operator"), item.get("values") or ()
        if operator in ("In", "NotIn") and not values:
            problems.required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        if operator in ("Exists", "DoesNotExist") and values:
            problems.forbidden(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        if item.get("key"):
            problems.check(f"{where}.key", item["key"], names.qualified_name(item["key"]))
        for at, value in enumerate(values):
            problems.check(f"{where}.values[{at}]", value, names.label_value(value))


def _share(value: Any, path: str, problems: Problems) -> int | None:
    """An absolute number or a percentage; returns its number, None when it is malformed."""
    if isinstance(value, str):
        digits = value.removesuffix("%")
        if not value.endswith("%") or not digits.isdigit() or not digits.isascii():
            detail = "a valid percent string must be a numeric string followed by an ending '%'"
            problems.invalid(path, value, f"{detail} (e.g. '1%' or '93%', regex used for validation is '[0-9]+%')")
            return None
        return int(digits)
    if value < 0:
        problems.invalid(path, value, "must be greater than or equal to 0")
        return None
    return int(value)


def deployment(document: _Object, problems: Problems) -> None:
    """The rollout can make progress."""
    spec = document.get("spec", {})
    strategy = spec.get("strategy", {})
    rolling = strategy.get("rollingUpdate")
    path = "spec.strategy.rollingUpdate"
    if strategy.get("type") == "Recreate" and rolling is not None:
        problems.forbidden(path, "may not be specified when strategy `type` is 'Recreate'")
    elif rolling is not None:
        unavailable = _share(rolling.get("maxUnavailable", 0), f"{path}.maxUnavailable", problems)
        surge = _share(rolling.get("maxSurge", 0), f"{path}.maxSurge", problems)
        if unavailable == 0 and surge == 0:
            detail = "may not be 0 when `maxSurge` is 0"
            problems.invalid(f"{path}.maxUnavailable", rolling.get("maxUnavailable", 0), detail)
    if spec.get("progressDeadlineSeconds", 600) <= spec.get("minReadySeconds", 0):
        problems.invalid(
            "spec.progressDeadlineSeconds", spec["progressDeadlineSeconds"], "must be greater than minReadySeconds"
        )


def daemon_set(document: _Object, problems: Problems) -> None:
    """Exactly one of unavailable and surge, so that the update has a direction."""
    rolling = document.get("spec", {}).get("updateStrategy", {}).get("rollingUpdate")
    if rolling is None:
        return
    path = "spec.updateStrategy.rollingUpdate"
    unavailable = _share(rolling.get("maxUnavailable", 0), f"{path}.maxUnavailable", problems)
    surge = _share(rolling.get("maxSurge", 0), f"{path}.maxSurge", problems)
    if unavailable and surge:
        problems.invalid(f"{path}.maxSurge", rolling["maxSurge"], "may not be set when maxUnavailable is non-zero")
    if unavailable == 0 and surge == 0:
        problems.required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0")


def stateful_set(document: _Object, problems: Problems) -> None:
    """The update strategy fits; claims have names."""
    spec = document.get("spec", {})
    strategy = spec.get("updateStrategy", {})
    if strategy.get("type") == "OnDelete" and "rollingUpdate" in strategy:
        detail = "only allowed for updateStrategy 'RollingUpdate'"
        problems.invalid("spec.updateStrategy.rollingUpdate", strategy["rollingUpdate"], detail)
    service = spec.get("serviceName")
    if service:
        problems.check("spec.serviceName", service, names.dns_subdomain(service))
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        if not claim.get("metadata", {}).get("name"):
            problems.required(f"spec.volumeClaimTemplates[{index}].metadata.name")


def replication_controller(document: _Object, problems: Problems) -> None:
    """As a ReplicaSet, with a plain map for a selector."""
    spec = document.get("spec", {})
    if not spec.get("selector"):
        problems.required("spec.selector")
    pod_template(spec, "spec.template", problems, {"matchLabels": spec.get("selector") or {}})


def job(document: _Object, problems: Problems) -> None:
    """Pods that end; selectors are made by the server."""
    spec = document.get("spec", {})
    _job_spec(spec, "spec", problems)
    if spec.get("manualSelector"):
        return
    uid = document.get("metadata", {}).get("uid", "")
    for label in _UID_LABELS:
        given = ((spec.get("selector") or {}).get("matchLabels") or {}).get(label)
        if uid and given not in (None, uid):
            problems.invalid("spec.selector", spec["selector"], "`selector` not auto-generated")
    others = (spec.get("selector") or {}).get("matchLabels", {}).keys() - set(_UID_LABELS)
    if uid and (others or (spec.get("selector") or {}).get("matchExpressions")):
        problems.invalid("spec.selector", spec["selector"], "`selector` not auto-generated")


_UID_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")


def _job_spec(spec: _Object, path: str, problems: Problems) -> None:
    pod_template(spec, f"{path}.template", problems, spec.get("selector"))
    policy = spec.get("template", {}).get("spec", {}).get("restartPolicy")
    if policy == "Always":
        problems.unsupported(f"{path}.template.spec.restartPolicy", policy, ("OnFailure", "Never"))
    if spec.get("completionMode") == "Indexed":
        if "completions" not in spec:
            problems.required(f"{path}.completions", 'when completion mode is "Indexed"')
        elif (spec.get("parallelism") or 0) > _INDEXED_PARALLELISM_MAX:
            detail = f"must be less than or equal to {_INDEXED_PARALLELISM_MAX} when completion mode is Indexed"
            problems.invalid(f"{path}.parallelism", spec["parallelism"], detail)
    elif spec.get("backoffLimitPerIndex") is not None:
        problems.invalid(
            f"{path}.backoffLimitPerIndex", spec["backoffLimitPerIndex"], "requires indexed completion mode"
        )
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        problems.required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified")


# A job of a hundred thousand indexes keeps its record in one annotation and one status.
_INDEXED_PARALLELISM_MAX = 100_000


def cron_job(document: _Object, problems: Problems) -> None:
    """A schedule of five fields or a macro, and a sound job."""
    spec = document.get("spec", {})
    schedule = spec.get("schedule", "")
    if not schedule:
        problems.required("spec.schedule")
    elif "TZ" in schedule:
        problems.invalid("spec.schedule", schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
    elif not schedule.startswith("@") and len(schedule.split()) != 5:
        found = len(schedule.split())
        problems.invalid("spec.schedule", schedule, f"expected exactly 5 fields, found {found}: {schedule.split()}")
    if len(document.get("metadata", {}).get("name", "")) > 52:
        problems.invalid("metadata.name", document["metadata"]["name"], "must be no more than 52 characters")
    _job_spec(spec.get("jobTemplate", {}).get("spec", {}), "spec.jobTemplate.spec", problems)


def disruption_budget(document: _Object, problems: Problems) -> None:
    """Either a minimum or a maximum."""
    spec = document.get("spec", {})
    if "minAvailable" in spec and "maxUnavailable" in spec:
        problems.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for field in ("minAvailable", "maxUnavailable"):
        if field in spec:
            _share(spec[field], f"spec.{field}", problems)
    if spec.get("selector"):
        check_selector(spec["selector"], "spec.selector", problems)


def autoscaler(document: _Object, problems: Problems) -> None:
    """Bounds in order, a target with a name, and metrics that say what they aim at."""
    spec = document.get("spec", {})
    if spec.get("maxReplicas", 0) < spec.get("minReplicas", 1):
        detail = "must be greater than or equal to `minReplicas`"
        problems.invalid("spec.maxReplicas", spec.get("maxReplicas", 0), detail)
    target = spec.get("scaleTargetRef") or {}
    for field in ("kind", "name"):
        if not target.get(field):
            problems.required(f"spec.scaleTargetRef.{field}")
        elif "/" in target[field] or "%" in target[field]:
            problems.check(f"spec.scaleTargetRef.{field}", target[field], names.path_segment(target[field]))
    percent = spec.get("targetCPUUtilizationPercentage")
    if percent is not None and percent < 1:
        problems.invalid("spec.targetCPUUtilizationPercentage", percent, "must be greater than 0")
    for index, metric in enumerate(spec.get("metrics") or ()):
        _metric(metric, f"spec.metrics[{index}]", problems)


_METRIC_SOURCES = {"ContainerResource": "containerResource", "External": "external", "Object": "object",
                   "Pods": "pods", "Resource": "resource"}  # fmt: skip


def _metric(metric: _Object, path: str, problems: Problems) -> None:
    kind = metric.get("type", "")
    if not kind:
        problems.required(f"{path}.type", "must specify a metric source type")
        return
    if kind not in _METRIC_SOURCES:
        problems.unsupported(f"{path}.type", kind, _METRIC_SOURCES)
        return
    field = _METRIC_SOURCES[kind]
    if metric.get(field) is None:
        problems.required(f"{path}.{field}", "must populate information for the given metric source")
        return
    for other in _METRIC_SOURCES.values():
        if other != field and metric.get(other) is not None:
            problems.forbidden(f"{path}.{other}", f"must populate the given metric source only, but also has {other}")
    target = metric[field].get("target") or {}
    if not any(target.get(name) is not None for name in ("value", "averageValue", "averageUtilization")):
        problems.required(f"{path}.{field}.target", "must set either a target raw value or a target utilization")
    used = target.get("averageUtilization")
    if used is not None and used < 1:
        problems.invalid(f"{path}.{field}.target.averageUtilization", used, "must be greater than 0")
