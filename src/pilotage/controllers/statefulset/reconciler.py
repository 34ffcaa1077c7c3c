"""Carries out the StatefulSet plan on pods, revisions and status."""

from pilotage.api.apps_v1 import ControllerRevision, StatefulSet
from pilotage.api.core_v1 import PersistentVolumeClaim, Pod
from pilotage.api.labels import from_label_selector
from pilotage.api.revisions import REVISION_LABEL, template_in
from pilotage.api.status import ApiError, is_already_exists
from pilotage.api.workloads import status_patch
from pilotage.controllers.statefulset.claims import claim_name, new_claims, owners
from pilotage.controllers.statefulset.core import Creation, Plan, Revisions, is_surplus, ordinal_of, plan
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.claims import claimed, index_by_controller, managed, to_manager
from pilotage.reconcile.revisions import forget_obsolete, update_revision
from pilotage.reconcile.writes import Writes, together


class StatefulSetReconciler:
    """One StatefulSet at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
        self._events = manager.events
        self._sets = manager.informer(StatefulSet)
        self._pods = manager.informer(Pod)
        self._revisions = manager.informer(ControllerRevision)
        self._claims = manager.informer(PersistentVolumeClaim)
        self._writes = Writes(manager.client)
        self._writes.follow(self._pods)
        self._writes.follow(self._revisions)
        index_by_controller(self._pods)
        index_by_controller(self._revisions)

    def controller(self) -> Controller:
        controller = Controller("statefulset", self)
        controller.watch(self._sets)
        controller.watch(self._pods, to_manager(self._sets, lambda item: from_label_selector(item.spec.selector)))
        controller.reads(self._revisions)
        controller.reads(self._claims)
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        statefulset = self._sets.get(request.name, request.namespace)
        if statefulset is None:
            return DONE
        selector = from_label_selector(statefulset.spec.selector)
        claims = await claimed(self._writes, request, statefulset, selector, self._pods)
        # A pod that merely looks alike is not one of the numbered ones and would never be replaced.
        pods = [pod for pod in claims if ordinal_of(statefulset, pod) is not None]
        known = managed(self._revisions, statefulset)
        revisions = await self._current_revisions(request, statefulset, known)
        step = plan(statefulset, pods, revisions, self._clock.wall())
        failure: ApiError | None = None
        try:
            await self._hand_over_claims(request, statefulset, pods)
            await self._carry_out(request, statefulset, step)
        except ApiError as error:
            failure = error
        changes = status_patch(statefulset.status, step.status)
        await self._writes.patch_status(request, self._sets, statefulset, changes)
        live = {revisions.current, revisions.update} | {pod.metadata.labels.get(REVISION_LABEL, "") for pod in pods}
        limit = statefulset.spec.revision_history_limit
        await forget_obsolete(self._writes, request, self._revisions, known, live, limit)
        if failure is not None:
            raise failure
        return Result(requeue_after_s=step.check_after_s) if step.check_after_s else DONE

    async def _current_revisions(
        self, request: Request, statefulset: StatefulSet, known: list[ControllerRevision]
    ) -> Revisions:
        update = await update_revision(
            self._writes,
            request,
            self._revisions,
            statefulset,
            statefulset.spec.template,
            known,
            labels=statefulset.spec.selector.match_labels,
            collisions=statefulset.status.collision_count,
        )
        named = statefulset.status.current_revision
        current = next((item for item in known if item.metadata.name == named), update)
        return Revisions(
            current=current.metadata.name,
            current_template=template_in(current),
            update=update.metadata.name,
            update_template=template_in(update),
        )

    async def _carry_out(self, request: Request, statefulset: StatefulSet, step: Plan) -> None:
        async def delete(pod: Pod) -> None:
            await self._writes.delete(request, self._pods, pod)
            message = f"delete Pod {pod.metadata.name} in StatefulSet {statefulset.metadata.name} successful"
            self._events.normal(statefulset, "SuccessfulDelete", message)

        async def create(creation: Creation) -> None:
            name = creation.document["metadata"]["name"]
            about = f"create Pod {name} in StatefulSet {statefulset.metadata.name}"
            try:
                await self._create_claims(request, statefulset, creation)
                await self._writes.create(request, self._pods, creation.document)
            except ApiError as error:
                self._events.warning(statefulset, "FailedCreate", f"{about} failed error: {error}")
                raise
            self._events.normal(statefulset, "SuccessfulCreate", f"{about} successful")

        await together([delete(pod) for pod in step.delete])
        await together([create(creation) for creation in step.create])

    async def _create_claims(self, request: Request, statefulset: StatefulSet, creation: Creation) -> None:
        """Claims come before the pod that mounts them; one that is there already is used as it is."""
        pod = creation.document["metadata"]["name"]
        for document in new_claims(statefulset, creation.ordinal):
            name = document["metadata"]["name"]
            if self._claims.get(name, statefulset.metadata.namespace) is not None:
                continue
            about = f"create Claim {name} Pod {pod} in StatefulSet {statefulset.metadata.name}"
            try:
                await self._writes.create(request, self._claims, document)
            except ApiError as error:
                if is_already_exists(error):
                    continue
                self._events.warning(statefulset, "FailedCreate", f"{about} failed error: {error}")
                raise
            self._events.normal(statefulset, "SuccessfulCreate", f"{about} success")

    async def _hand_over_claims(self, request: Request, statefulset: StatefulSet, pods: list[Pod]) -> None:
        """Owners of claims follow the retention policy, before scaling removes a pod that takes its claims along."""
        for pod in pods:
            ordinal = ordinal_of(statefulset, pod)
            if ordinal is None:
                continue
            surplus = is_surplus(statefulset, ordinal)
            for template in statefulset.spec.volume_claim_templates:
                claim = self._claims.get(claim_name(template, statefulset, ordinal), statefulset.metadata.namespace)
                references = owners(statefulset, claim, pod, surplus=surplus) if claim is not None else None
                if claim is not None and references is not None:
                    metadata = {"ownerReferences": references, "resourceVersion": claim.metadata.resource_version}
                    await self._writes.patch(request, self._claims, claim, {"metadata": metadata})
