"""Patches the pod range of a node that has none. A request is the node's name; one worker, so that ranges differ."""

from pilotage.api.core_v1 import Node
from pilotage.controllers.nodeipam.core import RangeExhaustedError, assign
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.writes import Writes

LOOK_AGAIN_S = 30.0  # a node may have gone meanwhile
_ALL = Request("", "")


class NodeIpamReconciler:
    """One node at a time, after its own last write is seen."""

    def __init__(self, manager: Manager, cluster_cidrs: tuple[str, ...]) -> None:
        self._cluster_cidrs = cluster_cidrs
        self._events = manager.events
        self._nodes = manager.informer(Node)
        self._writes = Writes(manager.client)

    def controller(self) -> Controller:
        controller = Controller("nodeipam", self, workers=1)
        controller.watch(self._nodes)
        return controller

    async def reconcile(self, request: Request) -> Result:
        # The ranges of all nodes count, so every write concerns every request.
        await self._writes.settle(_ALL)
        node = self._nodes.get(request.name)
        if node is None:
            return DONE
        try:
            ranges = assign(node, self._nodes.list(), self._cluster_cidrs)
        except RangeExhaustedError as error:
            self._events.warning(node, "CIDRNotAvailable", str(error))
            return Result(requeue_after_s=LOOK_AGAIN_S)
        if ranges:
            body = {"spec": {"podCIDR": ranges[0], "podCIDRs": list(ranges)}}
            await self._writes.patch(_ALL, self._nodes, node, body)
        return DONE
