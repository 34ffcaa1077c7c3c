"""The next step of a Deployment: which ReplicaSets to create, scale and forget, and what its status says.

Fed by `reconciler.py` with the Deployment and the ReplicaSets it manages; pure and repeatable: a rollout is the sum of
single steps, each taken from what is, not from what was done before. Spec: Kubernetes documentation "Deployments".
Reading order: `plan`, then `rolling.py` (how fast), `status.py` (what is said).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilotage.api.apps_v1 import Deployment, DeploymentStatus, ReplicaSet
from pilotage.api.codec import to_wire, without_nulls
from pilotage.api.pods import controller_reference
from pilotage.api.workloads import template_hash
from pilotage.controllers.deployment.rolling import proportional, rolling_step, surge_and_unavailable
from pilotage.controllers.deployment.status import deadline_in_s, next_status

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    }
)
REVISIONS_MAX = 2000
"""Characters kept of the revision-history annotation, so that endless rollbacks cannot grow the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A merge patch of one ReplicaSet."""

    replicaset: ReplicaSet
    replicas: int | None  # None: unchanged
    annotations: dict[str, str]  # only those that change

    @property
    def patch(self) -> dict[str, Any]:
        body: dict[str, Any] = {}
        if self.replicas is not None:
            body["spec"] = {"replicas": self.replicas}
        if self.annotations:
            body["metadata"] = {"annotations": self.annotations}
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Carry out in field order; each part alone is harmless to repeat."""

    create: dict[str, Any] | None  # the new ReplicaSet's document
    changes: tuple[Change, ...]
    delete: tuple[ReplicaSet, ...]  # history beyond the limit
    revision: str  # what the Deployment's own revision annotation must say; empty: leave it
    status: DeploymentStatus
    check_after_s: float | None  # when the progress deadline must be looked at again


def plan(deployment: Deployment, owned: Sequence[ReplicaSet], old_pods_exist: bool, now: datetime) -> Plan:
    """`owned`: every ReplicaSet it manages. `old_pods_exist`: whether pods of old ones still run (for Recreate)."""
    new = find_new(deployment, owned)
    old = sorted((item for item in owned if item is not new), key=_age)
    if deployment.metadata.is_deleting:
        return _finish(deployment, new, owned, None, {}, now)
    if deployment.spec.paused:
        sizes = proportional(deployment, new, old) if _is_resized(deployment, owned) else {}
        return _finish(deployment, new, owned, None, sizes, now)
    if new is not None and _is_resized(deployment, owned):
        return _finish(deployment, new, owned, None, proportional(deployment, new, old), now)
    if deployment.spec.strategy.type == "Recreate":
        sizes = {item.metadata.name: 0 for item in old}
        gone = not old_pods_exist and not any(item.spec.replicas or item.status.replicas for item in old)
        target = deployment.spec.replicas if gone else (new.spec.replicas if new else 0)
    else:
        target, sizes = rolling_step(deployment, new, old)
    if new is None:
        # A Recreate waits with the new set until the old pods are gone, so that nobody sees both.
        waits = deployment.spec.strategy.type == "Recreate" and not target and deployment.spec.replicas
        create = None if waits else new_replicaset(deployment, owned, target)
        return _finish(deployment, None, owned, create, sizes, now)
    return _finish(deployment, new, owned, None, sizes | {new.metadata.name: target}, now)


def find_new(deployment: Deployment, owned: Sequence[ReplicaSet]) -> ReplicaSet | None:
    """The oldest set whose template is the Deployment's, the hash label aside."""
    wanted = without_hash(deployment.spec.template)
    name = f"{deployment.metadata.name}-{_hash(deployment)}"
    for item in sorted(owned, key=_age):
        # The name says it too, when a later version of the server filled in more defaults than an earlier one.
        if without_hash(item.spec.template) == wanted or item.metadata.name == name:
            return item
    return None


def without_hash(template: dict[str, Any]) -> dict[str, Any]:
    """A template without what the Deployment controller put into it; nulls and empty metadata do not count."""
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if value}
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != HASH_LABEL}
    compared: dict[str, Any] = without_nulls(template | {"metadata": meta | {"labels": labels}})
    return compared


def new_replicaset(deployment: Deployment, owned: Sequence[ReplicaSet], replicas: int) -> dict[str, Any]:
    """The document of the set for the current template, named by the template's hash."""
    mark = _hash(deployment)
    template = deployment.spec.template
    meta = template.get("metadata") or {}
    labels = {**(meta.get("labels") or {}), HASH_LABEL: mark}
    selector = to_wire(deployment.spec.selector)
    selector["matchLabels"] = {**selector.get("matchLabels", {}), HASH_LABEL: mark}
    return {
        "apiVersion": ReplicaSet.api_version,
        "kind": ReplicaSet.kind,
        "metadata": {
            "name": f"{deployment.metadata.name}-{mark}",
            "namespace": deployment.metadata.namespace,
            "labels": labels,
            "annotations": _annotations(deployment, str(_last_revision(owned) + 1)),
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": deployment.spec.min_ready_seconds,
            "selector": selector,
            "template": {**template, "metadata": {**meta, "labels": labels}},
        },
    }


def revision_of(item: ReplicaSet) -> int:
    """0 for a set that has none."""
    text = item.metadata.annotations.get(REVISION, "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else 0


def _finish(
    deployment: Deployment,
    new: ReplicaSet | None,
    owned: Sequence[ReplicaSet],
    create: dict[str, Any] | None,
    sizes: dict[str, int],
    now: datetime,
) -> Plan:
    changes = [] if deployment.metadata.is_deleting else _changes(deployment, new, owned, sizes)
    status = next_status(deployment, new, owned, create, now)
    revision = ""
    if not deployment.metadata.is_deleting:
        if create is not None:
            revision = create["metadata"]["annotations"][REVISION]
        elif new is not None:
            revision = _new_revision(new, owned)
    return Plan(
        create=create,
        changes=tuple(changes),
        delete=() if deployment.metadata.is_deleting or deployment.spec.paused else _history(deployment, new, owned),
        revision=revision if revision != deployment.metadata.annotations.get(REVISION, "") else "",
        status=status,
        check_after_s=deadline_in_s(deployment, status, now),
    )


def _changes(
    deployment: Deployment, new: ReplicaSet | None, owned: Sequence[ReplicaSet], sizes: dict[str, int]
) -> list[Change]:
    changes = []
    for item in sorted(owned, key=_age):
        replicas = sizes.get(item.metadata.name, item.spec.replicas)
        wanted: dict[str, str] = {}
        if item is new:
            revision = _new_revision(item, owned)
            wanted = _annotations(deployment, revision)
            if revision_of(item) and revision != str(revision_of(item)):
                # A rollback: the set had been a revision before.
                earlier = item.metadata.annotations.get(REVISION_HISTORY, "")
                history = ",".join(part for part in (earlier, str(revision_of(item))) if part)
                wanted[REVISION_HISTORY] = history[-REVISIONS_MAX:].lstrip(",")
        elif item.spec.replicas or replicas:
            wanted = _size_annotations(deployment)
        differing = {key: value for key, value in wanted.items() if item.metadata.annotations.get(key) != value}
        if replicas != item.spec.replicas or differing:
            changes.append(
                Change(
                    replicaset=item,
                    replicas=replicas if replicas != item.spec.replicas else None,
                    annotations=differing,
                )
            )
    return changes


def _is_resized(deployment: Deployment, owned: Sequence[ReplicaSet]) -> bool:
    """Whether `spec.replicas` changed since the sets were last sized: then all are scaled before any rolling."""
    wanted = str(deployment.spec.replicas)
    return any(item.spec.replicas and item.metadata.annotations.get(DESIRED, wanted) != wanted for item in owned)


def _history(deployment: Deployment, new: ReplicaSet | None, owned: Sequence[ReplicaSet]) -> tuple[ReplicaSet, ...]:
    """Old sets beyond the limit, oldest revision first; only those that are empty and settled."""
    idle = [
        item
        for item in owned
        if item is not new
        and not item.metadata.is_deleting
        and not item.spec.replicas
        and not item.status.replicas
        and item.status.observed_generation >= item.metadata.generation
    ]
    old = [item for item in owned if item is not new and not item.metadata.is_deleting]
    excess = len(old) - deployment.spec.revision_history_limit
    return tuple(sorted(idle, key=lambda item: (revision_of(item), _age(item)))[: max(excess, 0)])


def _hash(deployment: Deployment) -> str:
    return template_hash(without_hash(deployment.spec.template), deployment.status.collision_count)


def _annotations(deployment: Deployment, revision: str) -> dict[str, str]:
    copied = {key: value for key, value in deployment.metadata.annotations.items() if key not in _NOT_COPIED}
    return copied | {REVISION: revision} | _size_annotations(deployment)


def _size_annotations(deployment: Deployment) -> dict[str, str]:
    surge, _ = surge_and_unavailable(deployment)
    replicas = deployment.spec.replicas
    return {DESIRED: str(replicas), MAXIMUM: str(replicas + surge)}


def _new_revision(new: ReplicaSet, owned: Sequence[ReplicaSet]) -> str:
    """The new set's number is above all others; it keeps its own as long as that holds."""
    others = _last_revision([item for item in owned if item is not new])
    return str(max(revision_of(new), others + 1))


def _last_revision(owned: Sequence[ReplicaSet]) -> int:
    return max((revision_of(item) for item in owned), default=0)


def _age(item: ReplicaSet) -> tuple[str, str]:
    return (item.metadata.creation_timestamp, item.metadata.name)
