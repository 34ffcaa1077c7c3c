"""The pods of one node and the worker of each: who is taken in, told of changes, taken up again, let go.

Stands apart from `agent`, which joins the parts, because it is about pods only; what they ask of the node it learns
through `services` and `view`. Fed by the agent's informer, the directory of static pods and the runtime. A worker that
fails by a mistake of ours is replaced and takes no other pod along.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection

from pilotage.agent import metrics
from pilotage.agent.config import Config
from pilotage.agent.core import admission, resize, shutdown, static_pod
from pilotage.agent.core.static_pod import StaticPod
from pilotage.agent.mirror_pods import MirrorPods
from pilotage.agent.runtime import ContainerExit
from pilotage.agent.services import NodeServices
from pilotage.agent.static_pods import StaticPods
from pilotage.agent.worker import PodWorker
from pilotage.api.core_v1 import Pod
from pilotage.api.status import ApiError
from pilotage.client import ConnectionFailed, Informer
from pilotage.kit.tasks import TaskSet
from pilotage.telemetry import get_logger

WORKER_RESTART_S = 1.0  # a worker that failed for a reason of ours is taken up again after this
KILLED_AFTER_S = 2.0  # what a pod may take beyond its grace period to be killed and seen to be
TELL_API_S = 5.0  # for telling the API what a node does that goes down; it may be gone already
_log = get_logger()


class PodWorkers:
    """By pod uid. `pods` are those that the API binds to this node, `view` is the node as it is while it runs some."""

    def __init__(
        self,
        config: Config,
        services: NodeServices,
        tasks: TaskSet,
        pods: Informer[Pod],
        *,
        view: Callable[[tuple[Pod, ...]], admission.NodeView],
    ) -> None:
        self._config = config
        self._services = services
        self._tasks = tasks
        self._pods = pods
        self._view = view
        self.going_down = False  # no more pods are taken in
        self._ended = asyncio.Event()  # a pod is over, or needs less
        self._workers: dict[str, PodWorker] = {}
        self._by_name: dict[str, str] = {}  # namespace/name → uid
        self._static: StaticPods | None = None
        if config.static_pods_dir is not None:
            config.static_pods_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
            self._static = StaticPods(config.static_pods_dir, config.node, services.clock, self._static_changed)
        self._static_pods: dict[str, StaticPod] = {}  # by uid; also those whose file is gone while they still run
        self._mirrors = MirrorPods(services.client, config.node, wanted=self._static_here, shown=pods.list)

    def present(self) -> Collection[PodWorker]:
        """Of every pod that is not yet gone from this node."""
        return self._workers.values()

    def named(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of the pod of that name, if there is one."""
        uid = self._by_name.get(f"{namespace}/{name}")
        return self._workers.get(uid) if uid is not None else None

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Take up the pods of an earlier agent, then follow the API and the files. Once `pods` is synced."""
        if self._static is not None:
            self._static.load()
        await self._take_up()
        self._pods.add_handler(self._pod_changed)
        self._static_changed()
        self._tasks.start(self._mirrors.run(), key="mirrors")
        if self._static is not None:
            self._tasks.start(self._static.run(), key="static pods")

    async def end(self) -> None:
        """End those that run by priority (KEP-2712), and see that the API knows."""
        running = [one.pod for one in self._workers.values() if not one.state.finished]
        for step in shutdown.steps(running, self._config.shutdown):
            _log.info("ending pods", pods=len(step.uids), within_s=step.grace_s)
            workers = [self._workers[uid] for uid in step.uids if uid in self._workers]
            for worker in workers:
                worker.end(shutdown.ENDED_REASON, shutdown.ENDED_MESSAGE, grace_s=step.grace_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(step.grace_s + KILLED_AFTER_S):
                    while not all(worker.state.finished for worker in workers):
                        self._ended.clear()
                        await self._ended.wait()
            with contextlib.suppress(TimeoutError, ApiError, ConnectionFailed):
                async with asyncio.timeout(TELL_API_S):
                    for worker in workers:
                        await worker.publish()

    async def _take_up(self) -> None:
        """Pods that left something on disk: those still in the API go on, the others are stopped."""
        static = self._static.pods if self._static is not None else {}
        present: dict[str, Pod] = {pod.metadata.uid: pod for pod in self._pods.list()}
        present |= {uid: one.pod for uid, one in static.items()}
        for uid in self._services.memory.uids():
            remembered = self._services.memory.load(uid)
            if remembered is None:
                if uid not in present:
                    self._services.memory.forget(uid)
                continue
            pod, state = remembered
            worker = PodWorker(present.get(uid, pod), self._services, static=uid in static)
            worker.recover(state)
            if uid not in present:
                worker.vanish()
            self._start(worker)
        # A root outlives its container when the agent dies between the removal of the one and of the other.
        for container_id in {*self._services.runtime.list(), *self._services.roots.list()}:
            workers = self._workers.values()
            if not any(worker.keeps(container_id) for worker in workers):
                _log.warning("removing a container that no pod knows", container=container_id)
                await self._services.runtime.remove(container_id)
                self._services.roots.remove(container_id)

    def _start(self, worker: PodWorker) -> None:
        self._workers[worker.uid] = worker
        self._by_name[worker.pod.metadata.key] = worker.uid
        metrics.PODS.set(len(self._workers))
        self._tasks.start(self._work(worker), key=("pod", worker.uid))

    async def _work(self, worker: PodWorker) -> None:
        """Run a worker; one that fails by a mistake of ours must not take the other pods along."""
        while True:
            try:
                await worker.run()
            except Exception as error:
                _log.exception("pod worker failed", pod=worker.pod.metadata.key, error=repr(error)[:500])
            if worker.finished:
                break
            await asyncio.sleep(WORKER_RESTART_S)
            remembered = self._services.memory.load(worker.uid)
            gone, pod, mirror = worker.gone, worker.pod, worker.mirror
            worker = PodWorker(pod, self._services, static=worker.static)
            worker.mirror_changed(mirror)
            if remembered is not None:
                worker.recover(remembered[1])
            if gone:
                worker.vanish()
            self._workers[worker.uid] = worker
        if (
            worker.gone
            or worker.static
            or self._pods.get(worker.pod.metadata.name, worker.pod.metadata.namespace) is None
        ):
            self._forget(worker)

    def _forget(self, worker: PodWorker) -> None:
        self._workers.pop(worker.uid, None)
        if self._by_name.get(worker.pod.metadata.key) == worker.uid:
            del self._by_name[worker.pod.metadata.key]
        metrics.PODS.set(len(self._workers))
        self.room_changed()
        if worker.static:
            self._static_changed()  # another pod of that name may have waited for this one's end

    # ── changes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _static_here(self) -> list[StaticPod]:
        """What is to be seen in the API."""
        return list(self._static_pods.values())

    def _static_changed(self) -> None:
        """Run what the files hold, end what they hold no more; a pod waits for the end of its namesake."""
        files = self._static.pods if self._static is not None else {}
        for uid, worker in tuple(self._workers.items()):
            if worker.static and uid not in files and not worker.pod.metadata.is_deleting:
                worker.withdraw()
        ending = {uid: one for uid, one in self._static_pods.items() if uid in self._workers}
        self._static_pods = ending | files
        for uid, one in files.items():
            if uid not in self._workers and one.pod.metadata.key not in self._by_name:
                self._take(one.pod, static=True)
        for pod in self._pods.list():
            self._mirror_changed(None, pod)
        self._mirrors.look()

    def _mirror_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            worker = self._workers.get(static_pod.mirrored(pod)) if pod is not None else None
            if worker is not None and worker.static and (pod is new or new is None):
                worker.mirror_changed(new)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if any(pod is not None and static_pod.mirrored(pod) for pod in (old, new)):
            self._mirror_changed(old, new)
            self._mirrors.look()
            old, new = (None if pod is not None and static_pod.mirrored(pod) else pod for pod in (old, new))
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            worker = self._workers.get(old.metadata.uid)
            if worker is not None:
                if worker.finished:
                    self._forget(worker)
                else:
                    worker.vanish()
        if new is None:
            return
        worker = self._workers.get(new.metadata.uid)
        if worker is None:
            self._take(new)
            return
        worker.update(new)

    def _take(self, pod: Pod, *, static: bool = False) -> None:
        """A pod that is new here: run it, or say why this node cannot."""
        worker = PodWorker(pod, self._services, static=static)
        if not pod.metadata.is_deleting and pod.status.phase not in ("Succeeded", "Failed"):
            late = admission.Rejection(reason=shutdown.LATE_REASON, message=shutdown.LATE_MESSAGE)
            rejection = late if self.going_down else admission.admit(pod, self._view(self._running()))
            if rejection is not None:
                worker.reject(rejection.reason, rejection.message)
        self._start(worker)

    # ── what the node tells and asks ────────────────────────────────────────────────────────────────────────────

    def container_ended(self, exit_: ContainerExit) -> None:
        """The runtime saw a container end; nobody may know it."""
        for worker in self._workers.values():
            if worker.owns(exit_.container_id):
                worker.container_ended(exit_)
                return

    def reference_changed(self, uid: str) -> None:
        """A ConfigMap or Secret of that pod changed."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.references_changed()

    def judge_resize(self, pod: Pod) -> admission.Rejection | None:
        """Whether there is room for what the pod asks for now, beside the others."""
        return resize.judge(pod, self._view(self._running(but=pod.metadata.uid)))

    def room_changed(self) -> None:
        """Resizes that were put off are looked at again, those of important pods first (KEP-1287)."""
        self._ended.set()
        put_off = [one for one in self._workers.values() if one.state.resize_pending == "Deferred"]
        for worker in sorted(put_off, key=lambda one: (-one.pod.spec.priority, one.state.started_at)):
            worker.room_changed()

    def _running(self, *, but: str = "") -> tuple[Pod, ...]:
        """What the node has taken, leaving out the pod of uid `but`."""
        running = (one for one in self._workers.values() if not one.state.finished and not one.state.ended)
        return tuple(worker.allocated for worker in running if worker.uid != but)
