"""Watches heartbeats, writes conditions and taints. A request is the node's name."""

from collections.abc import Callable
from dataclasses import dataclass

from pilotage.api import timestamp
from pilotage.api.codec import to_wire
from pilotage.api.coordination_v1 import Lease
from pilotage.api.core_v1 import Node, Pod
from pilotage.api.status import ApiError, is_not_found
from pilotage.client.client import PatchType
from pilotage.controllers.nodelifecycle.core import GRACE_S, Plan, is_evicting, is_lost, is_ready, plan
from pilotage.controllers.nodelifecycle.zones import Eviction, Zones, zone_of
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.writes import Writes, together

LEASE_NAMESPACE = "kube-node-lease"
BY_NODE = "node"


@dataclass(slots=True)
class _Heartbeat:
    """The last sign of life and when it was noticed here; the writer's own time is never compared with ours."""

    uid: str
    sign: tuple[str, str]  # the Lease's renewal, the latest heartbeat in the status
    seen_at: float


class NodeLifecycleReconciler:
    """One node at a time."""

    def __init__(self, manager: Manager, clock: Clock, *, grace_s: float = GRACE_S) -> None:
        self._clock = clock
        self._grace_s = grace_s
        self._events = manager.events
        self._nodes = manager.informer(Node)
        self._leases = manager.informer(Lease, namespace=LEASE_NAMESPACE)
        self._pods = manager.informer(Pod)
        self._pods.add_index(BY_NODE, lambda pod: (pod.spec.node_name,) if pod.spec.node_name else ())
        self._writes = Writes(manager.client)
        self._heartbeats: dict[str, _Heartbeat] = {}
        self._zones = Zones()
        self._look_again: Callable[[Request], None] = lambda request: None

    def controller(self) -> Controller:
        controller = Controller("nodelifecycle", self)
        controller.watch(self._nodes)
        controller.reads(self._pods)
        controller.watch(self._leases, lambda lease: (Request("", lease.metadata.name),))

        def node_changed(old: Node | None, new: Node | None) -> None:
            node = new or old
            assert node is not None
            self._observe(node, is_ready(new) if new is not None else None)

        self._look_again = controller.queue.add
        self._nodes.add_handler(node_changed)
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        node = self._nodes.get(request.name)
        if node is None:
            self._heartbeats.pop(request.name, None)
            await self._forget_lease(request.name)
            return DONE
        silent_s = self._silent_s(node)
        eviction, again_s = Eviction.NOW, 0.0
        if is_lost(node, silent_s, grace_s=self._grace_s):
            eviction, again_s = self._may_evict(node)
        else:
            self._observe(node, is_ready(node))  # it may have been silent for a moment
        step = plan(node, silent_s, self._clock.wall(), grace_s=self._grace_s, eviction=eviction)
        try:
            await self._carry_out(request, node, step)
        except BaseException:
            if eviction is Eviction.NOW:
                self._zones.give_back(node)
            raise
        waits = [wait for wait in (step.check_after_s, again_s) if wait]
        return Result(requeue_after_s=min(waits, default=None))

    def _observe(self, node: Node, ready: bool | None) -> None:
        """Whether pods are driven from a lost node depends on how many others are lost."""
        if self._zones.observe(node.metadata.name, zone_of(node), ready):
            for other in self._nodes.list():
                if is_lost(other, 0.0):
                    self._look_again(Request.of(other))

    def _may_evict(self, node: Node) -> tuple[Eviction, float]:
        self._observe(node, False)  # silence comes before the condition that tells of it
        if is_evicting(node) and not self._zones.all_lost:
            return Eviction.LATER, 0.0  # it has had its turn, and keeps what it has
        return self._zones.may_evict(node, self._clock.monotonic())

    def _silent_s(self, node: Node) -> float:
        """Seconds since the Lease or the status last changed, as noticed by this process."""
        lease = self._leases.get(node.metadata.name, LEASE_NAMESPACE)
        # Conditions written here keep the heartbeat time they had (the node's birth if they had none), so that our own
        # writes never pass for a sign of life.
        heartbeats = [condition.last_heartbeat_time for condition in node.status.conditions]
        sign = (
            lease.spec.renew_time if lease is not None else "",
            max([node.metadata.creation_timestamp, *heartbeats]),
        )
        now = self._clock.monotonic()
        known = self._heartbeats.get(node.metadata.name)
        if known is None or known.uid != node.metadata.uid or known.sign != sign:
            self._heartbeats[node.metadata.name] = _Heartbeat(node.metadata.uid, sign, now)
            return 0.0
        return now - known.seen_at

    async def _forget_lease(self, name: str) -> None:
        """A Lease goes with the Node that owns it; the garbage collector does not follow Leases, which only churn."""
        lease = self._leases.get(name, LEASE_NAMESPACE)
        if lease is None or not any(owner.kind == Node.kind for owner in lease.metadata.owner_references):
            return
        try:
            await self._writes.client.get(Node, name)  # the two caches are not ordered: ask before believing
        except ApiError as error:
            if not is_not_found(error):
                raise
        else:
            return
        try:
            await self._writes.client.delete(Lease, name, namespace=LEASE_NAMESPACE, uid=lease.metadata.uid)
        except ApiError as error:
            if not is_not_found(error):
                raise

    async def _carry_out(self, request: Request, node: Node, step: Plan) -> None:
        if step.conditions is not None:
            body = {"status": {"conditions": [to_wire(condition) for condition in step.conditions]}}
            await self._writes.patch(
                request, self._nodes, node, body, patch_type=PatchType.STRATEGIC, subresource="status"
            )
            if not step.is_ready:
                name = node.metadata.name
                self._events.normal(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        if step.taints is not None:
            version = None if step.conditions is not None else node.metadata.resource_version
            metadata = {"resourceVersion": version} if version else {"uid": node.metadata.uid}
            taints = [to_wire(taint) for taint in step.taints]
            await self._writes.patch(
                request, self._nodes, node, {"metadata": metadata, "spec": {"taints": taints or None}}
            )
        if step.is_silent:
            # Differs from kube-controller-manager, which also does so when the node itself says it is not ready: such a
            # node speaks for its pods, and would have to contradict us once it is ready again.
            pods = self._pods.by_index(BY_NODE, node.metadata.name)
            await together([self._mark_not_ready(pod) for pod in pods if pod.status.is_ready])

    async def _mark_not_ready(self, pod: Pod) -> None:
        """A silent node cannot say it itself; endpoints must stop pointing there."""
        condition = {
            "type": "Ready",
            "status": "False",
            "reason": "NodeNotReady",
            "lastTransitionTime": timestamp.render(self._clock.wall()),
        }
        try:
            await self._writes.client.patch(
                Pod,
                pod.metadata.name,
                {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}},
                namespace=pod.metadata.namespace,
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )
        except ApiError as error:
            if not is_not_found(error):
                raise
        self._events.warning(pod, "NodeNotReady", "Node is not ready")
