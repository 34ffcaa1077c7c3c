"""The assigner: writes addresses into the status of Services that ask for one.

A reconciler of the cluster, run once. Every rule is in `core.pools`; here are the watch, the write and the words for
people. One worker, because assignments must not race.

Specification: KEP-1959, KEP-1860 (ipMode).
"""

from collections.abc import Callable
from dataclasses import dataclass

from pilotage.api import timestamp
from pilotage.api.core_v1 import Service
from pilotage.client import Client, EventRecorder, Informer, PatchType
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.errors import UsageError
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer.core.pools import CONDITION, LOAD_BALANCER_CLASS, Assignments, Verdict, is_wanted, stated
from pilotage.reconcile import DONE, Controller, Manager, Request, Result

# A pool may be widened or an address freed by somebody outside; Services that wait are tried again.
_RETRY_EXHAUSTED_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignerConfig:
    """Where addresses come from."""

    pools: tuple[str, ...]  # CIDRs or first-last ranges, tried in this order
    load_balancer_class: str = LOAD_BALANCER_CLASS


class Assigner:
    """Reconciles one Service at a time."""

    def __init__(
        self,
        client: Client,
        services: Informer[Service],
        events: EventRecorder,
        config: AssignerConfig,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Raises `UsageError` for a pool that is none."""
        self._client, self._services, self._events, self._config = client, services, events, config
        self._clock = clock
        self._restored = False
        try:
            self.assignments = Assignments(config.pools)
        except ValueError as error:
            raise UsageError(f"load balancer pool: {error}") from error

    def snapshot(self) -> dict[str, tuple[str, ...]]:
        """Service → addresses, for debugging."""
        held = ((one.metadata.key, self.assignments.held(one.metadata.key)) for one in self._services.list())
        return {key: addresses for key, addresses in held if addresses}

    async def reconcile(self, request: Request) -> Result:
        if not self._restored:
            # Before the first decision: what Services have may not be given to others.
            self.assignments.restore(self._services.list(), self._config.load_balancer_class)
            self._restored = True
        service = self._services.get(request.name, request.namespace)
        if service is None or not is_wanted(service, self._config.load_balancer_class):
            return await self._release(request, service)
        verdict = self.assignments.assign(service)
        await self._write(service, verdict)
        if verdict.assigned:
            return DONE
        return Result(requeue_after_s=_RETRY_EXHAUSTED_S)

    async def _release(self, request: Request, service: Service | None) -> Result:
        self.assignments.release(str(request))
        foreign = service is not None and service.spec.type == "LoadBalancer"
        if service is None or service.metadata.is_deleting or foreign:
            return DONE  # nothing to write, or another balancer's to write
        if any(self.assignments.is_ours(address) for address in stated(service)):
            # The type changed: an address in the status would keep being announced and programmed.
            body = {"status": {"loadBalancer": {"ingress": None}}}
            await self._patch(service, body)
            self._events.normal(service, "AddressReleased", f"type is now {service.spec.type}")
        return DONE

    async def _write(self, service: Service, verdict: Verdict) -> None:
        status = "True" if verdict.assigned else "False"
        known = next((one for one in service.status.conditions if one.type == CONDITION), None)
        unchanged = known is not None and (known.status, known.reason, known.message) == (
            status,
            verdict.reason,
            verdict.message,
        )
        if unchanged and tuple(stated(service)) == verdict.addresses:
            return
        transition = (
            known.last_transition_time
            if known is not None and known.status == status
            else timestamp.render(self._clock.wall())
        )
        condition = {
            "type": CONDITION,
            "status": status,
            "reason": verdict.reason,
            "message": verdict.message,
            "lastTransitionTime": transition,
            "observedGeneration": service.metadata.generation,
        }
        ingress = [{"ip": address, "ipMode": "VIP"} for address in verdict.addresses]
        await self._patch(
            service, {"status": {"loadBalancer": {"ingress": ingress or None}, "conditions": [condition]}}
        )
        if verdict.assigned:
            self._events.normal(service, "AddressAssigned", ", ".join(verdict.addresses))
        else:
            self._events.warning(service, verdict.reason, verdict.message)

    async def _patch(self, service: Service, body: object) -> None:
        meta = service.metadata
        # Strategic: the condition is merged by type with those of others.
        await self._client.patch(
            Service,
            meta.name,
            body,
            namespace=meta.namespace,
            patch_type=PatchType.STRATEGIC,
            subresource="status",
            field_manager="pilotage-loadbalancer",
        )


async def run_assigner(config: AssignerConfig, client: Client, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Assign addresses until cancelled; assignments stay in the Services' status."""
    manager = Manager(client, component="pilotage-loadbalancer")
    services = manager.informer(Service)
    controller = Controller("loadbalancer", Assigner(client, services, manager.events, config), workers=1)
    controller.watch(services)
    manager.add(controller)

    async def announce_ready() -> None:
        await manager.wait_synced()
        on_ready()

    async with task_set() as tasks:
        tasks.start(announce_ready(), name="loadbalancer ready")
        await manager.run()
