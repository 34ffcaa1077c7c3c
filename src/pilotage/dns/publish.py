"""Putting this process behind the DNS Service: one EndpointSlice of its own, on its own node.

With `internalTrafficPolicy: Local` the service proxy of each node then sends pods to the process beside them. Apart
from `server` because it writes, while everything else only reads. Repeats itself when somebody changes or deletes the
slice; leaves the slice in place at the end, since a restart must not interrupt the node's names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pilotage.api.discovery_v1 import (
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
)
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.status import ApiError
from pilotage.client import Client, ConnectionFailed
from pilotage.dns.chain.exchange import Address
from pilotage.kit.backoff import Backoff
from pilotage.telemetry import get_logger

MANAGER = "pilotage-dns"
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
_RETRY = Backoff(initial_s=0.2, max_s=10.0)
_log = get_logger()


def own_slices(service: str, node: str, addresses: Iterable[Address]) -> tuple[EndpointSlice, ...]:
    """One slice per family, with its first address; wildcard addresses cannot be published and are left out."""
    namespace, _, name = service.partition("/")
    slices = []
    for family, suffix in (("IPv4", ""), ("IPv6", "-ipv6")):
        mine = [a for a in addresses if (":" in a.host) == (family == "IPv6") and a.host not in WILDCARDS][:1]
        for address in mine:
            conditions = EndpointConditions(ready=True, serving=True, terminating=False)
            endpoint = Endpoint(addresses=(address.host,), conditions=conditions, node_name=node)
            ports = (
                EndpointPort(name="dns", protocol="UDP", port=address.port),
                EndpointPort(name="dns-tcp", protocol="TCP", port=address.port),
            )
            labels = {SERVICE_NAME_LABEL: name, MANAGED_BY_LABEL: MANAGER}
            meta = ObjectMeta(name=f"{name}-{node}{suffix}", namespace=namespace, labels=labels)
            slices.append(EndpointSlice(metadata=meta, address_type=family, endpoints=(endpoint,), ports=ports))
    return tuple(slices)


class SlicePublisher:
    """Keeps the slices as they should be."""

    def __init__(self, client: Client, slices: tuple[EndpointSlice, ...]) -> None:
        self._client = client
        self._wanted = {part.metadata.key: part for part in slices}
        self._due = asyncio.Event()
        self._due.set()

    def observe(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """An informer's handler: notices when a slice of ours is not what it should be."""
        either = new or old
        wanted = self._wanted.get(either.metadata.key) if either is not None else None
        if wanted is not None and (new is None or not _same(new, wanted)):
            self._due.set()

    async def run(self) -> None:
        """Apply whenever due, until cancelled."""
        failures = 0
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                for part in self._wanted.values():
                    await self._client.apply(part, field_manager=MANAGER)
                failures = 0
            except (ApiError, ConnectionFailed) as error:
                failures += 1
                if failures in (3, 30):
                    _log.warning("cannot publish the slice of the DNS Service", error=str(error)[:300])
                self._due.set()
                await asyncio.sleep(_RETRY.delay_s(failures))


def _same(have: EndpointSlice, wanted: EndpointSlice) -> bool:
    labels = wanted.metadata.labels.items() <= have.metadata.labels.items()
    return labels and have.endpoints == wanted.endpoints and have.ports == wanted.ports
