"""Carries out the Job plan on pods and status."""

from pilotage.api.batch_v1 import Job
from pilotage.api.core_v1 import Pod
from pilotage.api.status import ApiError, is_not_found
from pilotage.api.workloads import status_patch
from pilotage.controllers.job.core import FINALIZER, Plan, new_pod, plan, selector_of
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.claims import claimed, index_by_controller, to_manager
from pilotage.reconcile.writes import Writes, slow_start, together

MANAGER = "kubernetes.io/job-controller"
_RESUMED = ("Resumed", "Job resumed")


class JobReconciler:
    """One Job at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
        self._events = manager.events
        self._jobs = manager.informer(Job)
        self._pods = manager.informer(Pod)
        self._writes = Writes(manager.client)
        self._writes.follow(self._jobs)
        self._writes.follow(self._pods)
        index_by_controller(self._pods)

    def controller(self) -> Controller:
        controller = Controller("job", self)
        controller.watch(self._jobs)
        controller.watch(self._pods, to_manager(self._jobs, selector_of))
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        job = self._jobs.get(request.name, request.namespace)
        if job is None or (job.spec.managed_by and job.spec.managed_by != MANAGER):
            return DONE
        pods = await claimed(self._writes, request, job, selector_of(job), self._pods)
        step = plan(job, pods, self._clock.wall())
        if step.delete_job:
            await self._writes.delete(request, self._jobs, job, propagation="Foreground")
            return DONE
        changes = status_patch(job.status, step.status)
        await self._writes.patch_status(request, self._jobs, job, changes)
        await self._carry_out(request, job, step, pods)
        self._tell(job, step)
        return Result(requeue_after_s=step.check_after_s) if step.check_after_s else DONE

    def _tell(self, job: Job, step: Plan) -> None:
        """Events for conditions that are new."""
        before = {condition.type: condition.status for condition in job.status.conditions}
        for condition in step.status.conditions:
            if before.get(condition.type) == condition.status:
                continue
            if condition.type == "Complete":
                self._events.normal(job, "Completed", "Job completed")
            elif condition.type == "Failed":
                self._events.warning(job, condition.reason, condition.message)
            elif condition.type == "Suspended":
                reason, message = ("Suspended", "Job suspended") if condition.status == "True" else _RESUMED
                self._events.normal(job, reason, message)

    async def _carry_out(self, request: Request, job: Job, step: Plan, pods: list[Pod]) -> None:
        async def release(pod: Pod) -> None:
            kept = [item for item in pod.metadata.finalizers if item != FINALIZER]
            # The uid and the version guard the list, which a merge patch replaces whole.
            meta = {"finalizers": kept, "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version}
            try:
                await self._writes.patch(request, self._pods, pod, {"metadata": meta})
            except ApiError as error:
                if not is_not_found(error):
                    raise

        async def delete(pod: Pod) -> None:
            await self._writes.delete(request, self._pods, pod)
            self._events.normal(job, "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

        async def create(index: int | None) -> None:
            pod = await self._writes.create(request, self._pods, new_pod(job, index, pods))
            self._events.normal(job, "SuccessfulCreate", f"Created pod: {pod.metadata.name}")

        await together([release(pod) for pod in step.release])
        await together([delete(pod) for pod in step.delete])
        indexes = iter(step.create)
        try:
            await slow_start(len(step.create), lambda: create(next(indexes)))
        except ApiError as error:
            self._events.warning(job, "FailedCreate", f"Error creating: {error}")
            raise
