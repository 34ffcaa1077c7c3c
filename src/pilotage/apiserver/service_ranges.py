"""ServiceCIDRs and IPAddresses: where the addresses of Services come from, and which one belongs to whom, as objects.

Stands apart from the allocator, which decides in memory and never writes: this is the record of it that people and
programs read. The cluster's own range is the ServiceCIDR `kubernetes`; every cluster address has an IPAddress that
names its Service. A ServiceCIDR that is deleted stays until no address needs it. Started by `server`.

Differs from kube-apiserver, where creating the IPAddress is the allocation: here the allocator of the one server is.

Specification: KEP-1880.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Iterator

from pilotage.api.status import ApiError
from pilotage.api.timestamp import render
from pilotage.apiserver.admission.service_addresses import held
from pilotage.apiserver.authentication import LOOPBACK
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.options import DeleteOptions
from pilotage.apiserver.core.record import Document, Record
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.subresources import builtin
from pilotage.kit.clock import Clock
from pilotage.storage import StorageError
from pilotage.telemetry import get_logger

log = get_logger()

DEFAULT_NAME = "kubernetes"
MANAGED_BY = "ipaddress.kubernetes.io/managed-by"
MANAGER = "ipallocator.k8s.io"
FAMILY = "ipaddress.kubernetes.io/ip-family"
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
# A burst of new Services is recorded in one go, after the Services themselves.
GATHER_S = 0.05

SERVICES = builtin("", "v1", "services")
ADDRESSES = builtin("networking.k8s.io", "v1", "ipaddresses")
RANGES = builtin("networking.k8s.io", "v1", "servicecidrs")


class ServiceRanges:
    """Keeps the objects of one cluster true."""

    def __init__(self, registry: Registry, networks: tuple[str, ...], clock: Clock) -> None:
        self._registry = registry
        self._networks = networks
        self._clock = clock
        self._woken = asyncio.Event()
        self._touched: set[str] = set()  # addresses whose owner may have changed
        self._owners: dict[str, Document] = {}
        cache = registry.store.cache
        for resource in (SERVICES, RANGES):
            cache.observe(resource.group, resource.plural, self._observe)
        for record in registry.cache(SERVICES).scan(""):
            self._own(record.document)
        self._touched |= self._owners.keys()

    def _observe(self, group: str, plural: str, previous: Document | None, current: Document | None) -> None:
        if plural == SERVICES.plural:
            before, after = held(previous)[0], held(current)[0]
            if before == after:
                return
            for address in before - after:
                self._owners.pop(address, None)
            if current is not None:
                self._own(current)
            self._touched |= before ^ after
        self._woken.set()

    def _own(self, service: Document) -> None:
        metadata = service["metadata"]
        owner = {
            "group": "",
            "resource": "services",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
        }
        self._owners |= dict.fromkeys(held(service)[0], owner)

    async def run(self) -> None:
        """Until cancelled."""
        # What an earlier life left behind.
        self._touched |= {record.name for record in self._registry.cache(ADDRESSES).scan("")}
        await self._step(self._make_default())
        while True:
            touched, self._touched = self._touched, set()
            for address in sorted(touched):
                await self._step(self._record(address))
            for record in tuple(self._registry.cache(RANGES).scan("")):
                await self._step(self._settle(record))
            await self._woken.wait()
            self._woken.clear()
            await asyncio.sleep(GATHER_S)

    async def _step(self, act: Awaitable[None]) -> None:
        """One failure must not keep the rest from being recorded."""
        try:
            await act
        except (ApiError, StorageError) as error:
            log.warning("service range or address not recorded", error=str(error))

    def _call(self, record: str, *, address: bool) -> Call:
        return Call(
            resource=ADDRESSES if address else RANGES,
            namespace="",
            name=record,
            subresource="",
            user=LOOPBACK,
            now=self._clock.wall(),
            user_agent="kube-apiserver",
        )

    async def _make_default(self) -> None:
        found = self._registry.cache(RANGES).get(DEFAULT_NAME)
        networks = list(self._networks)
        if found is not None:
            cidrs = found.document["spec"]["cidrs"]
            if len(cidrs) < len(networks) and networks[: len(cidrs)] == cidrs:
                # The cluster has been given its second family.
                spec = {**found.document["spec"], "cidrs": networks}
                call = self._call(DEFAULT_NAME, address=False)
                await self._registry.amend(call, lambda document: {**document, "spec": spec})
        else:
            document = {"metadata": {"name": DEFAULT_NAME}, "spec": {"cidrs": networks}}
            call = self._call(DEFAULT_NAME, address=False)
            await self._registry.create(call, self._registry.pipeline.decode(call, document))

    async def _record(self, address: str) -> None:
        """One address: exactly when a Service has it, an object that says so."""
        owner = self._owners.get(address)
        found = self._registry.cache(ADDRESSES).get(address)
        call = self._call(address, address=True)
        if found is not None:
            same = (found.document.get("spec") or {}).get("parentRef") == owner
            mine = found.labels.get(MANAGED_BY) == MANAGER
            if same or not mine:
                return
            await self._registry.delete(call, DeleteOptions())
        if owner is not None:
            family = f"IPv{ipaddress.ip_address(address).version}"
            document = {
                "metadata": {"name": address, "labels": {FAMILY: family, MANAGED_BY: MANAGER}},
                "spec": {"parentRef": dict(owner)},
            }
            await self._registry.create(call, self._registry.pipeline.decode(call, document))

    async def _settle(self, record: Record) -> None:
        """A range is ready, and stays while addresses of it are in use that no other range has."""
        document = record.document
        going = "deletionTimestamp" in document["metadata"]
        finalizers = document["metadata"].get("finalizers") or []
        conditions = (document.get("status") or {}).get("conditions") or ()
        ready: Document = next((item for item in conditions if item.get("type") == "Ready"), {})
        if going:
            if FINALIZER in finalizers and not any(self._needing(record)):
                await self._amend(record, finalizers=[item for item in finalizers if item != FINALIZER])
            elif ready.get("reason") != "Terminating":
                message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new"
                await self._amend(record, "False", "Terminating", f"{message} ServiceCIDR")
        elif FINALIZER not in finalizers or ready.get("status") != "True":
            wanted = finalizers if FINALIZER in finalizers else [*finalizers, FINALIZER]
            message = "Kubernetes Service CIDR is ready"
            await self._amend(record, "True", "", message, finalizers=wanted)

    def _needing(self, record: Record) -> Iterator[str]:
        others = [*self._networks] if record.name != DEFAULT_NAME else []
        for other in self._registry.cache(RANGES).scan(""):
            if other.name != record.name and "deletionTimestamp" not in other.document["metadata"]:
                others += other.document["spec"]["cidrs"]
        own = [ipaddress.ip_network(each) for each in record.document["spec"]["cidrs"]]
        rest = [ipaddress.ip_network(each) for each in others]
        for address in self._owners:
            parsed = ipaddress.ip_address(address)
            if any(parsed in each for each in own) and not any(parsed in each for each in rest):
                yield address

    async def _amend(
        self, record: Record, status: str = "", reason: str = "", message: str = "", finalizers: list[str] | None = None
    ) -> None:
        call = self._call(record.name, address=False)
        condition = {
            "type": "Ready",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": render(call.now),
        }

        def amended(document: Document) -> Document:
            changed = dict(document)
            if status:
                changed["status"] = {**(document.get("status") or {}), "conditions": [condition]}
            if finalizers is not None:
                changed["metadata"] = {**document["metadata"], "finalizers": finalizers}
            return changed

        await self._registry.amend(call, amended)
