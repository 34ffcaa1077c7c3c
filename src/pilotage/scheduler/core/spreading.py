"""What a pod without constraints of its own is spread by: the Services that select it and the workload that owns it.

Stands apart from `spread` because it reads other kinds. As kube-scheduler's default selector: all of them together, so
that pods of one revision of one application count, not everything a broad Service selects.
"""

from collections.abc import Iterable

from pilotage.api.core_v1 import Pod, Service
from pilotage.api.labels import Selector, from_match_labels


def owner_selector(pod: Pod, services: Iterable[Service], workload: Selector | None) -> Selector | None:
    """None if neither a Service nor a workload (`workload` is its selector) claims the pod."""
    merged: dict[str, str] = {}
    for service in services:
        if (
            service.metadata.namespace == pod.metadata.namespace
            and service.spec.selector
            and from_match_labels(service.spec.selector).matches(pod.metadata.labels)
        ):
            merged.update(service.spec.selector)
    requirements = from_match_labels(merged).requirements + (workload.requirements if workload else ())
    return Selector(requirements) if requirements else None
