"""Writes the slices of hand-written Endpoints. A request is the name that Endpoints and Service share."""

from collections.abc import Iterable

from pilotage.api.core_v1 import Endpoints, Service
from pilotage.api.discovery_v1 import MANAGED_BY_LABEL, EndpointSlice
from pilotage.api.slices import Replacement
from pilotage.api.status import ApiError, is_not_found
from pilotage.controllers.endpointslicemirroring.core import ADDRESSES_MAX, MANAGER, is_mirrored, mirror
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.writes import Writes, together

BY_SERVICE = "mirrored-service"


class EndpointSliceMirroringReconciler:
    """One Endpoints object at a time."""

    def __init__(self, manager: Manager) -> None:
        self._events = manager.events
        self._services = manager.informer(Service)
        self._endpoints = manager.informer(Endpoints)
        self._slices = manager.informer(EndpointSlice)
        self._writes = Writes(manager.client)
        self._writes.follow(self._slices)
        self._slices.add_index(BY_SERVICE, _service_key)

    def controller(self) -> Controller:
        controller = Controller("endpointslicemirroring", self)
        controller.watch(self._endpoints)
        controller.watch(self._services)
        controller.watch(self._slices, lambda item: [Request(*key) for key in _service_key(item)])
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        endpoints = self._endpoints.get(request.name, request.namespace)
        service = self._services.get(request.name, request.namespace)
        slices = self._slices.by_index(BY_SERVICE, (request.namespace, request.name))
        if endpoints is None or not is_mirrored(endpoints, service):
            await together([self._writes.delete(request, self._slices, item) for item in slices])
            return DONE
        found = mirror(endpoints, slices)
        if found.skipped:
            message = (
                f"A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. "
                f"{found.skipped} addresses were skipped"
            )
            self._events.warning(endpoints, "TooManyAddressesToMirror", message)
        if found.invalid:
            message = f"Skipped {found.invalid} invalid IP addresses when mirroring to EndpointSlices"
            self._events.warning(endpoints, "InvalidIPAddress", message)

        async def update(item: Replacement) -> None:
            try:
                await self._writes.patch(request, self._slices, item.slice, item.document)
            except ApiError as error:
                if not is_not_found(error):
                    raise

        step = found.plan
        await together([self._writes.create(request, self._slices, document) for document in step.create])
        await together([update(item) for item in step.update])
        await together([self._writes.delete(request, self._slices, item) for item in step.delete])
        return DONE


def _service_key(item: EndpointSlice) -> Iterable[tuple[str, str]]:
    if item.metadata.labels.get(MANAGED_BY_LABEL) != MANAGER or not item.service_name:
        return ()
    return ((item.metadata.namespace, item.service_name),)
