"""Carries out the ReplicaSet plan: adopt, create or delete pods, write the status.

One class serves ReplicaSets and ReplicationControllers, each with its own queue and memory of writes.
"""

from pilotage.api.apps_v1 import ReplicaSet
from pilotage.api.core_v1 import Pod, ReplicationController
from pilotage.api.labels import Selector, from_label_selector, from_match_labels
from pilotage.api.meta_v1 import Condition
from pilotage.api.pods import from_template, is_active
from pilotage.api.status import ApiError
from pilotage.api.workloads import status_patch
from pilotage.client import Informer
from pilotage.controllers.replicaset.core import Plan, ReplicaOwner, failure_condition, plan, with_failure
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.claims import claimed, index_by_controller, managed, to_manager
from pilotage.reconcile.writes import Writes, slow_start, together


class ReplicaSetReconciler:
    """One ReplicaSet (or ReplicationController, as `kind` says) at a time."""

    def __init__(
        self, manager: Manager, clock: Clock, kind: type[ReplicaSet] | type[ReplicationController] = ReplicaSet
    ) -> None:
        self._kind = kind
        self._clock = clock
        self._events = manager.events
        self._sets: Informer[ReplicaOwner] = manager.informer(kind)
        self._pods = manager.informer(Pod)
        self._writes = Writes(manager.client)
        self._writes.follow(self._pods)
        index_by_controller(self._pods)
        self._sets.add_index("deployment", lambda item: (owner.uid,) if (owner := item.metadata.controller) else ())

    def controller(self) -> Controller:
        controller = Controller(self._kind.kind.lower(), self)
        controller.watch(self._sets)
        controller.watch(self._pods, to_manager(self._sets, _selector))
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        replicaset = self._sets.get(request.name, request.namespace)
        if replicaset is None:
            return DONE
        pods = await claimed(self._writes, request, replicaset, _selector(replicaset), self._pods)
        step = plan(replicaset, pods, self._siblings(replicaset), self._clock.wall())
        failure: ApiError | None = None
        condition: Condition | None = None
        try:
            await self._carry_out(request, replicaset, step)
        except ApiError as error:
            failure = error
            reason = "FailedCreate" if step.create else "FailedDelete"
            condition = failure_condition(reason, str(error), self._clock.wall())
            self._events.warning(replicaset, reason, f"Error {'creating' if step.create else 'deleting'}: {error}")
        status = with_failure(step.status, condition)
        changes = status_patch(replicaset.status, status)
        await self._writes.patch_status(request, self._sets, replicaset, changes)
        if failure is not None:
            raise failure
        return Result(requeue_after_s=step.check_after_s) if step.check_after_s else DONE

    async def _carry_out(self, request: Request, replicaset: ReplicaOwner, step: Plan) -> None:
        async def create() -> None:
            document = from_template(
                replicaset.spec.template, owner=replicaset, generate_name=f"{replicaset.metadata.name}-"
            )
            pod = await self._writes.create(request, self._pods, document)
            self._events.normal(replicaset, "SuccessfulCreate", f"Created pod: {pod.metadata.name}")

        async def delete(pod: Pod) -> None:
            await self._writes.delete(request, self._pods, pod)
            self._events.normal(replicaset, "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

        await slow_start(step.create, create)
        await together([delete(pod) for pod in step.delete])

    def _siblings(self, replicaset: ReplicaOwner) -> list[Pod]:
        owner = replicaset.metadata.controller
        family = self._sets.by_index("deployment", owner.uid) if owner else (replicaset,)
        return [pod for item in family for pod in managed(self._pods, item) if is_active(pod)]


def _selector(item: ReplicaOwner) -> Selector | None:
    if isinstance(item, ReplicationController):
        return from_match_labels(item.spec.selector)
    return from_label_selector(item.spec.selector)
