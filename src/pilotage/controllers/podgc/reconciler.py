"""Deletes pods that are nobody's. A request is the pod's name; one with an empty name asks for the count of all."""

from pilotage.api import timestamp
from pilotage.api.core_v1 import Node, Pod
from pilotage.api.pods import is_terminal
from pilotage.api.status import ApiError, is_not_found
from pilotage.client.client import PatchType
from pilotage.controllers.podgc.core import TERMINATED_MAX, failed_status, forced_in_s, surplus
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.writes import Writes

BY_NODE = "node"
COUNT = Request("", "")
COUNT_EVERY_S = 20.0


class PodGcReconciler:
    """One pod at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
        self._pods = manager.informer(Pod)
        self._nodes = manager.informer(Node)
        self._pods.add_index(BY_NODE, lambda pod: (pod.spec.node_name,) if pod.spec.node_name else ())
        self._writes = Writes(manager.client)
        self._writes.follow(self._pods)
        self._gone_since: dict[str, float] = {}  # node → when it was first missed

    def controller(self) -> Controller:
        controller = Controller("podgc", self)
        controller.reads(self._pods)
        controller.reads(self._nodes)

        def pod_changed(old: Pod | None, new: Pod | None) -> None:
            if new is None:
                return
            if is_terminal(new) and not (old is not None and is_terminal(old)):
                controller.queue.add_after(COUNT, COUNT_EVERY_S)
            if old is None or (not old.metadata.is_deleting and new.metadata.is_deleting):
                controller.queue.add(Request.of(new))

        def node_changed(old: Node | None, new: Node | None) -> None:
            node = new or old
            assert node is not None
            if new is not None:
                self._gone_since.pop(new.metadata.name, None)
            if old is None or new is None or old.spec.taints != new.spec.taints:
                for pod in self._pods.by_index(BY_NODE, node.metadata.name):
                    controller.queue.add(Request.of(pod))

        self._pods.add_handler(pod_changed)
        self._nodes.add_handler(node_changed)
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        if request == COUNT:
            for ended in surplus(self._pods.list(), TERMINATED_MAX):
                await self._writes.delete(request, self._pods, ended, grace_period_s=0)
            return DONE
        pod = self._pods.get(request.name, request.namespace)
        if pod is None:
            return DONE
        node = self._nodes.get(pod.spec.node_name) if pod.spec.node_name else None
        wait = forced_in_s(pod, node, self._gone_s(pod.spec.node_name, node))
        if wait is None:
            return DONE
        if wait > 0:
            return Result(requeue_after_s=wait)
        await self._mark_failed(pod)
        await self._writes.client.delete(
            Pod, request.name, namespace=request.namespace, grace_period_s=0, uid=pod.metadata.uid
        )
        return DONE

    def _gone_s(self, name: str, node: Node | None) -> float:
        if not name or node is not None:
            return 0.0
        now = self._clock.monotonic()
        return now - self._gone_since.setdefault(name, now)

    async def _mark_failed(self, pod: Pod) -> None:
        status = failed_status(pod, timestamp.render(self._clock.wall())) if pod.spec.node_name else None
        if status is None:
            return
        try:
            await self._writes.client.patch(
                Pod,
                pod.metadata.name,
                {"metadata": {"uid": pod.metadata.uid}, "status": status},
                namespace=pod.metadata.namespace,
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )
        except ApiError as error:
            if not is_not_found(error):
                raise
