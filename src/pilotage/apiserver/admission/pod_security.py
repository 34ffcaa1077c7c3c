"""The Pod Security Standards a namespace's labels ask for: enforced on pods, warned about on pods and workloads.

The `audit` mode is accepted and judged by nobody: this server keeps no audit log.

Specification: https://kubernetes.io/docs/concepts/security/pod-security-admission/, KEP-2579.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pilotage.api.pod_security import LEVELS, violations
from pilotage.api.schema_problems import Problems
from pilotage.api.status import invalid
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.documents import Documents

_PREFIX = "pod-security.kubernetes.io/"
_MODES = ("enforce", "audit", "warn")
_version = re.compile(r"latest|v1\.(0|[1-9][0-9]*)").fullmatch
# Listing more would help nobody read the warning.
_PODS_REPORTED_MAX = 10

# Workload → where its pod template is.
_TEMPLATES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "PodTemplate"): ("template",),
    ("", "ReplicationController"): ("spec", "template"),
    ("apps", "DaemonSet"): ("spec", "template"),
    ("apps", "Deployment"): ("spec", "template"),
    ("apps", "ReplicaSet"): ("spec", "template"),
    ("apps", "StatefulSet"): ("spec", "template"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
    ("batch", "Job"): ("spec", "template"),
}


def pod_security(operation: Operation, documents: Documents) -> None:
    """Raises ApiError Forbidden for a pod its namespace does not allow, Invalid for labels that mean nothing."""
    document = operation.document
    if document is None:
        return
    if operation.kind == ("", "Namespace"):
        _namespace(operation, document, documents)
    elif operation.kind == ("", "Pod"):
        _pod(operation, document, documents)
    elif operation.kind in _TEMPLATES and not operation.subresource:
        template = _dig(document, _TEMPLATES[operation.kind])
        if operation.old is None or template != _dig(operation.old, _TEMPLATES[operation.kind]):
            _warn(operation, _labels(operation, documents), template)


def _pod(operation: Operation, pod: Document, documents: Documents) -> None:
    if operation.subresource not in ("", "ephemeralcontainers", "resize"):
        return
    if operation.old is not None and operation.old.get("spec") == pod.get("spec"):
        return
    labels = _labels(operation, documents)
    level, version = _policy(labels, "enforce")
    found = violations(level, pod["metadata"], pod["spec"])
    if found:
        raise operation.forbidden(f'violates PodSecurity "{level}:{version}": {found}')
    _warn(operation, labels, pod)


def _warn(operation: Operation, labels: Mapping[str, str], template: Mapping[str, Any]) -> None:
    level, version = _policy(labels, "warn")
    found = violations(level, template.get("metadata") or {}, template.get("spec") or {})
    if found:
        operation.warnings.append(f'would violate PodSecurity "{level}:{version}": {found}')


def _namespace(operation: Operation, namespace: Document, documents: Documents) -> None:
    labels = namespace["metadata"].get("labels") or {}
    before = ((operation.old or {}).get("metadata") or {}).get("labels") or {}
    problems = Problems()
    for mode in _MODES:
        level, version = labels.get(f"{_PREFIX}{mode}"), labels.get(f"{_PREFIX}{mode}-version")
        if level not in (None, *LEVELS):
            problems.invalid(f"metadata.labels[{_PREFIX}{mode}]", level, f"must be one of {', '.join(LEVELS)}")
        if version is not None and not _version(version):
            problems.invalid(
                f"metadata.labels[{_PREFIX}{mode}-version]", version, 'must be "latest" or "v1.x"'
            )  # fmt: skip
    if problems.errors:
        raise invalid("Namespace", operation.name, problems.errors)
    policy = _policy(labels, "enforce")
    if operation.old is None or policy == _policy(before, "enforce"):
        return
    reasons: dict[str, list[str]] = {}
    for pod in documents.list("", "pods", operation.name):
        found = violations(policy[0], pod["metadata"], pod["spec"])
        if found:
            # Who does it differs from pod to pod; what they do is enough here.
            reasons.setdefault(re.sub(r" \([^)]*\)", "", found), []).append(pod["metadata"]["name"])
    if reasons:
        operation.warnings.append(
            f'existing pods in namespace "{operation.name}" violate the new PodSecurity enforce level '
            f'"{policy[0]}:{policy[1]}"'
        )
    for what, names in list(reasons.items())[:_PODS_REPORTED_MAX]:
        first, others = min(names), len(names) - 1
        more = f" (and {others} other pod{'s' if others > 1 else ''})" if others else ""
        operation.warnings.append(f"{first}{more}: {what}")


def _labels(operation: Operation, documents: Documents) -> Mapping[str, str]:
    namespace = documents.get("", "namespaces", "", operation.namespace) or {}
    labels: Mapping[str, str] = (namespace.get("metadata") or {}).get("labels") or {}
    return labels


def _policy(labels: Mapping[str, str], mode: str) -> tuple[str, str]:
    """Level and version; a label that means nothing, which only an old object can have, is taken as the strictest."""
    level = labels.get(f"{_PREFIX}{mode}", "privileged")
    return level if level in LEVELS else LEVELS[-1], labels.get(f"{_PREFIX}{mode}-version", "latest")


def _dig(document: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    here: Any = document
    for name in path:
        here = here.get(name) or {}
    found: Mapping[str, Any] = here
    return found
