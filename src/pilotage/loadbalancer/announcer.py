"""The per-node half: answers neighbours for the addresses that fall to this node.

Shell around `core.speaker`; the frames are those of `neighbours`. The kernel never owns these addresses; it forwards
what neighbours send here, and the service proxy's rules translate it before routing. Restarting loses nothing:
neighbours remember for a while, and ask again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pilotage.api.core_v1 import Node, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.client import Client, Informer, WatermarkPublisher
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer.core.addresses import assigned_addresses, wants_address
from pilotage.loadbalancer.core.speaker import candidates, eligible_nodes, speaker
from pilotage.loadbalancer.neighbours import Neighbours
from pilotage.telemetry import gauge, get_logger

_announced = gauge("pilotage_loadbalancer_announced_addresses", "Addresses this node answers for.")
_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncerConfig:
    """Which node this is and where its neighbours are."""

    node: str
    interface: str  # the link on which neighbours ask for the addresses of the pools


class _Announcer:
    def __init__(self, config: AnnouncerConfig, client: Client) -> None:
        self._config = config
        self._services = Informer(client, Service)
        self._slices = Informer(client, EndpointSlice)
        self._nodes = Informer(client, Node)
        self._watermark = WatermarkPublisher(client, "loadbalancer", config.node)
        self._changed = asyncio.Event()
        self._neighbours = Neighbours(config.interface)

    async def run(self, on_ready: Callable[[], None]) -> None:
        informers = (self._services, self._slices, self._nodes)
        self._slices.add_index("service", lambda item: ((item.metadata.namespace, item.service_name),))
        for informer in informers:
            informer.add_handler(lambda old, new: self._changed.set())
            informer.add_progress(lambda version: self._changed.set())
        try:
            async with task_set() as tasks:
                for informer in informers:
                    tasks.start(informer.run())
                tasks.start(self._watermark.run())
                for informer in informers:
                    await informer.wait_synced()
                self._neighbours.listen()
                on_ready()
                while True:
                    self._changed.clear()
                    # Taken before the objects are read: what arrives in between is covered by the next round.
                    applied = min(informer.resource_version for informer in informers)
                    if gained := self._update():
                        tasks.start(self._neighbours.announce(gained))
                    self._watermark.advance(applied)
                    await self._changed.wait()
        finally:
            self._neighbours.close()

    def _update(self) -> frozenset[str]:
        """The addresses that have come to this node."""
        eligible = eligible_nodes(self._nodes.list())
        mine: set[str] = set()
        for service in self._services.list():
            addresses = assigned_addresses(service)
            if not addresses or not wants_address(service):
                continue
            key = (service.metadata.namespace, service.metadata.name)
            allowed = candidates(service, self._slices.by_index("service", key), eligible)
            mine |= {address for address in addresses if speaker(address, allowed) == self._config.node}
        gained = self._neighbours.answer_for(mine)
        _announced.set(len(mine))
        if gained:
            _log.info("answering for addresses", node=self._config.node, gained=sorted(gained))
        return gained


async def run_announcer(
    config: AnnouncerConfig, client: Client, *, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Answer until cancelled; raises `NetworkError` when the interface does not exist."""
    await _Announcer(config, client).run(on_ready)
