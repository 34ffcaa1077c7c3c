"""Writes the EndpointSlices of a Service. A request is the Service's name.

Remembers, per waiting request, the time of the earliest change that led to it (the trigger time annotation), and what
was said about it last, so that events tell changes and not states.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from pilotage.api import services, timestamp
from pilotage.api.core_v1 import Node, Pod, Service
from pilotage.api.discovery_v1 import MANAGED_BY_LABEL, EndpointSlice
from pilotage.api.slices import Plan, Replacement
from pilotage.api.status import ApiError, is_not_found
from pilotage.controllers.endpointslice import metrics
from pilotage.controllers.endpointslice.core import MANAGER, Decision, decide
from pilotage.controllers.endpointslice.damping import Damping, Hold
from pilotage.controllers.endpointslice.topology import Zones, is_auto, node_inputs, survey
from pilotage.kit.clock import Clock
from pilotage.reconcile import DONE, Controller, Manager, Request, Result
from pilotage.reconcile.pace import Pace
from pilotage.reconcile.writes import Writes, together

BY_SERVICE, BY_NAMESPACE = "service", "namespace"


@dataclass(slots=True)
class _Told:
    """What users know about one Service."""

    held: frozenset[str] = frozenset()  # keys of pods that wait
    hints: dict[str, str] = field(default_factory=dict)  # family → why it has no hints; empty: it has


class EndpointSliceReconciler:
    """One Service at a time."""

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._clock = clock
        self._events = manager.events
        self._damping = Damping()
        self._pace = Pace()
        self._told: dict[Request, _Told] = {}
        self._zones: Zones | None = None  # None: the nodes have changed since they were surveyed
        self._services = manager.informer(Service)
        self._pods = manager.informer(Pod)
        self._nodes = manager.informer(Node)
        self._slices = manager.informer(EndpointSlice)
        self._writes = Writes(manager.client)
        self._writes.follow(self._slices)
        self._triggers: dict[Request, str] = {}
        self._services.add_index(BY_NAMESPACE, lambda service: (service.metadata.namespace,))
        self._pods.add_index(BY_NAMESPACE, lambda pod: (pod.metadata.namespace,))
        self._slices.add_index(BY_SERVICE, _service_key)

    def controller(self) -> Controller:
        controller = Controller("endpointslice", self)
        controller.watch(self._services)
        controller.reads(self._pods)
        controller.reads(self._nodes)
        controller.watch(self._slices, _service_of)

        def pod_changed(old: Pod | None, new: Pod | None) -> None:
            if self._damping.observe(old, new, self._clock.monotonic()):
                metrics.flaps.inc()
            if old is not None and new is not None and services.endpoint_inputs(old) == services.endpoint_inputs(new):
                return
            pod = new or old
            assert pod is not None
            for service in self._services.by_index(BY_NAMESPACE, pod.metadata.namespace):
                if any(obj is not None and services.selects(service, obj) for obj in (old, new)):
                    request = Request.of(service)
                    self._triggers.setdefault(request, timestamp.render_micro(self._clock.wall()))
                    controller.queue.add(request)

        def node_changed(old: Node | None, new: Node | None) -> None:
            was, now = (node_inputs(node) if node else ("", 0, False) for node in (old, new))
            if was == now:
                return  # most changes of a node are heartbeats
            self._zones = None
            for service in self._services.list():
                if was[0] != now[0] or is_auto(service):
                    controller.queue.add(Request.of(service))

        self._pods.add_handler(pod_changed)
        self._nodes.add_handler(node_changed)
        return controller

    async def reconcile(self, request: Request) -> Result:
        await self._writes.settle(request)
        service = self._services.get(request.name, request.namespace)
        trigger = self._triggers.pop(request, "")
        if service is None or service.metadata.is_deleting or not service.spec.selector:
            # Slices of a deleted Service go with it (garbage collector); without a selector they are hand-written.
            self._told.pop(request, None)
            return DONE
        if service.spec.type == "ExternalName":
            return DONE
        pods = [pod for pod in self._pods.by_index(BY_NAMESPACE, request.namespace) if services.selects(service, pod)]
        if self._zones is None:
            self._zones = survey(self._nodes.list())
        slices = self._slices.by_index(BY_SERVICE, (request.namespace, request.name))
        now = self._clock.monotonic()
        held = self._damping.holds(service, pods, now)
        decision = decide(
            service,
            pods,
            self._zones,
            slices,
            trigger or service.metadata.creation_timestamp,
            {key: hold.rule for key, hold in held.items()},
        )
        self._tell(request, service, held, decision)
        again_s = min((hold.left_s for hold in held.values()), default=None)
        if not decision.plan:
            return Result(requeue_after_s=again_s)
        if decision.only_adds and (left_s := self._pace.left_s(request, now)):
            metrics.deferred.inc()
            if trigger:
                self._triggers[request] = trigger  # older than any that came meanwhile
            return Result(requeue_after_s=left_s)
        self._pace.wrote(request, now)
        await self._write(request, decision.plan)
        return Result(requeue_after_s=again_s)

    async def _write(self, request: Request, step: Plan) -> None:
        async def update(item: Replacement) -> None:
            try:
                await self._writes.patch(request, self._slices, item.slice, item.document)
            except ApiError as error:
                if not is_not_found(error):
                    raise

        await together([self._writes.create(request, self._slices, document) for document in step.create])
        await together([update(item) for item in step.update])
        await together([self._writes.delete(request, self._slices, item) for item in step.delete])

    def _tell(self, request: Request, service: Service, held: Mapping[str, Hold], decision: Decision) -> None:
        told = self._told.setdefault(request, _Told())
        for key in sorted(held.keys() - told.held):
            metrics.held_back.inc()
            message = f"Pod {key} is ready again but waits for traffic: {held[key].rule}"
            self._events.warning(service, "EndpointHeldBack", message)
        told.held = frozenset(held)
        hinted = is_auto(service)
        for family in services.families(service):
            reason = decision.without_hints.get(family, "")
            if reason and told.hints.get(family) != reason:
                self._events.warning(service, "TopologyAwareHintsDisabled", f"{reason}, addressType: {family}")
            elif not reason and hinted and told.hints.get(family) != "":
                message = f"Topology Aware Hints has been enabled, addressType: {family}"
                self._events.normal(service, "TopologyAwareHintsEnabled", message)
            if reason or hinted:
                told.hints[family] = reason
            elif told.hints.pop(family, None) == "":
                message = f"Topology Aware Hints has been disabled, addressType: {family}"
                self._events.normal(service, "TopologyAwareHintsDisabled", message)


def _service_key(item: EndpointSlice) -> Iterable[Hashable]:
    if item.metadata.labels.get(MANAGED_BY_LABEL) != MANAGER or not item.service_name:
        return ()
    return ((item.metadata.namespace, item.service_name),)


def _service_of(item: EndpointSlice) -> tuple[Request, ...]:
    if item.metadata.labels.get(MANAGED_BY_LABEL) != MANAGER or not item.service_name:
        return ()
    return (Request(item.metadata.namespace, item.service_name),)
