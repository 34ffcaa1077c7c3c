"""Writes the status of PodDisruptionBudgets. A request is the budget's name."""

from typing import Any

from pilotage.api.apps_v1 import Deployment, ReplicaSet, StatefulSet
from pilotage.api.codec import to_wire
from pilotage.api.core_v1 import Pod, ReplicationController
from pilotage.api.labels import Selector, from_label_selector
from pilotage.api.meta_v1 import UID
from pilotage.api.policy_v1 import PodDisruptionBudget, PodDisruptionBudgetStatus
from pilotage.api.workloads import status_patch
from pilotage.client import Informer
from pilotage.controllers.disruption.core import needs_sizes, plan
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.writes import Writes

BY_NAMESPACE = "namespace"


class DisruptionReconciler:
    """One budget at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
        self._events = manager.events
        self._budgets = manager.informer(PodDisruptionBudget)
        self._pods = manager.informer(Pod)
        self._deployments = manager.informer(Deployment)
        self._replicasets = manager.informer(ReplicaSet)
        self._controllers = manager.informer(ReplicationController)
        self._statefulsets = manager.informer(StatefulSet)
        self._pods.add_index(BY_NAMESPACE, lambda pod: (pod.metadata.namespace,))
        self._writes = Writes(manager.client)

    def controller(self) -> Controller:
        controller = Controller("disruption", self)
        controller.watch(self._budgets)
        controller.watch(self._pods, self._budgets_of)

        def resized(old: Any, new: Any) -> None:
            if old is not None and new is not None and old.spec.replicas == new.spec.replicas:
                return
            workload = new or old
            for budget in self._budgets.list(workload.metadata.namespace):
                if needs_sizes(budget):
                    controller.queue.add(Request.of(budget))

        workloads: tuple[Informer[Any], ...] = (
            self._deployments,
            self._replicasets,
            self._controllers,
            self._statefulsets,
        )
        for informer in workloads:
            controller.reads(informer)
            informer.add_handler(resized)
        return controller

    def _budgets_of(self, pod: Pod) -> list[Request]:
        return [
            Request.of(budget)
            for budget in self._budgets.list(pod.metadata.namespace)
            if (selector := _selector(budget)) is not None and selector.matches(pod.metadata.labels)
        ]

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        budget = self._budgets.get(request.name, request.namespace)
        if budget is None or budget.metadata.is_deleting:
            return DONE
        selector = _selector(budget)
        pods = [
            pod
            for pod in self._pods.by_index(BY_NAMESPACE, request.namespace)
            if selector is not None and selector.matches(pod.metadata.labels)
        ]
        if not pods:
            self._events.normal(budget, "NoPods", "No matching pods found")
        step = plan(budget, pods, self._sizes(budget, pods), self._clock.wall())
        for pod in step.not_deleted:
            message = f"Pod {pod.metadata.key} was expected by PDB {budget.metadata.key} to be deleted but it wasn't"
            self._events.warning(pod, "NotDeleted", message)
        changes = _changes(budget.status, step.status)
        if changes:
            # The version guards what the eviction subresource may have spent meanwhile.
            body = {"metadata": {"resourceVersion": budget.metadata.resource_version}, "status": changes}
            await self._writes.patch(request, self._budgets, budget, body, subresource="status")
        return Result(requeue_after_s=step.check_after_s) if step.check_after_s else DONE

    def _sizes(self, budget: PodDisruptionBudget, pods: list[Pod]) -> dict[UID, int] | str:
        """Replicas by the uid of the workload that sizes each pod; or why one could not be found."""
        sizes: dict[UID, int] = {}
        if not needs_sizes(budget):
            return sizes
        unmanaged = []
        for pod in pods:
            owner = pod.metadata.controller
            if owner is None:
                unmanaged.append(pod.metadata.name)
                continue
            workload = self._workload(owner.kind, owner.name, owner.uid, pod.metadata.namespace)
            if workload is None:
                message = f'found no controllers for pod "{pod.metadata.name}"'
                self._events.warning(budget, "CalculateExpectedPodCountFailed", message)
                return message
            sizes[workload.metadata.uid] = workload.spec.replicas
        if unmanaged:
            message = f"Pods selected by this PodDisruptionBudget were found to be unmanaged: {sorted(unmanaged)[:10]}"
            self._events.warning(budget, "UnmanagedPods", message)
        return sizes

    def _workload(
        self, kind: str, name: str, uid: UID, namespace: str
    ) -> Deployment | ReplicaSet | ReplicationController | StatefulSet | None:
        """What sizes a pod of this owner: the owner itself, or the Deployment above a ReplicaSet."""
        found: Deployment | ReplicaSet | ReplicationController | StatefulSet | None = None
        if kind == ReplicaSet.kind:
            found = self._replicasets.get(name, namespace)
            above = found.metadata.controller if found is not None else None
            if above is not None and above.kind == Deployment.kind:
                found, uid = self._deployments.get(above.name, namespace), above.uid
        elif kind == StatefulSet.kind:
            found = self._statefulsets.get(name, namespace)
        elif kind == ReplicationController.kind:
            found = self._controllers.get(name, namespace)
        return found if found is not None and found.metadata.uid == uid else None


def _selector(budget: PodDisruptionBudget) -> Selector | None:
    """An empty selector selects every pod of the namespace, an absent one none (policy/v1)."""
    return from_label_selector(budget.spec.selector) if budget.spec.selector is not None else None


def _changes(old: PodDisruptionBudgetStatus, new: PodDisruptionBudgetStatus) -> dict[str, Any]:
    """A merge patch; names that left `disruptedPods` are removed one by one, as RFC 7396 asks."""
    changes = status_patch(old, new)
    if "disruptedPods" in changes:
        removed = dict.fromkeys(old.disrupted_pods.keys() - new.disrupted_pods.keys())
        changes["disruptedPods"] = {**removed, **to_wire(new.disrupted_pods)}
    return changes
