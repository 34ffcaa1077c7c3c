"""The cluster-wide half: gives LoadBalancer Services their addresses.

Shell around `core.addresses`: watches Services, writes `status.loadBalancer`, says so in events. One at a time in a
cluster; a local cluster runs it in the controllers' process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pilotage.api import services
from pilotage.api.core_v1 import Service
from pilotage.client import Client, EventRecorder, Informer
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer.core.addresses import AddressBook, Decision, assigned_addresses, wants_address
from pilotage.reconcile import DONE, Controller, Manager, Request, Result

RETRY_S = 30.0  # how soon a Service without an address is looked at again when nothing else happens


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignerConfig:
    """Where addresses come from."""

    pools: tuple[str, ...]  # CIDRs or first-last ranges


class _Assigner:
    def __init__(
        self, config: AssignerConfig, client: Client, informer: Informer[Service], events: EventRecorder
    ) -> None:
        self._books = {family: AddressBook(config.pools, family) for family in ("IPv4", "IPv6")}
        self._client = client
        self._services = informer
        self._events = events
        self._restored = False
        self._waiting: set[Request] = set()  # Services that want an address while there is none
        self.retry: Callable[[Request], None] = lambda request: None

    async def reconcile(self, request: Request) -> Result:
        if not self._restored:  # the first request comes after the informer has synced
            for book in self._books.values():
                book.restore(self._services.list())
            self._restored = True
        service = self._services.get(request.name, request.namespace)
        if service is None:
            self._waiting.discard(request)
            released = [book.release(str(request)) for book in self._books.values()]
            self._freed(any(released))
            return DONE
        stated = assigned_addresses(service)
        decisions, freed = self._decide(service)
        addresses = tuple(decision.address for decision in decisions if decision.address)
        if wants_address(service):
            for decision in decisions:
                if decision.reason:
                    self._events.warning(service, decision.reason, decision.message)
            if stated != addresses:
                await self._write(service, [{"ip": address, "ipMode": "VIP"} for address in addresses])
                if addresses:
                    self._events.normal(service, "AddressAssigned", f"Assigned {', '.join(addresses)}")
            self._freed(freed)
            if len(addresses) == len(decisions):
                self._waiting.discard(request)
                return DONE
            self._waiting.add(request)
            # One address of the two families asked for serves meanwhile.
            return Result(requeue_after_s=RETRY_S)
        self._waiting.discard(request)
        # Another balancer's Service is none of our business; one that is no LoadBalancer any more keeps no address.
        if stated and service.spec.type != "LoadBalancer":
            await self._write(service, [])
        self._freed(freed or bool(stated))
        return DONE

    def _decide(self, service: Service) -> tuple[list[Decision], bool]:
        """One decision for each of its families, in its order; whether it gave up an address of another."""
        families = services.families(service) if wants_address(service) else ()
        decided = {family: book.decide(service) for family, book in self._books.items() if family in families}
        others = [book for family, book in self._books.items() if family not in families]
        released = [book.release(service.metadata.key) for book in others]
        return [decided[family] for family in families], any(released)

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
    informer = manager.informer(Service)
    assigner = _Assigner(config, client, informer, manager.events)
    # One worker: the book is one, and a decision costs microseconds.
    controller = manager.add(Controller("loadbalancer-addresses", assigner, workers=1))
    controller.watch(informer, lambda service: (Request.of(service),) if _concerns(service) else ())
    assigner.retry = controller.queue.add
    async with task_set() as tasks:
        tasks.start(manager.run())
        await informer.wait_synced()
        on_ready()
        await tasks.wait()


def _concerns(service: Service) -> bool:
    return service.spec.type == "LoadBalancer" or bool(service.status.load_balancer.ingress)
