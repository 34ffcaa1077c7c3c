"""Writes the gateway's addresses into the status of the Ingresses whose routes Envoy has acknowledged.

Stands apart from translation because it talks to the API and must neither delay it nor fail it. Fed by `gateway` with
the keys that are programmed; reads current statuses from the informer; writes only differences, and retries.
"""

import asyncio
import ipaddress
from collections.abc import Collection, Iterable

from pilotage.api.networking_v1 import Ingress, IngressLoadBalancerIngress
from pilotage.api.status import ApiError, is_not_found
from pilotage.client import Client, ConnectionFailed, Informer, PatchType
from pilotage.kit import Backoff
from pilotage.telemetry import get_logger

_RETRY = Backoff(initial_s=0.2, max_s=10.0)
_log = get_logger()


class StatusWriter:
    """Brings Ingress statuses to what `program` last said."""

    def __init__(self, client: Client, ingresses: Informer[Ingress], addresses: Iterable[str]) -> None:
        """`addresses`: IP addresses or host names, in the order in which they are written."""
        self._client = client
        self._ingresses = ingresses
        self._wanted = tuple(_entry(address) for address in addresses)
        self._programmed: frozenset[str] = frozenset()
        self._released: set[str] = set()  # ours once, no longer: the addresses must go, unless someone else put theirs
        self._wake = asyncio.Event()

    def program(self, keys: Collection[str]) -> None:
        """Exactly these Ingresses (`metadata.key`) are reachable at our addresses now."""
        programmed = frozenset(keys)
        self._released = (self._released | (self._programmed - programmed)) - programmed
        self._programmed = programmed
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._write()
                failures = 0
            except (ApiError, ConnectionFailed) as error:
                failures += 1
                _log.warning("ingress status not written", error=str(error)[:300], failures=failures)
                self._wake.set()
                await asyncio.sleep(_RETRY.delay_s(failures))

    async def _write(self) -> None:
        for key in sorted(self._programmed):
            ingress = self._ingresses.get_key(key)
            if ingress is not None and ingress.status.load_balancer.ingress != self._wanted:
                await self._patch(ingress, self._wanted)
        for key in sorted(self._released):
            ingress = self._ingresses.get_key(key)
            if ingress is not None and ingress.status.load_balancer.ingress == self._wanted:
                await self._patch(ingress, ())
            self._released.discard(key)

    async def _patch(self, ingress: Ingress, entries: tuple[IngressLoadBalancerIngress, ...]) -> None:
        metadata = ingress.metadata
        body = {"status": {"loadBalancer": {"ingress": list(entries) or None}}}
        try:
            await self._client.patch(
                Ingress,
                metadata.name,
                body,
                namespace=metadata.namespace,
                patch_type=PatchType.MERGE,
                subresource="status",
            )
        except ApiError as error:
            if not is_not_found(error):  # deleted meanwhile: nothing to say any more
                raise


def _entry(address: str) -> IngressLoadBalancerIngress:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return IngressLoadBalancerIngress(hostname=address)
    return IngressLoadBalancerIngress(ip=address)
