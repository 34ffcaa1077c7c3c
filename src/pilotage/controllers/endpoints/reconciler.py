"""Writes the Endpoints object of a Service. A request is the Service's name."""

from pilotage.api import services, timestamp
from pilotage.api.core_v1 import Endpoints, Pod, Service
from pilotage.controllers.endpoints.core import correction, document, is_ours, only_adds, subsets
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.pace import Pace
from pilotage.reconcile.writes import Writes

BY_NAMESPACE = "namespace"


class EndpointsReconciler:
    """One Service at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
        self._services = manager.informer(Service)
        self._pods = manager.informer(Pod)
        self._endpoints = manager.informer(Endpoints)
        self._writes = Writes(manager.client)
        self._writes.follow(self._endpoints)
        self._pace = Pace()
        self._triggers: dict[Request, str] = {}
        self._services.add_index(BY_NAMESPACE, lambda service: (service.metadata.namespace,))
        self._pods.add_index(BY_NAMESPACE, lambda pod: (pod.metadata.namespace,))

    def controller(self) -> Controller:
        controller = Controller("endpoints", self)
        controller.watch(self._services)
        controller.watch(self._endpoints)
        controller.reads(self._pods)

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

        self._pods.add_handler(pod_changed)
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        service = self._services.get(request.name, request.namespace)
        existing = self._endpoints.get(request.name, request.namespace)
        trigger = self._triggers.pop(request, "")
        if service is None or service.metadata.is_deleting:
            if existing is not None and service is None and is_ours(existing):
                await self._writes.delete(request, self._endpoints, existing)
            return DONE
        if not service.spec.selector or service.spec.type == "ExternalName":
            return DONE
        pods = [pod for pod in self._pods.by_index(BY_NAMESPACE, request.namespace) if services.selects(service, pod)]
        found, excess = subsets(service, pods)
        trigger = trigger or service.metadata.creation_timestamp
        if existing is None:
            await self._writes.create(request, self._endpoints, document(service, found, excess, trigger))
        elif changes := correction(service, existing, found, excess, trigger):
            now = self._clock.monotonic()
            if only_adds(existing, found) and (left_s := self._pace.left_s(request, now)):
                self._triggers[request] = trigger  # older than any that came meanwhile
                return Result(requeue_after_s=left_s)
            self._pace.wrote(request, now)
            await self._writes.patch(request, self._endpoints, existing, changes)
        return DONE
