"""The per-node half: answers ARP for the addresses that fall to this node.

Shell around `core.speaker` and `core.arp`. The kernel never owns these addresses; it forwards what neighbours send
here, and the service proxy's rules translate it before routing. Restarting loses nothing: neighbours remember for a
while, and ask again.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from pilotage.api.core_v1 import Node, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.client import Client, Informer, WatermarkPublisher
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer.core.addresses import assigned_addresses, family_of, wants_address
from pilotage.loadbalancer.core.arp import announcement, answer
from pilotage.loadbalancer.core.speaker import candidates, eligible_nodes, speaker
from pilotage.network import ETHERTYPE_ARP, interface_mac, open_packet_socket
from pilotage.telemetry import gauge, get_logger

FRAMES_MAX = 64  # read per wake-up, so that a storm of questions cannot starve the loop
FRAME_BYTES_MAX = 128  # an ARP frame with padding has 60

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
        self._addresses: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._socket = open_packet_socket(config.interface, ETHERTYPE_ARP)
        self._mac = interface_mac(config.interface)

    async def run(self, on_ready: Callable[[], None]) -> None:
        informers = (self._services, self._slices, self._nodes)
        self._slices.add_index("service", lambda item: ((item.metadata.namespace, item.service_name),))
        for informer in informers:
            informer.add_handler(lambda old, new: self._changed.set())
            informer.add_progress(lambda version: self._changed.set())
        loop = asyncio.get_running_loop()
        try:
            async with task_set() as tasks:
                for informer in informers:
                    tasks.start(informer.run())
                tasks.start(self._watermark.run())
                for informer in informers:
                    await informer.wait_synced()
                loop.add_reader(self._socket.fileno(), self._receive)
                on_ready()
                while True:
                    self._changed.clear()
                    # Taken before the objects are read: what arrives in between is covered by the next round.
                    applied = min(informer.resource_version for informer in informers)
                    self._update()
                    self._watermark.advance(applied)
                    await self._changed.wait()
        finally:
            loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _update(self) -> None:
        eligible = eligible_nodes(self._nodes.list())
        mine = set()
        for service in self._services.list():
            addresses = [address for address in assigned_addresses(service) if family_of(address) == "IPv4"]
            if not addresses or not wants_address(service):
                continue
            key = (service.metadata.namespace, service.metadata.name)
            allowed = candidates(service, self._slices.by_index("service", key), eligible)
            mine |= {address for address in addresses if speaker(address, allowed) == self._config.node}
        gained, self._addresses = mine - self._addresses, frozenset(mine)
        _announced.set(len(mine))
        for address in sorted(gained):
            self._send(announcement(address, self._mac))
        if gained:
            _log.info("answering for addresses", node=self._config.node, gained=sorted(gained))

    def _receive(self) -> None:
        for _ in range(FRAMES_MAX):
            try:
                frame = self._socket.recv(FRAME_BYTES_MAX, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # the link is down for a moment; questions come again
                    raise
                return
            reply = answer(frame, self._addresses, self._mac)
            if reply is not None:
                self._send(reply)

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
        except OSError as error:
            # A full queue or a link that is down loses one frame, as the wire might; neighbours ask again.
            _log.debug("frame not sent", error=str(error))


async def run_announcer(
    config: AnnouncerConfig, client: Client, *, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Answer until cancelled; raises `NetworkError` when the interface does not exist."""
    await _Announcer(config, client).run(on_ready)
