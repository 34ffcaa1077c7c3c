"""Writes the EndpointSlices of a Service. A request is the Service's name.

Remembers, per waiting request, the time of the earliest change that led to it (the trigger time annotation).
"""

from collections.abc import Hashable, Iterable

from pilotage.api import services, timestamp
from pilotage.api.core_v1 import Node, Pod, Service
from pilotage.api.discovery_v1 import MANAGED_BY_LABEL, EndpointSlice
from pilotage.api.slices import Replacement
from pilotage.api.status import ApiError, is_not_found
from pilotage.controllers.endpointslice.core import MANAGER, plan
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.writes import Writes, together

ZONE = "topology.kubernetes.io/zone"
BY_SERVICE, BY_NAMESPACE = "service", "namespace"


class EndpointSliceReconciler:
    """One Service at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
        self._services = manager.informer(Service)
        self._pods = manager.informer(Pod)
        self._nodes = manager.informer(Node)
        self._slices = manager.informer(EndpointSlice)
        self._writes = Writes(manager.client)
        self._writes.follow(self._slices)
        self._triggers: dict[Request, str] = {}
        self._services.add_index(BY_NAMESPACE, lambda service: (service.metadata.namespace,))
        self._pods.add_index(BY_NAMESPACE, lambda pod: (pod.metadata.namespace,))
        self._slices.add_index(BY_SERVICE, _service_key)

    def controller(self) -> Controller:
        controller = Controller("endpointslice", self)
        controller.watch(self._services)
        controller.reads(self._pods)
        controller.reads(self._nodes)
        controller.watch(self._slices, _service_of)

        def pod_changed(old: Pod | None, new: Pod | None) -> None:
            if old is not None and new is not None and services.endpoint_inputs(old) == services.endpoint_inputs(new):
                return
            pod = new or old
            assert pod is not None
            for service in self._services.by_index(BY_NAMESPACE, pod.metadata.namespace):
                if any(obj is not None and services.selects(service, obj) for obj in (old, new)):
                    request = Request.of(service)
                    self._triggers.setdefault(request, timestamp.render_micro(self._clock.wall()))
                    controller.queue.add(request)

        def node_changed(old: Node | None, new: Node | None) -> None:
            zones = {node.metadata.labels.get(ZONE, "") if node else None for node in (old, new)}
            if len(zones) == 1:
                return
            for service in self._services.list():
                controller.queue.add(Request.of(service))

        self._pods.add_handler(pod_changed)
        self._nodes.add_handler(node_changed)
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        service = self._services.get(request.name, request.namespace)
        trigger = self._triggers.pop(request, "")
        if service is None or service.metadata.is_deleting or not service.spec.selector:
            # Slices of a deleted Service go with it (garbage collector); without a selector they are hand-written.
            return DONE
        if service.spec.type == "ExternalName":
            return DONE
        pods = [pod for pod in self._pods.by_index(BY_NAMESPACE, request.namespace) if services.selects(service, pod)]
        zones = {node.metadata.name: node.metadata.labels.get(ZONE, "") for node in self._nodes.list()}
        slices = self._slices.by_index(BY_SERVICE, (request.namespace, request.name))
        step = plan(service, pods, zones, slices, trigger or service.metadata.creation_timestamp)

        async def update(item: Replacement) -> None:
            try:
                await self._writes.patch(request, self._slices, item.slice, item.document)
            except ApiError as error:
                if not is_not_found(error):
                    raise

        await together([self._writes.create(request, self._slices, document) for document in step.create])
        await together([update(item) for item in step.update])
        await together([self._writes.delete(request, self._slices, item) for item in step.delete])
        return DONE


def _service_key(item: EndpointSlice) -> Iterable[Hashable]:
    if item.metadata.labels.get(MANAGED_BY_LABEL) != MANAGER or not item.service_name:
        return ()
    return ((item.metadata.namespace, item.service_name),)


def _service_of(item: EndpointSlice) -> tuple[Request, ...]:
    if item.metadata.labels.get(MANAGED_BY_LABEL) != MANAGER or not item.service_name:
        return ()
    return (Request(item.metadata.namespace, item.service_name),)
