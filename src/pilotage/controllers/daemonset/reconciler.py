"""Carries out the DaemonSet plan on pods, revisions and status."""

from pilotage.api.apps_v1 import ControllerRevision, DaemonSet
from pilotage.api.core_v1 import Node, Pod
from pilotage.api.labels import from_label_selector
from pilotage.api.status import ApiError
from pilotage.api.workloads import status_patch
from pilotage.controllers.daemonset.core import new_pod, node_of, plan
from pilotage.controllers.daemonset.retries import Retries
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.claims import claimed, index_by_controller, managed, to_manager
from pilotage.reconcile.revisions import forget_obsolete, update_revision
from pilotage.reconcile.writes import Writes, slow_start, together


class DaemonSetReconciler:
    """One DaemonSet at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
        self._retries = Retries()
        self._events = manager.events
        self._sets = manager.informer(DaemonSet)
        self._pods = manager.informer(Pod)
        self._nodes = manager.informer(Node)
        self._revisions = manager.informer(ControllerRevision)
        self._writes = Writes(manager.client)
        self._writes.follow(self._pods)
        self._writes.follow(self._revisions)
        index_by_controller(self._pods)
        index_by_controller(self._revisions)

    def controller(self) -> Controller:
        controller = Controller("daemonset", self)
        controller.watch(self._sets)
        controller.watch(self._pods, to_manager(self._sets, lambda item: from_label_selector(item.spec.selector)))
        controller.reads(self._nodes)
        controller.reads(self._revisions)

        def node_changed(old: Node | None, new: Node | None) -> None:
            # Heartbeats in the status concern nobody here.
            if old is not None and new is not None and _placement(old) == _placement(new):
                return
            for daemonset in self._sets.list():
                controller.queue.add(Request.of(daemonset))

        self._nodes.add_handler(node_changed)
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        daemonset = self._sets.get(request.name, request.namespace)
        if daemonset is None:
            return DONE
        selector = from_label_selector(daemonset.spec.selector)
        pods = await claimed(self._writes, request, daemonset, selector, self._pods)
        known = managed(self._revisions, daemonset)
        revision = await update_revision(
            self._writes,
            request,
            self._revisions,
            daemonset,
            daemonset.spec.template,
            known,
            labels=daemonset.spec.selector.match_labels,
            collisions=daemonset.status.collision_count,
        )
        name = revision.metadata.name
        waits = self._failed(daemonset, pods)
        step = plan(daemonset, pods, self._nodes.list(), name, self._clock.wall(), waits.keys())
        if step.check_after_s:
            waits[""] = step.check_after_s

        async def delete(pod: Pod) -> None:
            await self._writes.delete(request, self._pods, pod)
            self._events.normal(daemonset, "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

        async def create(node_name: str) -> None:
            pod = await self._writes.create(request, self._pods, new_pod(daemonset, node_name, name))
            self._events.normal(daemonset, "SuccessfulCreate", f"Created pod: {pod.metadata.name}")

        await together([delete(pod) for pod in step.delete])
        failure: ApiError | None = None
        places = iter(step.create)
        try:
            await slow_start(len(step.create), lambda: create(next(places)))
        except ApiError as error:
            failure = error
            self._events.warning(daemonset, "FailedCreate", f"Error creating: {error}")
        changes = status_patch(daemonset.status, step.status)
        await self._writes.patch_status(request, self._sets, daemonset, changes)
        live = {name}
        limit = daemonset.spec.revision_history_limit
        await forget_obsolete(self._writes, request, self._revisions, known, live, limit)
        if failure is not None:
            raise failure
        return Result(requeue_after_s=min(waits.values(), default=None))

    def _failed(self, daemonset: DaemonSet, pods: list[Pod]) -> dict[str, float]:
        """Nodes on which a pod has failed that is not replaced yet → seconds until it is."""
        now, waits = self._clock.monotonic(), {}
        for pod in pods:
            if pod.status.phase != "Failed" or pod.metadata.is_deleting:
                continue
            place = (daemonset.metadata.uid, node_of(pod))
            if self._retries.failed(place, pod.metadata.uid, now):
                message = f"Found failed daemon pod {pod.metadata.key} on node {place[1]}, will try to kill it"
                self._events.warning(daemonset, "FailedDaemonPod", message)
            if left_s := self._retries.left_s(place, now):
                waits[place[1]] = left_s
        return waits


def _placement(node: Node) -> tuple[object, ...]:
    return (node.metadata.labels, node.spec, node.metadata.is_deleting)
