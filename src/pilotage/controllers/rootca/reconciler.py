"""Writes the CA ConfigMap of a namespace. A request is the namespace's name."""

from pilotage.api.core_v1 import ConfigMap, Namespace
from pilotage.api.status import ApiError, is_already_exists
from pilotage.controllers.rootca.core import NAME, correction, document, is_due
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.writes import Writes


class RootCaReconciler:
    """One namespace at a time; `certificate` is the CA bundle in PEM."""

    def __init__(self, manager: Manager, certificate: str) -> None:
        self._certificate = certificate
        self._namespaces = manager.informer(Namespace)
        # Only the ConfigMaps of that name: all others would be held for nothing.
        self._maps = manager.informer(ConfigMap, field_selector=f"metadata.name={NAME}")
        self._writes = Writes(manager.client)

    def controller(self) -> Controller:
        controller = Controller("rootca", self)
        controller.watch(self._namespaces)
        controller.watch(self._maps, lambda item: (Request("", item.metadata.namespace),))
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        existing = self._maps.get(NAME, request.name)
        if not is_due(self._namespaces.get(request.name), existing, self._certificate):
            return DONE
        if existing is not None:
            await self._writes.patch(request, self._maps, existing, correction(existing, self._certificate))
            return DONE
        try:
            await self._writes.create(request, self._maps, document(request.name, self._certificate))
        except ApiError as error:
            if not is_already_exists(error):
                raise
        return DONE
