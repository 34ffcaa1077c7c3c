"""Deletes pods whose time on a tainted node is over. A request is the pod's name."""

from datetime import datetime

from pilotage.api import timestamp
from pilotage.api.core_v1 import Node, Pod
from pilotage.api.pods import is_active
from pilotage.api.status import ApiError, is_not_found
from pilotage.client.client import PatchType
from pilotage.controllers.tainteviction.core import TaintKey, evicts_in_s
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
        self._noticed: dict[str, dict[TaintKey, datetime]] = {}  # node → its taints that state no time
        self._waiting: set[Request] = set()  # pods that were told nothing yet, but will have to go

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
            if new is None:
                assert old is not None
                self._noticed.pop(old.metadata.name, None)
                return
            if old is not None and old.spec.taints == new.spec.taints:
                return
            self._notice(new)
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
            self._waiting.discard(request)
            return DONE
        wait = evicts_in_s(pod, node, self._clock.wall(), self._noticed.get(node.metadata.name, {}))
        if wait is None:
            if request in self._waiting:
                self._waiting.discard(request)
                self._events.normal(pod, "TaintManagerEviction", f"Cancelling deletion of Pod {request}")
            return DONE
        if wait > 0:
            self._waiting.add(request)
            return Result(requeue_after_s=wait)
        self._waiting.discard(request)
        await self._announce(pod)
        self._events.normal(pod, "TaintManagerEviction", f"Marking for deletion Pod {request}")
        await self._writes.delete(request, self._pods, pod)
        return DONE

    def _notice(self, node: Node) -> None:
        """Remember when taints without a time of their own came; those that stay keep theirs."""
        before = self._noticed.get(node.metadata.name, {})
        now = self._clock.wall()
        found = {
            (taint.key, taint.effect): before.get((taint.key, taint.effect), now)
            for taint in node.spec.taints
            if taint.effect == "NoExecute" and not taint.time_added
        }
        if found:
            self._noticed[node.metadata.name] = found
        else:
            self._noticed.pop(node.metadata.name, None)

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
