"""The next steps of a StatefulSet: which ordinals to create and which pods to delete.

Fed by `reconciler.py` with the set, its pods and two revisions; pure. An ordered set gets one step at a time; a
parallel one all steps that do not wait for each other.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from pilotage.api.apps_v1 import StatefulSet, StatefulSetStatus
from pilotage.api.core_v1 import Pod
from pilotage.api.pods import available_in_s, from_template, is_terminal
from pilotage.api.revisions import REVISION_LABEL
from pilotage.api.workloads import scaled
from pilotage.controllers.statefulset.claims import volumes

NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revisions:
    """Names and templates of the revision that runs and the one that is wanted; equal when nothing rolls."""

    current: str
    current_template: dict[str, Any]
    update: str
    update_template: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """A pod to create."""

    ordinal: int
    document: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Delete and create in this order, then write `status`."""

    delete: tuple[Pod, ...]
    create: tuple[Creation, ...]
    status: StatefulSetStatus
    check_after_s: float | None  # when a pod becomes available by mere time; None: never


def ordinal_of(statefulset: StatefulSet, pod: Pod) -> int | None:
    """The number in the pod's name; None if the name is not one of this set's."""
    match = re.fullmatch(re.escape(statefulset.metadata.name) + r"-(0|[1-9]\d{0,9})", pod.metadata.name)
    return int(match[1]) if match else None


def is_surplus(statefulset: StatefulSet, ordinal: int) -> bool:
    """Whether scaling removes the pod of that number."""
    return ordinal not in _ordinals(statefulset)


def plan(statefulset: StatefulSet, pods: Sequence[Pod], revisions: Revisions, now: datetime) -> Plan:
    """`pods`: those the set manages."""
    by_ordinal = {number: pod for pod in pods if (number := ordinal_of(statefulset, pod)) is not None}
    waits = {pod.metadata.name: available_in_s(pod, statefulset.spec.min_ready_seconds, now) for pod in pods}
    status = _status(statefulset, by_ordinal, revisions, waits)
    delete: list[Pod] = []
    create: list[Creation] = []
    if not statefulset.metadata.is_deleting:
        _scale(statefulset, by_ordinal, revisions, waits, delete, create)
        if not delete and not create:
            delete.extend(_outdated(statefulset, by_ordinal, revisions, waits))
    return Plan(
        delete=tuple(delete),
        create=tuple(create),
        status=status,
        check_after_s=min((wait for wait in waits.values() if wait), default=None),
    )


def new_pod(statefulset: StatefulSet, ordinal: int, revisions: Revisions) -> dict[str, Any]:
    """The pod of an ordinal, from the revision that ordinal belongs to."""
    name = f"{statefulset.metadata.name}-{ordinal}"
    is_current = ordinal < _first_updated(statefulset)
    template = revisions.current_template if is_current else revisions.update_template
    spec: dict[str, Any] = {"hostname": name}
    if statefulset.spec.service_name:
        spec["subdomain"] = statefulset.spec.service_name
    if statefulset.spec.volume_claim_templates:
        stated = (template.get("spec") or {}).get("volumes") or []
        spec["volumes"] = volumes(statefulset, ordinal, stated)
    revision = revisions.current if is_current else revisions.update
    labels = {NAME_LABEL: name, INDEX_LABEL: str(ordinal), REVISION_LABEL: revision}
    return from_template(template, owner=statefulset, name=name, labels=labels, spec=spec)


def _scale(
    statefulset: StatefulSet,
    pods: dict[int, Pod],
    revisions: Revisions,
    waits: dict[str, float | None],
    delete: list[Pod],
    create: list[Creation],
) -> None:
    """Fill `delete` and `create` with what brings the set to its size; an ordered set stops at the first step."""
    ordered = statefulset.spec.pod_management_policy != "Parallel"
    wanted = _ordinals(statefulset)
    for ordinal in wanted:
        pod = pods.get(ordinal)
        if pod is None:
            create.append(Creation(ordinal=ordinal, document=new_pod(statefulset, ordinal, revisions)))
        elif is_terminal(pod) and not pod.metadata.is_deleting:
            delete.append(pod)  # it comes back under the same name once it is gone
        elif pod.metadata.is_deleting or waits[pod.metadata.name] != 0:
            if ordered:
                return  # predecessors first
            continue
        else:
            continue
        if ordered:
            return
    for ordinal in sorted(pods.keys() - set(wanted), reverse=True):
        if not pods[ordinal].metadata.is_deleting:
            delete.append(pods[ordinal])
        if ordered:
            return


def _outdated(
    statefulset: StatefulSet, pods: dict[int, Pod], revisions: Revisions, waits: dict[str, float | None]
) -> list[Pod]:
    """Pods of an older revision to replace now, highest ordinal first, within maxUnavailable (1 unless stated)."""
    strategy = statefulset.spec.update_strategy
    if strategy.type != "RollingUpdate":
        return []
    wanted = _ordinals(statefulset)
    stated = strategy.rolling_update.max_unavailable
    budget = 1 if stated is None else max(scaled(stated, len(wanted), round_up=True), 1)
    for ordinal in wanted:
        pod = pods.get(ordinal)
        if pod is None or pod.metadata.is_deleting or waits[pod.metadata.name] != 0:
            budget -= 1
    chosen: list[Pod] = []
    for ordinal in reversed(wanted):
        pod = pods.get(ordinal)
        if ordinal < wanted.start + strategy.rolling_update.partition:
            break
        if pod is None or pod.metadata.is_deleting or pod.metadata.labels.get(REVISION_LABEL) == revisions.update:
            continue
        broken = waits[pod.metadata.name] != 0
        if budget <= 0 and not broken:
            break
        # Replacing a pod that does not serve costs nobody anything; waiting for it could last for ever.
        chosen.append(pod)
        budget -= 0 if broken else 1
    # Without maxUnavailable an update touches one pod at a time, whatever the pod management policy.
    return chosen[:1] if stated is None else chosen


def _ordinals(statefulset: StatefulSet) -> range:
    start = statefulset.spec.ordinals.start
    return range(start, start + statefulset.spec.replicas)


def _first_updated(statefulset: StatefulSet) -> int:
    """Ordinals from here on are created from the update revision; the API defaults the partition to 0."""
    partition = 0
    if statefulset.spec.update_strategy.type == "RollingUpdate":
        partition = statefulset.spec.update_strategy.rolling_update.partition
    return statefulset.spec.ordinals.start + partition


def _status(
    statefulset: StatefulSet, pods: dict[int, Pod], revisions: Revisions, waits: dict[str, float | None]
) -> StatefulSetStatus:
    living = [pod for pod in pods.values() if not is_terminal(pod)]
    of_revision = [pod.metadata.labels.get(REVISION_LABEL) for pod in living if not pod.metadata.is_deleting]
    status = msgspec.structs.replace(
        statefulset.status,
        observed_generation=max(statefulset.metadata.generation, statefulset.status.observed_generation),
        replicas=len(living),
        ready_replicas=sum(1 for pod in living if pod.status.is_ready and not pod.metadata.is_deleting),
        available_replicas=sum(1 for pod in living if waits[pod.metadata.name] == 0 and not pod.metadata.is_deleting),
        current_replicas=of_revision.count(revisions.current),
        updated_replicas=of_revision.count(revisions.update),
        current_revision=revisions.current,
        update_revision=revisions.update,
    )
    replicas = statefulset.spec.replicas
    is_done = (
        statefulset.spec.update_strategy.type == "RollingUpdate"
        and status.updated_replicas == status.replicas == status.ready_replicas == replicas
    )
    if is_done and revisions.current != revisions.update:
        # Every ordinal runs the new template: from now on it is the current one.
        return msgspec.structs.replace(
            status, current_revision=revisions.update, current_replicas=status.updated_replicas
        )
    return status
