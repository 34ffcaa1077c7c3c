"""The announcer of one node: answers ARP for the addresses this node was elected for.

The shell around `core.election` (which addresses) and `core.arp` (which bytes). It opens one raw socket on the node's
interface; the addresses are never configured on it, so nothing on the node listens there, and the service proxy's rules
translate what arrives. On take-over the neighbours are told by gratuitous ARP.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pilotage.api.core_v1 import Node, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.client import Client, EventRecorder, Informer, WatermarkPublisher
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer import metrics
from pilotage.loadbalancer.core import arp
from pilotage.loadbalancer.core.election import announcers
from pilotage.loadbalancer.core.pools import is_wanted, stated
from pilotage.network import ETHERTYPE_ARP, interface_mac, open_packet_socket
from pilotage.telemetry import get_logger

_SERVICE_INDEX = "service"
_FRAMES_AT_ONCE = 64  # then others of the event loop have their turn
_FRAME_BYTES_MAX = 2048
# RFC 5227 §2.3 announces twice; a switch may drop the first frame while it learns the port.
_ANNOUNCEMENTS = 2
_ANNOUNCEMENT_INTERVAL_S = 1.0

_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncerConfig:
    """Where to answer."""

    node: str
    interface: str  # on the network that clients are on


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncerSnapshot:
    """For debugging."""

    node: str
    addresses: tuple[str, ...]  # this node answers for
    watermark: int


class Announcer:
    """One node's answers. `run` it."""

    def __init__(self, config: AnnouncerConfig, client: Client) -> None:
        self.config = config
        self._services = Informer(client, Service)
        self._slices = Informer(client, EndpointSlice)
        self._nodes = Informer(client, Node)
        self._events = EventRecorder(client, "pilotage-loadbalancer", host=config.node)
        self._watermark = WatermarkPublisher(client, "loadbalancer", config.node)
        self._wake = asyncio.Event()
        self._balanced: set[str] = set()  # Services of type LoadBalancer with an address
        self._answered: dict[bytes, str] = {}  # packed address → text

    def snapshot(self) -> AnnouncerSnapshot:
        return AnnouncerSnapshot(
            node=self.config.node,
            addresses=tuple(sorted(self._answered.values())),
            watermark=self._watermark.value,
        )

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Until cancelled; raises `NetworkError` if the interface cannot be used."""
        self._slices.add_index(_SERVICE_INDEX, _service_keys)
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)
        self._nodes.add_handler(lambda old, new: self._wake.set())
        self._services.add_progress(lambda _: self._wake.set())
        self._slices.add_progress(lambda _: self._wake.set())
        mac = interface_mac(self.config.interface)
        with open_packet_socket(self.config.interface, ETHERTYPE_ARP) as sock:
            loop = asyncio.get_running_loop()
            loop.add_reader(sock.fileno(), self._receive, sock, mac)
            try:
                async with task_set() as tasks:
                    tasks.start(self._services.run(), name="announcer services")
                    tasks.start(self._slices.run(), name="announcer slices")
                    tasks.start(self._nodes.run(), name="announcer nodes")
                    tasks.start(self._events.run(), name="announcer events")
                    tasks.start(self._watermark.run(), name="announcer watermark")
                    await self._services.wait_synced()
                    await self._slices.wait_synced()
                    await self._nodes.wait_synced()
                    self._wake.set()
                    first = True
                    while True:
                        await self._wake.wait()
                        self._wake.clear()
                        for address in self._elect():
                            tasks.start(self._announce(sock, mac, address), key=address)
                        if first:
                            on_ready()
                            first = False
            finally:
                loop.remove_reader(sock.fileno())

    # ── what changed ────────────────────────────────────────────────────────────────────────────────────────────

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if new is not None and is_wanted(new) and stated(new):
            self._balanced.add(new.metadata.key)
        elif old is not None:
            self._balanced.discard(old.metadata.key)
        self._wake.set()

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for one in (old, new):
            if one is not None and f"{one.metadata.namespace}/{one.service_name}" in self._balanced:
                self._wake.set()

    def _elect(self) -> tuple[str, ...]:
        """Decide anew which addresses to answer for; returns those that are new here."""
        reached = min(self._services.resource_version, self._slices.resource_version)
        services = [one for key in self._balanced if (one := self._services.get_key(key)) is not None]
        slices = {
            one.metadata.key: self._slices.by_index(_SERVICE_INDEX, one.metadata.key)
            for one in services
            if one.spec.external_traffic_policy == "Local"
        }
        elected = announcers(services, slices, self._nodes.list())
        mine = {
            ipaddress.IPv4Address(address).packed: address
            for address, node in elected.items()
            if node == self.config.node and ":" not in address
        }
        new = tuple(sorted(set(mine.values()) - set(self._answered.values())))
        gone = sorted(set(self._answered.values()) - set(mine.values()))
        self._answered = mine
        self._watermark.advance(reached)
        metrics.ADDRESSES.set(len(mine))
        if new or gone:
            _log.info("addresses elected", answered=len(mine), new=new[:20], gone=gone[:20])
        for service in services:
            for address in stated(service):
                if address in new:
                    self._events.normal(service, "AddressAnnounced", f"{address} from node {self.config.node}")
        return new

    # ── frames ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _receive(self, sock: socket.socket, mac: bytes) -> None:
        for _ in range(_FRAMES_AT_ONCE):
            try:
                frame = sock.recv(_FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError as error:  # the interface went down; it may come back
                _log.warning("cannot receive ARP", interface=self.config.interface, error=str(error))
                return
            reply = arp.answer(frame, mac, self._answered)
            if reply is not None:
                self._send(sock, reply)
                metrics.ANSWERS.inc()

    async def _announce(self, sock: socket.socket, mac: bytes, address: str) -> None:
        packed = ipaddress.IPv4Address(address).packed
        for _ in range(_ANNOUNCEMENTS):
            if packed not in self._answered:
                return
            for frame in arp.announcement(mac, packed):
                self._send(sock, frame)
            await asyncio.sleep(_ANNOUNCEMENT_INTERVAL_S)

    def _send(self, sock: socket.socket, frame: bytes) -> None:
        try:
            sock.send(frame)
        except OSError as error:  # a full queue or a link that is down: whoever asked asks again
            metrics.FAILURES.inc()
            _log.debug("cannot send ARP", interface=self.config.interface, error=str(error))


def _service_keys(one: EndpointSlice) -> Iterable[str]:
    return (f"{one.metadata.namespace}/{one.service_name}",) if one.service_name else ()


async def run_announcer(
    config: AnnouncerConfig, client: Client, *, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Answer for this node's addresses, in the calling process's network namespace, until cancelled."""
    await Announcer(config, client).run(on_ready)
