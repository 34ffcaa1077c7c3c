"""Moves objects into the scheduler's core and its decisions out.

Fed by informers of pods, nodes, namespaces, Services and workloads; called by `run`. One loop decides, one pod after
another, on a snapshot that already contains what it decided before (assumed pods); bindings are written beside it.
Leaves out every rule of placement: those are in `core`.
"""

import asyncio
from collections.abc import Callable

import msgspec

from pilotage.api import timestamp
from pilotage.api.apps_v1 import ReplicaSet, StatefulSet
from pilotage.api.core_v1 import (
    Namespace,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    ReplicationController,
    Service,
)
from pilotage.api.labels import Selector, from_label_selector, from_match_labels
from pilotage.api.pods import is_terminal
from pilotage.api.policy_v1 import PodDisruptionBudget
from pilotage.api.status import ApiError, is_conflict, is_not_found
from pilotage.client import Client, ConnectionFailed, EventRecorder, Informer, PatchType
from pilotage.client.client import path_of
from pilotage.kit.clock import Clock
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.scheduler.core.cycle import Unschedulable, schedule
from pilotage.scheduler.core.gates import is_gated
from pilotage.scheduler.core.model import ClaimInfo, Cluster, PodInfo, PodKey, reserved
from pilotage.scheduler.core.preemption import Budget, NoPreemption, Preemption, lower_nominations, preempt
from pilotage.scheduler.core.queue import ClusterEvent, QueuedPod, SchedulingQueue
from pilotage.scheduler.core.spreading import owner_selector
from pilotage.scheduler.metrics import attempts, pending_pods, victims
from pilotage.telemetry import get_logger

BINDINGS_MAX = 32  # in flight at once; more would only queue in the API server
BY_NAMESPACE = "namespace"

CLAIMS = "no new claims to deallocate"
"""kube-scheduler's word on device claims, which precedes the one on preemption; here there are none, ever."""

_log = get_logger()


class Scheduler:
    """Binds the pods of one scheduler name."""

    def __init__(self, client: Client, name: str, clock: Clock) -> None:
        self._client = client
        self._name = name
        self._clock = clock
        self._events = EventRecorder(client, name, clock=clock)
        self._cluster = Cluster()
        self._queue = SchedulingQueue()
        self._assumed: dict[PodKey, str] = {}  # pod → uid; in the snapshot, not yet confirmed by the watch
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(BINDINGS_MAX)
        self._pods = Informer(client, Pod)
        self._nodes = Informer(client, Node)
        self._namespaces = Informer(client, Namespace)
        self._services = Informer(client, Service)
        self._replicasets = Informer(client, ReplicaSet)
        self._replication_controllers = Informer(client, ReplicationController)
        self._statefulsets = Informer(client, StatefulSet)
        self._budgets = Informer(client, PodDisruptionBudget)
        self._claims = Informer(client, PersistentVolumeClaim)
        self._volumes = Informer(client, PersistentVolume)
        self._services.add_index(BY_NAMESPACE, lambda service: (service.metadata.namespace,))
        self._pods.add_handler(self._pod_changed)
        self._nodes.add_handler(self._node_changed)
        self._namespaces.add_handler(self._namespace_changed)
        self._claims.add_handler(self._claim_changed)
        self._volumes.add_handler(self._volume_changed)

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Decide and bind until cancelled; calls `on_ready` once all caches are filled."""
        informers = (
            self._pods,
            self._nodes,
            self._namespaces,
            self._services,
            self._replicasets,
            self._replication_controllers,
            self._statefulsets,
            self._budgets,
            self._claims,
            self._volumes,
        )
        async with task_set() as tasks:
            tasks.start(self._events.run(), name="events")
            for informer in informers:
                tasks.start(informer.run(), name=f"informer-{informer.kind.plural}")
            for informer in informers:
                await informer.wait_synced()
            on_ready()
            await self._decide_forever(tasks)

    def snapshot(self) -> dict[str, object]:
        """For debugging: queue sizes, nodes and what is free on them."""
        return {
            "queue": msgspec.to_builtins(self._queue.snapshot()),
            "assumed": len(self._assumed),
            "nodes": {
                name: {"pods": len(node.pods), "requested": dict(node.requested)}
                for name, node in sorted(self._cluster.nodes.items())
            },
        }

    # ── what changed ────────────────────────────────────────────────────────────────────────────────────────────

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        now = self._clock.monotonic()
        if new is None or is_terminal(new):
            pod = new or old
            assert pod is not None
            key = PodKey(pod.metadata.namespace, pod.metadata.name)
            self._assumed.pop(key, None)
            self._queue.remove(key)
            left = self._cluster.displace(key)
            if self._cluster.withdraw(key) or left:
                self._happened(ClusterEvent.POD_GONE)
            return
        key = PodKey(new.metadata.namespace, new.metadata.name)
        if new.spec.node_name:
            self._assumed.pop(key, None)
            self._queue.remove(key)
            self._cluster.withdraw(key)
            known = old is not None and bool(old.spec.node_name)
            if known and old is not None and _placed_inputs(old) == _placed_inputs(new):
                if _shown_inputs(old) != _shown_inputs(new):
                    self._cluster.place(PodInfo.of(new), new.spec.node_name)
                    if reserved(old) != reserved(new):
                        self._happened(ClusterEvent.POD_CHANGED)
                return
            self._cluster.place(PodInfo.of(new), new.spec.node_name)
            self._happened(ClusterEvent.POD_CHANGED if known else ClusterEvent.POD_BOUND)
            return
        if self._assumed.get(key) == new.metadata.uid:
            return  # bound by us; the watch has yet to say so
        if new.metadata.is_deleting or new.spec.scheduler_name != self._name or is_gated(new):
            self._queue.remove(key)
            if self._cluster.withdraw(key):
                self._happened(ClusterEvent.POD_GONE)
            return
        info = PodInfo.of(new)
        if old is None or old.status.nominated_node_name != new.status.nominated_node_name:
            self._cluster.nominate(info, new.status.nominated_node_name)
        self._queue.add(info, now)
        self._wake.set()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            assert old is not None
            self._cluster.remove_node(old.metadata.name)
            return
        if old is not None and _node_inputs(old) == _node_inputs(new):
            return  # a heartbeat
        self._cluster.set_node(new)
        self._happened(ClusterEvent.NODE_ADDED if old is None else ClusterEvent.NODE_CHANGED)

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if new is None:
            assert old is not None
            self._cluster.namespaces.pop(old.metadata.name, None)
        elif old is None or old.metadata.labels != new.metadata.labels:
            self._cluster.set_namespace(new)
            self._happened(ClusterEvent.NAMESPACE_CHANGED)

    def _claim_changed(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        claim = new or old
        assert claim is not None
        key = (claim.metadata.namespace, claim.metadata.name)
        if new is None:
            self._cluster.claims.pop(key, None)
            return
        info = ClaimInfo(
            volume=new.spec.volume_name, is_exclusive=tuple(new.spec.access_modes) == ("ReadWriteOncePod",)
        )
        if self._cluster.claims.get(key) != info:
            self._cluster.claims[key] = info
            self._happened(ClusterEvent.CLAIM_CHANGED)

    def _volume_changed(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        if new is None:
            assert old is not None
            self._cluster.volumes.pop(old.metadata.name, None)
            return
        self._cluster.volumes[new.metadata.name] = new
        if old is None or (old.spec, old.metadata.labels) != (new.spec, new.metadata.labels):
            self._happened(ClusterEvent.CLAIM_CHANGED)

    def _happened(self, event: ClusterEvent) -> None:
        if self._queue.on_event(event, self._clock.monotonic()):
            self._wake.set()

    # ── deciding ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _decide_forever(self, tasks: TaskSet) -> None:
        while True:
            entry = self._queue.pop(self._clock.monotonic())
            self._report()
            if entry is None:
                await self._wait()
                continue
            pod = self._pods.get(entry.info.key.name, entry.info.key.namespace)
            if pod is None or pod.metadata.uid != entry.info.uid or pod.spec.node_name:
                self._queue.remove(entry.info.key)
                continue
            entry.info = PodInfo.of(pod, owner_selector=self._owner_selector(pod))
            verdict = schedule(entry.info, self._cluster)
            if isinstance(verdict, Unschedulable):
                attempts.labels("unschedulable").inc()
                self._queue.park(entry, verdict.wakes, self._clock.monotonic())
                step = self._make_room(entry, verdict)
                await self._slots.acquire()
                tasks.start(self._report_failure(pod, verdict, step))
            else:
                # Assumed at once, so that the next decision counts it; taken back if the binding fails.
                self._cluster.place(entry.info, verdict.node_name)
                self._assumed[entry.info.key] = entry.info.uid
                await self._slots.acquire()
                tasks.start(self._bind(entry, pod, verdict.node_name))

    def _make_room(self, entry: QueuedPod, verdict: Unschedulable) -> Preemption | NoPreemption | None:
        """Choose whom the pod may push aside and promise it the node; None if there is no node at all."""
        if not self._cluster.nodes:
            return None
        budgets = [_budget(item) for item in self._budgets.list()]
        step = preempt(entry.info, self._cluster, verdict.resolvable_nodes, budgets)
        if isinstance(step, Preemption):
            self._cluster.nominate(entry.info, step.node_name)
        elif not step.keeps_nomination:
            self._cluster.withdraw(entry.info.key)
        return step

    async def _wait(self) -> None:
        """Until something changed or the queue has a pod due."""
        due = self._queue.next_timer()
        timeout = None if due is None else max(due - self._clock.monotonic(), 0.0)
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _owner_selector(self, pod: Pod) -> Selector | None:
        owner = pod.metadata.controller
        workload: Selector | None = None
        if owner is not None and owner.kind == ReplicationController.kind:
            older = self._replication_controllers.get(owner.name, pod.metadata.namespace)
            workload = from_match_labels(older.spec.selector) if older is not None else None
        elif owner is not None and owner.kind in (ReplicaSet.kind, StatefulSet.kind):
            source = self._replicasets if owner.kind == ReplicaSet.kind else self._statefulsets
            found = source.get(owner.name, pod.metadata.namespace)
            workload = from_label_selector(found.spec.selector) if found is not None else None
        return owner_selector(pod, self._services.by_index(BY_NAMESPACE, pod.metadata.namespace), workload)

    def _report(self) -> None:
        sizes = self._queue.snapshot()
        pending_pods.labels("active").set(sizes.active)
        pending_pods.labels("backoff").set(sizes.backing_off)
        pending_pods.labels("unschedulable").set(sizes.unschedulable)

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _bind(self, entry: QueuedPod, pod: Pod, node_name: str) -> None:
        key = entry.info.key
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": entry.info.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node_name},
        }
        try:
            path = path_of(Pod, key.namespace, key.name, "binding")
            await self._client.request("POST", path, body=msgspec.json.encode(body))
        except (ApiError, ConnectionFailed) as error:
            attempts.labels("error").inc()
            self._forget(entry)
            if is_not_found(error):
                return  # the pod is gone; its event cleans up
            if not is_conflict(error):
                self._events.warning(pod, "FailedScheduling", f"binding rejected: {error}")
                _log.warning("binding refused", pod=f"{key.namespace}/{key.name}", node=node_name, error=str(error))
        else:
            attempts.labels("scheduled").inc()
            self._queue.remove(key)
            message = f"Successfully assigned {key.namespace}/{key.name} to {node_name}"
            self._events.normal(pod, "Scheduled", message)
        finally:
            self._slots.release()

    def _forget(self, entry: QueuedPod) -> None:
        """Take an assumption back, unless the watch has meanwhile confirmed or replaced it."""
        key = entry.info.key
        if self._assumed.get(key) != entry.info.uid:
            return
        del self._assumed[key]
        self._cluster.displace(key)
        self._happened(ClusterEvent.POD_GONE)
        self._queue.retry(entry, self._clock.monotonic())
        self._wake.set()

    async def _report_failure(
        self, pod: Pod, verdict: Unschedulable, step: Preemption | NoPreemption | None
    ) -> None:  # fmt: skip
        message = verdict.message
        nominated = pod.status.nominated_node_name
        if isinstance(step, Preemption):
            nominated = step.node_name
        elif step is not None:
            message = f"{message} {CLAIMS}, preemption: {step.message}"
            nominated = nominated if step.keeps_nomination else ""
        try:
            self._events.warning(pod, "FailedScheduling", message)
            status = self._failure_status(pod, message)
            if nominated != pod.status.nominated_node_name:
                status["nominatedNodeName"] = nominated or None
            if status:
                await self._patch_status(pod, status)
            if isinstance(step, Preemption):
                await self._remove(pod, step)
        except (ApiError, ConnectionFailed) as error:
            if not is_not_found(error):
                _log.warning("pod condition not written", pod=pod.metadata.key, error=str(error)[:300])
                if isinstance(step, Preemption):
                    self._happened(ClusterEvent.POD_GONE)  # nobody may have been asked to leave: look again
        finally:
            self._slots.release()

    def _failure_status(self, pod: Pod, message: str) -> dict[str, object]:
        """The PodScheduled condition; nothing if the pod says so already."""
        known = pod.status.condition("PodScheduled")
        if known is not None and (known.reason, known.message) == ("Unschedulable", message):
            return {}
        condition: dict[str, object] = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": timestamp.render(self._clock.wall()),
            "observedGeneration": pod.metadata.generation,
        }
        if known is not None and known.status == "False" and known.last_transition_time:
            condition["lastTransitionTime"] = known.last_transition_time
        return {"conditions": [condition]}

    async def _remove(self, pod: Pod, step: Preemption) -> None:
        """Say why, delete, and take the node's promise from those of lower priority."""
        for victim in step.victims:
            found = self._pods.get(victim.key.name, victim.key.namespace)
            if found is None or found.metadata.uid != victim.uid or found.metadata.is_deleting:
                continue
            condition = {
                "type": "DisruptionTarget",  # KEP-3329
                "status": "True",
                "reason": "PreemptionByScheduler",
                "message": f"{self._name}: preempting to accommodate a higher priority pod",
                "lastTransitionTime": timestamp.render(self._clock.wall()),
                "observedGeneration": found.metadata.generation,
            }
            try:
                await self._patch_status(found, {"conditions": [condition]})
                await self._client.delete(Pod, victim.key.name, namespace=victim.key.namespace, uid=victim.uid)
            except ApiError as error:
                if not is_not_found(error):
                    raise
                continue
            victims.inc()
            message = f"Preempted by pod {pod.metadata.uid} on node {step.node_name}"
            self._events.normal(found, "Preempted", message)
        own = PodKey(pod.metadata.namespace, pod.metadata.name)
        for other in lower_nominations(own, pod.spec.priority, step.node_name, self._cluster):
            self._cluster.withdraw(other.key)
            waiting = self._pods.get(other.key.name, other.key.namespace)
            if waiting is not None:
                await self._patch_status(waiting, {"nominatedNodeName": None})

    async def _patch_status(self, pod: Pod, status: dict[str, object]) -> None:
        await self._client.patch(
            Pod,
            pod.metadata.name,
            {"metadata": {"uid": pod.metadata.uid}, "status": status},
            namespace=pod.metadata.namespace,
            patch_type=PatchType.STRATEGIC,
            subresource="status",
        )


def _shown_inputs(pod: Pod) -> tuple[object, ...]:
    """What of a placed pod's status matters to scheduling: when it started, and how far a resize has come."""
    status = pod.status
    pending = status.condition("PodResizePending")
    return (status.start_time, status.allocated_resources, status.resources, pending and pending.reason)


def _placed_inputs(pod: Pod) -> tuple[object, ...]:
    """What of a bound pod other pods' placement depends on."""
    return (pod.metadata.uid, pod.metadata.labels, pod.metadata.is_deleting, pod.spec)


def _node_inputs(node: Node) -> tuple[object, ...]:
    return (node.metadata.uid, node.metadata.labels, node.spec, node.status.allocatable, node.status.images)


def _budget(item: PodDisruptionBudget) -> Budget:
    return Budget(
        namespace=item.metadata.namespace,
        selector=from_label_selector(item.spec.selector) if item.spec.selector is not None else None,
        allowed=item.status.disruptions_allowed,
        disrupted=frozenset(item.status.disrupted_pods),
    )
