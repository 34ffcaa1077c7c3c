"""Carries out the Deployment plan on ReplicaSets and on the Deployment's status."""

import msgspec

from pilotage.api.apps_v1 import Deployment, ReplicaSet
from pilotage.api.core_v1 import Pod
from pilotage.api.labels import from_label_selector
from pilotage.api.pods import is_terminal
from pilotage.api.status import ApiError, is_already_exists, is_not_found
from pilotage.api.workloads import status_patch
from pilotage.controllers.deployment.core import REVISION, Change, Plan, find_new, plan, without_hash
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.claims import claimed, index_by_controller, managed, to_manager
from pilotage.reconcile.writes import Writes


class DeploymentReconciler:
    """One Deployment at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
        self._events = manager.events
        self._deployments = manager.informer(Deployment)
        self._sets = manager.informer(ReplicaSet)
        self._pods = manager.informer(Pod)
        self._writes = Writes(manager.client)
        self._writes.follow(self._sets)
        index_by_controller(self._sets)
        index_by_controller(self._pods)

    def controller(self) -> Controller:
        controller = Controller("deployment", self)
        controller.watch(self._deployments)
        controller.watch(
            self._sets, to_manager(self._deployments, lambda item: from_label_selector(item.spec.selector))
        )
        controller.watch(self._pods, self._waiting_recreate)
        return controller

    def _waiting_recreate(self, pod: Pod) -> list[Request]:
        """Pods matter to a Deployment only while it waits for old ones to go."""
        owner = pod.metadata.controller
        if owner is None or owner.kind != ReplicaSet.kind:
            return []
        replicaset = self._sets.get(owner.name, pod.metadata.namespace)
        manager = replicaset.metadata.controller if replicaset else None
        if manager is None:
            return []
        deployment = self._deployments.get(manager.name, pod.metadata.namespace)
        if deployment is None or deployment.spec.strategy.type != "Recreate":
            return []
        return [Request.of(deployment)]

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        deployment = self._deployments.get(request.name, request.namespace)
        if deployment is None:
            return DONE
        selector = from_label_selector(deployment.spec.selector)
        owned = await claimed(self._writes, request, deployment, selector, self._sets)
        step = plan(deployment, owned, self._old_pods_exist(deployment, owned), self._clock.wall())
        await self._carry_out(request, deployment, step)
        return Result(requeue_after_s=step.check_after_s) if step.check_after_s is not None else DONE

    async def _carry_out(self, request: Request, deployment: Deployment, step: Plan) -> None:
        if step.create is not None:
            await self._create(request, deployment, step)
        for change in step.changes:
            await self._change(request, deployment, change)
        for replicaset in step.delete:
            await self._writes.delete(request, self._sets, replicaset, propagation="Background")
        if step.revision:
            body = {"metadata": {"annotations": {REVISION: step.revision}}}
            await self._writes.patch(request, self._deployments, deployment, body)
        changes = status_patch(deployment.status, step.status)
        await self._writes.patch_status(request, self._deployments, deployment, changes)

    async def _create(self, request: Request, deployment: Deployment, step: Plan) -> None:
        assert step.create is not None
        try:
            created = await self._writes.create(request, self._sets, step.create)
        except ApiError as error:
            if not is_already_exists(error):
                raise
            await self._resolve_collision(request, deployment, step.create["metadata"]["name"])
            raise
        self._scaled(deployment, created.metadata.name, 0, created.spec.replicas)

    async def _resolve_collision(self, request: Request, deployment: Deployment, name: str) -> None:
        """A set of that name exists: ours with this template (the cache was late), or another, so that we rename."""
        try:
            existing = await self._writes.client.get(ReplicaSet, name, namespace=request.namespace)
        except ApiError as error:
            if is_not_found(error):
                return
            raise
        owner = existing.metadata.controller
        same = without_hash(existing.spec.template) == without_hash(deployment.spec.template)
        if owner is not None and owner.uid == deployment.metadata.uid and same:
            return
        collisions = (deployment.status.collision_count or 0) + 1
        changed = msgspec.structs.replace(deployment.status, collision_count=collisions)
        await self._writes.patch_status(
            request, self._deployments, deployment, status_patch(deployment.status, changed)
        )

    async def _change(self, request: Request, deployment: Deployment, change: Change) -> None:
        before = change.replicaset
        # The resourceVersion guards the size: a plan made from an old view must not undo somebody's newer one.
        body = change.patch
        body.setdefault("metadata", {})["resourceVersion"] = before.metadata.resource_version
        await self._writes.patch(request, self._sets, before, body)
        if change.replicas is not None:
            self._scaled(deployment, before.metadata.name, before.spec.replicas, change.replicas)

    def _scaled(self, deployment: Deployment, name: str, before: int, after: int) -> None:
        direction = "up" if after > before else "down"
        message = f"Scaled {direction} replica set {name} from {before} to {after}"
        self._events.normal(deployment, "ScalingReplicaSet", message)

    def _old_pods_exist(self, deployment: Deployment, owned: list[ReplicaSet]) -> bool:
        if deployment.spec.strategy.type != "Recreate":
            return False
        new = find_new(deployment, owned)
        return any(not is_terminal(pod) for item in owned if item is not new for pod in managed(self._pods, item))
