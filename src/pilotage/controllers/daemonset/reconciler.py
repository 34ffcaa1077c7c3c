"""Carries out the DaemonSet plan on pods, revisions and status."""

from pilotage.api.apps_v1 import ControllerRevision, DaemonSet
from pilotage.api.core_v1 import Node, Pod
from pilotage.api.labels import from_label_selector
from pilotage.api.workloads import status_patch
from pilotage.controllers.daemonset.core import new_pod, plan
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.claims import claimed, index_by_controller, managed, to_manager
from pilotage.reconcile.revisions import forget_obsolete, update_revision
from pilotage.reconcile.writes import Writes, together


class DaemonSetReconciler:
    """One DaemonSet at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
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
        step = plan(daemonset, pods, self._nodes.list(), name, self._clock.wall())

        async def delete(pod: Pod) -> None:
            await self._writes.delete(request, self._pods, pod)
            self._events.normal(daemonset, "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

        async def create(node_name: str) -> None:
            pod = await self._writes.create(request, self._pods, new_pod(daemonset, node_name, name))
            self._events.normal(daemonset, "SuccessfulCreate", f"Created pod: {pod.metadata.name}")

        await together([delete(pod) for pod in step.delete])
        await together([create(node_name) for node_name in step.create])
        changes = status_patch(daemonset.status, step.status)
        await self._writes.patch_status(request, self._sets, daemonset, changes)
        live = {name}
        limit = daemonset.spec.revision_history_limit
        await forget_obsolete(self._writes, request, self._revisions, known, live, limit)
        return Result(requeue_after_s=step.check_after_s) if step.check_after_s else DONE


def _placement(node: Node) -> tuple[object, ...]:
    return (node.metadata.labels, node.spec, node.metadata.is_deleting)
