"""Writes the rules of one aggregated ClusterRole. A request is the role's name."""

from collections.abc import Iterable

from pilotage.api.rbac_v1 import ClusterRole
from pilotage.controllers.clusterrole.core import aggregated
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.writes import Writes


class ClusterRoleReconciler:
    """One role at a time."""

    def __init__(self, manager: Manager) -> None:
        self._roles = manager.informer(ClusterRole)
        self._writes = Writes(manager.client)

    def controller(self) -> Controller:
        controller = Controller("clusterrole", self)
        controller.watch(self._roles, self._concerned)
        return controller

    def _concerned(self, changed: ClusterRole) -> Iterable[Request]:
        """Every role that aggregates: one whose labels have changed may also have been left."""
        return tuple(Request("", role.metadata.name) for role in self._roles.list() if role.aggregation_rule)

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        role = self._roles.get(request.name)
        if role is None or role.metadata.is_deleting:
            return DONE
        rules = aggregated(role, self._roles.list())
        if rules is not None:
            await self._writes.patch(request, self._roles, role, {"rules": list(rules)})
        return DONE
