"""The cluster-wide half: gives LoadBalancer Services their addresses.

Shell around `core.addresses`: watches Services, writes `status.loadBalancer`, says so in events. One at a time in a
cluster; a local cluster runs it in the controllers' process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pilotage.api.core_v1 import Service
from pilotage.client import Client, EventRecorder, Informer
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer.core.addresses import AddressBook, assigned_address, wants_address
from pilotage.reconcile import DONE, Controller, Manager, Request, Result

RETRY_S = 30.0  # how soon a Service without an address is looked at again when nothing else happens


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignerConfig:
    """Where addresses come from."""

    pools: tuple[str, ...]  # CIDRs or first-last ranges


class _Assigner:
    def __init__(
        self, config: AssignerConfig, client: Client, services: Informer[Service], events: EventRecorder
    ) -> None:
        self._book = AddressBook(config.pools)
        self._client = client
        self._services = services
        self._events = events
        self._restored = False
        self._waiting: set[Request] = set()  # Services that want an address while there is none
        self.retry: Callable[[Request], None] = lambda request: None

    async def reconcile(self, request: Request) -> Result:
        if not self._restored:  # the first request comes after the informer has synced
            self._book.restore(self._services.list())
            self._restored = True
        service = self._services.get(request.name, request.namespace)
        if service is None:
            self._waiting.discard(request)
            self._freed(self._book.release(str(request)))
            return DONE
        stated = assigned_address(service)
        decision = self._book.decide(service)
        if decision.address:
            self._waiting.discard(request)
            if stated != decision.address:
                await self._write(service, [{"ip": decision.address, "ipMode": "VIP"}])
                self._events.normal(service, "AddressAssigned", f"Assigned {decision.address}")
            return DONE
        if wants_address(service):
            self._waiting.add(request)
            self._events.warning(service, decision.reason, decision.message)
            if stated:
                await self._write(service, [])
            return Result(requeue_after_s=RETRY_S)
        self._waiting.discard(request)
        # Another balancer's Service is none of our business; one that is no LoadBalancer any more keeps no address.
        if stated and service.spec.type != "LoadBalancer":
            await self._write(service, [])
        self._freed(bool(stated))
        return DONE

    def _freed(self, freed: bool) -> None:
        for request in self._waiting if freed else ():
            self.retry(request)

    async def _write(self, service: Service, ingress: list[dict[str, Any]]) -> None:
        meta = service.metadata
        body = {
            "metadata": {"resourceVersion": meta.resource_version},
            "status": {"loadBalancer": {"ingress": ingress or None}},
        }
        await self._client.patch(Service, meta.name, body, namespace=meta.namespace, subresource="status")


async def run_assigner(config: AssignerConfig, client: Client, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Assign until cancelled."""
    manager = Manager(client, component="pilotage-loadbalancer")
    services = manager.informer(Service)
    assigner = _Assigner(config, client, services, manager.events)
    # One worker: the book is one, and a decision costs microseconds.
    controller = manager.add(Controller("loadbalancer-addresses", assigner, workers=1))
    controller.watch(services, lambda service: (Request.of(service),) if _concerns(service) else ())
    assigner.retry = controller.queue.add
    async with task_set() as tasks:
        tasks.start(manager.run())
        await services.wait_synced()
        on_ready()
        await tasks.wait()


def _concerns(service: Service) -> bool:
    return service.spec.type == "LoadBalancer" or bool(service.status.load_balancer.ingress)
