"""Deletes pods whose time on a tainted node is over. A request is the pod's name."""

from pilotage.api import timestamp
from pilotage.api.core_v1 import Node, Pod
from pilotage.api.pods import is_active
from pilotage.api.status import ApiError, is_not_found
from pilotage.client.client import PatchType
from pilotage.controllers.tainteviction.core import evicts_in_s
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.writes import Writes

BY_NODE = "node"


class TaintEvictionReconciler:
    """One pod at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
        self._events = manager.events
        self._pods = manager.informer(Pod)
        self._nodes = manager.informer(Node)
        self._pods.add_index(BY_NODE, lambda pod: (pod.spec.node_name,) if pod.spec.node_name else ())
        self._writes = Writes(manager.client)
        self._writes.follow(self._pods)

    def controller(self) -> Controller:
        controller = Controller("tainteviction", self)
        controller.reads(self._pods)
        controller.reads(self._nodes)

        def pod_changed(old: Pod | None, new: Pod | None) -> None:
            if new is None or not new.spec.node_name:
                return
            if old is not None and (old.spec.node_name, old.spec.tolerations) == (
                new.spec.node_name,
                new.spec.tolerations,
            ):
                return
            controller.queue.add(Request.of(new))

        def node_changed(old: Node | None, new: Node | None) -> None:
            if new is None or (old is not None and old.spec.taints == new.spec.taints):
                return
            for pod in self._pods.by_index(BY_NODE, new.metadata.name):
                controller.queue.add(Request.of(pod))

        self._pods.add_handler(pod_changed)
        self._nodes.add_handler(node_changed)
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        pod = self._pods.get(request.name, request.namespace)
        node = self._nodes.get(pod.spec.node_name) if pod is not None else None
        if pod is None or node is None or not is_active(pod):
            return DONE
        wait = evicts_in_s(pod, node, self._clock.wall())
        if wait is None:
            return DONE
        if wait > 0:
            return Result(requeue_after_s=wait)
        await self._announce(pod)
        self._events.normal(pod, "TaintManagerEviction", f"Marking for deletion Pod {request}")
        await self._writes.delete(request, self._pods, pod)
        return DONE

    async def _announce(self, pod: Pod) -> None:
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": timestamp.render(self._clock.wall()),
        }
        try:
            await self._writes.client.patch(
                Pod,
                pod.metadata.name,
                {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}},
                namespace=pod.metadata.namespace,
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )
        except ApiError as error:
            if not is_not_found(error):
                raise
