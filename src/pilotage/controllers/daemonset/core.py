"""Which nodes lack their daemon pod and which pods are too many, outdated or misplaced.

Fed by `reconciler.py` with the set, its pods and all nodes; pure. Pods are bound by the scheduler, which is told the
node by a required affinity on the node's name, as kube-controller-manager does.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from pilotage.api import placement
from pilotage.api.apps_v1 import DaemonSet, DaemonSetStatus
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Node, Pod, PodSpec, Toleration
from pilotage.api.pods import available_in_s, from_template, is_terminal, template_of
from pilotage.api.revisions import REVISION_LABEL
from pilotage.api.workloads import scaled

BURST_MAX = 250  # pods created or deleted in one pass, as kube-controller-manager

_TOLERATED: tuple[tuple[str, str], ...] = (
    (placement.NOT_READY_TAINT, "NoExecute"),
    (placement.UNREACHABLE_TAINT, "NoExecute"),
    (placement.DISK_PRESSURE_TAINT, "NoSchedule"),
    (placement.MEMORY_PRESSURE_TAINT, "NoSchedule"),
    (placement.PID_PRESSURE_TAINT, "NoSchedule"),
    (placement.UNSCHEDULABLE_TAINT, "NoSchedule"),
)
_NODE_AFFINITY = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Delete, then create, then write `status`."""

    delete: tuple[Pod, ...]
    create: tuple[str, ...]  # node names
    status: DaemonSetStatus
    check_after_s: float | None  # when a pod becomes available by mere time; None: never


def plan(
    daemonset: DaemonSet,
    pods: Sequence[Pod],
    nodes: Sequence[Node],
    revision: str,
    now: datetime,
    waiting: Collection[str] = (),
) -> Plan:
    """`revision`: the name of the current template's revision. `waiting`: nodes on which the next try is not due."""
    by_node: dict[str, list[Pod]] = {}
    for pod in pods:
        by_node.setdefault(node_of(pod), []).append(pod)
    spec = daemon_spec(daemonset)
    delete: list[Pod] = []
    create: list[str] = []
    kept: dict[str, Pod] = {}
    surging: dict[str, Pod] = {}  # nodes where the new pod already stands beside the old one
    mark = revision.rpartition("-")[2]
    surge = _surge_max(daemonset, spec, nodes)
    desired = 0
    misplaced = 0
    for node in sorted(nodes, key=lambda item: item.metadata.name):
        name = node.metadata.name
        should_run, should_stay = fits(spec, node)
        here = by_node.pop(name, [])
        desired += should_run
        misplaced += bool(here) and not should_run
        living = [pod for pod in here if not is_terminal(pod)]
        over = [pod for pod in here if is_terminal(pod) and not pod.metadata.is_deleting]
        # The pod that failed keeps the place of its successor until that one is due.
        delete += [pod for pod in over if pod.status.phase != "Failed" or name not in waiting]
        if not should_stay:
            delete += [pod for pod in living if not pod.metadata.is_deleting]
        elif should_run and not here:
            create.append(name)
        elif living:
            oldest, *rest = sorted(living, key=lambda pod: (pod.metadata.is_deleting, pod.metadata.creation_timestamp))
            if should_run:
                kept[name] = oldest
                if surge and oldest.metadata.labels.get(REVISION_LABEL) != mark:
                    fresh = (pod for pod in rest if pod.metadata.labels.get(REVISION_LABEL) == mark)
                    if successor := next(fresh, None):
                        surging[name] = successor
            delete += [pod for pod in rest if not pod.metadata.is_deleting and surging.get(name) is not pod]
    waits = {name: available_in_s(pod, daemonset.spec.min_ready_seconds, now) for name, pod in kept.items()}
    fresh_waits = [available_in_s(pod, daemonset.spec.min_ready_seconds, now) for pod in surging.values()]
    if surge:
        replaced, added = _surged(daemonset, kept, surging, waits, mark, surge, now)
        delete, create = [*delete, *replaced], [*create, *added]
    elif not delete and not create:
        delete = _outdated(daemonset, kept, waits, revision, desired)
    if daemonset.metadata.is_deleting:
        delete, create = [], []
    return Plan(
        delete=tuple(delete[:BURST_MAX]),
        create=tuple(create[:BURST_MAX]),
        status=_status(daemonset, kept, waits, revision, desired, misplaced),
        check_after_s=min((wait for wait in (*waits.values(), *fresh_waits) if wait), default=None),
    )


def node_of(pod: Pod) -> str:
    """The node a daemon pod is for, bound or not; empty if it does not say."""
    if pod.spec.node_name:
        return pod.spec.node_name
    affinity = pod.spec.affinity.node_affinity
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    for term in required.node_selector_terms if required else ():
        for item in term.match_fields:
            if item.key == "metadata.name" and item.operator == "In" and len(item.values) == 1:
                return item.values[0]
    return ""


def fits(spec: PodSpec, node: Node) -> tuple[bool, bool]:
    """(should run, should stay): a NoSchedule taint keeps new pods away, only NoExecute drives out old ones."""
    if not placement.node_matches(spec, node.metadata.name, node.metadata.labels):
        return False, False
    if spec.node_name and spec.node_name != node.metadata.name:
        return False, False
    untolerated = {taint.effect for taint in node.spec.taints if not placement.tolerates(spec.tolerations, taint)}
    return not untolerated & {"NoSchedule", "NoExecute"}, "NoExecute" not in untolerated


def daemon_spec(daemonset: DaemonSet) -> PodSpec:
    """The template's spec with the tolerations every daemon pod gets."""
    spec = template_of(daemonset.spec.template).spec
    extra = (convert(Toleration, item) for item in _tolerations(daemonset.spec.template))
    return msgspec.structs.replace(spec, tolerations=(*spec.tolerations, *extra))


def new_pod(daemonset: DaemonSet, node_name: str, revision: str) -> dict[str, Any]:
    """The daemon pod for a node."""
    template = daemonset.spec.template
    spec: Mapping[str, Any] = template.get("spec") or {}
    affinity = dict(spec.get("affinity") or {})
    node_affinity = dict(affinity.get("nodeAffinity") or {})
    required = dict(node_affinity.get(_NODE_AFFINITY) or {})
    this_node = [{"key": "metadata.name", "operator": "In", "values": [node_name]}]
    # Every alternative must also be this node; without alternatives, this node is the only term.
    terms = [{**term, "matchFields": this_node} for term in required.get("nodeSelectorTerms") or [{}]]
    affinity["nodeAffinity"] = {**node_affinity, _NODE_AFFINITY: {"nodeSelectorTerms": terms}}
    tolerations = [*(spec.get("tolerations") or ()), *_tolerations(template)]
    return from_template(
        template,
        owner=daemonset,
        generate_name=f"{daemonset.metadata.name}-",
        labels={REVISION_LABEL: revision.rpartition("-")[2]},
        spec={"affinity": affinity, "tolerations": tolerations},
    )


def _tolerations(template: Mapping[str, Any]) -> list[dict[str, str]]:
    keys = list(_TOLERATED)
    if (template.get("spec") or {}).get("hostNetwork"):
        keys.append((placement.NETWORK_UNAVAILABLE_TAINT, "NoSchedule"))
    return [{"key": key, "operator": "Exists", "effect": effect} for key, effect in keys]


def _outdated(
    daemonset: DaemonSet, kept: Mapping[str, Pod], waits: Mapping[str, float | None], revision: str, desired: int
) -> list[Pod]:
    """Pods of older templates to replace now, those that do not serve first."""
    strategy = daemonset.spec.update_strategy
    if strategy.type != "RollingUpdate":
        return []
    mark = revision.rpartition("-")[2]
    budget = max(scaled(strategy.rolling_update.max_unavailable, desired, round_up=True), 1)
    budget -= desired - len(kept) + sum(1 for name, pod in kept.items() if waits[name] != 0 or pod.metadata.is_deleting)
    chosen = []
    outdated = [
        (waits[name] == 0, name, pod)
        for name, pod in kept.items()
        if pod.metadata.labels.get(REVISION_LABEL) != mark and not pod.metadata.is_deleting
    ]
    for serves, _, pod in sorted(outdated, key=lambda item: item[:2]):
        if serves and budget <= 0:
            break
        chosen.append(pod)
        budget -= serves
    return chosen


def _surge_max(daemonset: DaemonSet, spec: PodSpec, nodes: Sequence[Node]) -> int:
    """How many nodes may run the new pod beside the old one at a time; 0: pods are replaced by deletion."""
    strategy = daemonset.spec.update_strategy
    if strategy.type != "RollingUpdate" or strategy.rolling_update.max_surge in (0, "0%"):
        return 0
    desired = sum(1 for node in nodes if fits(spec, node)[0])
    return scaled(strategy.rolling_update.max_surge, desired, round_up=True)


def _surged(
    daemonset: DaemonSet,
    kept: Mapping[str, Pod],
    surging: Mapping[str, Pod],
    waits: Mapping[str, float | None],
    mark: str,
    surge: int,
    now: datetime,
) -> tuple[list[Pod], list[str]]:
    """(old pods whose successor serves, nodes that get a successor now) (KEP-1591)."""
    done: list[Pod] = []
    broken: list[str] = []
    serving: list[str] = []
    for name, pod in kept.items():
        if pod.metadata.labels.get(REVISION_LABEL) == mark:
            continue
        successor = surging.get(name)
        if successor is None:
            # An old pod that does not serve loses nobody anything: its successor costs no surge.
            (serving if waits[name] == 0 and not pod.metadata.is_deleting else broken).append(name)
        elif available_in_s(successor, daemonset.spec.min_ready_seconds, now) == 0:
            if not pod.metadata.is_deleting:
                done.append(pod)
        else:
            surge -= 1
    return done, [*broken, *serving[: max(surge, 0)]]


def _status(
    daemonset: DaemonSet,
    kept: Mapping[str, Pod],
    waits: Mapping[str, float | None],
    revision: str,
    desired: int,
    misplaced: int,
) -> DaemonSetStatus:
    mark = revision.rpartition("-")[2]
    available = sum(1 for wait in waits.values() if wait == 0)
    return msgspec.structs.replace(
        daemonset.status,
        observed_generation=max(daemonset.metadata.generation, daemonset.status.observed_generation),
        desired_number_scheduled=desired,
        current_number_scheduled=len(kept),
        number_misscheduled=misplaced,
        number_ready=sum(1 for pod in kept.values() if pod.status.is_ready),
        updated_number_scheduled=sum(1 for pod in kept.values() if pod.metadata.labels.get(REVISION_LABEL) == mark),
        number_available=available,
        number_unavailable=desired - available,
    )
