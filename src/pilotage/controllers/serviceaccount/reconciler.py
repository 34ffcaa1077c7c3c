"""Creates the ServiceAccounts that a namespace lacks. A request is the namespace's name."""

from pilotage.api.core_v1 import Namespace, ServiceAccount
from pilotage.api.status import ApiError, is_already_exists
from pilotage.controllers.serviceaccount.core import NAMES, missing
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.writes import Writes


class ServiceAccountReconciler:
    """One namespace at a time."""

    def __init__(self, manager: Manager) -> None:
        self._namespaces = manager.informer(Namespace)
        self._accounts = manager.informer(ServiceAccount)
        self._writes = Writes(manager.client)

    def controller(self) -> Controller:
        controller = Controller("serviceaccount", self)
        controller.watch(self._namespaces)
        controller.watch(self._accounts, lambda account: (Request("", account.metadata.namespace),))
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        existing = [account for name in NAMES if (account := self._accounts.get(name, request.name)) is not None]
        for name in missing(self._namespaces.get(request.name), existing):
            document = {
                "apiVersion": ServiceAccount.api_version,
                "kind": ServiceAccount.kind,
                "metadata": {"name": name, "namespace": request.name},
            }
            try:
                await self._writes.create(request, self._accounts, document)
            except ApiError as error:
                if not is_already_exists(error):
                    raise
        return DONE
