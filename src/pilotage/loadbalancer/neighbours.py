"""The link to the neighbours: hears their questions of both families and answers for a set of addresses.

Apart from the announcer, which knows Services and no frames. Shell around `core.arp` and `core.ndp`. Groups are joined
for switches that forward multicast only to whoever has asked for it (RFC 4541): a solicitation would not get here.
"""

import asyncio
import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from pilotage.loadbalancer.core import arp, ndp
from pilotage.loadbalancer.core.addresses import family_of
from pilotage.network import ETHERTYPE_ARP, ETHERTYPE_IPV6, interface_mac, open_packet_socket
from pilotage.telemetry import get_logger

FRAMES_MAX = 64  # read per wake-up, so that a storm of questions cannot starve the loop
FRAME_BYTES_MAX = 256  # a question with padding or options has less than half
ANNOUNCEMENTS = 3  # MAX_NEIGHBOR_ADVERTISEMENT (RFC 4861 §10): a lost one would leave neighbours with the old node
ANNOUNCEMENT_INTERVAL_S = 1.0  # RETRANS_TIMER
_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Protocol:
    """One family's questions."""

    socket: socket.socket
    answer: Callable[[bytes, Container[str], bytes], bytes | None]
    announcement: Callable[[str, bytes], bytes]


class Neighbours:
    """Made in the network namespace of the link; raises `NetworkError` when it does not exist."""

    def __init__(self, interface: str) -> None:
        self._mac = interface_mac(interface)
        self._addresses: frozenset[str] = frozenset()
        self._groups = _Groups(interface)
        four = open_packet_socket(interface, ETHERTYPE_ARP)
        six = open_packet_socket(interface, ETHERTYPE_IPV6, all_multicast=True, program=ndp.SOLICITATIONS)
        self._protocols = {
            "IPv4": _Protocol(socket=four, answer=arp.answer, announcement=arp.announcement),
            "IPv6": _Protocol(socket=six, answer=ndp.answer, announcement=ndp.announcement),
        }

    def listen(self) -> None:
        """Answer from now on, in the running event loop."""
        loop = asyncio.get_running_loop()
        for protocol in self._protocols.values():
            loop.add_reader(protocol.socket.fileno(), self._receive, protocol)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for protocol in self._protocols.values():
            loop.remove_reader(protocol.socket.fileno())
            protocol.socket.close()
        self._groups.close()

    def answer_for(self, addresses: Iterable[str]) -> frozenset[str]:
        """From now on for these alone; returns those that are new, which are to be announced."""
        mine = frozenset(str(ipaddress.ip_address(address)) for address in addresses)
        gained, self._addresses = mine - self._addresses, mine
        self._groups.be_in({ndp.solicited_node(address) for address in mine if family_of(address) == "IPv6"})
        return gained

    async def announce(self, addresses: Iterable[str]) -> None:
        """Tell all neighbours, several times, as long as the addresses are still this node's."""
        for count in range(ANNOUNCEMENTS):
            if count:
                await asyncio.sleep(ANNOUNCEMENT_INTERVAL_S)
            for address in sorted(self._addresses & frozenset(addresses)):
                protocol = self._protocols[family_of(address)]
                _send(protocol.socket, protocol.announcement(address, self._mac))

    def _receive(self, protocol: _Protocol) -> None:
        for _ in range(FRAMES_MAX):
            try:
                frame = protocol.socket.recv(FRAME_BYTES_MAX, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # the link is down for a moment; questions come again
                    raise
                return
            reply = protocol.answer(frame, self._addresses, self._mac)
            if reply is not None:
                _send(protocol.socket, reply)


def _send(to: socket.socket, frame: bytes) -> None:
    try:
        to.send(frame)
    except OSError as error:
        # A full queue or a link that is down loses one frame, as the wire might; neighbours ask again.
        _log.debug("frame not sent", error=str(error))


class _Groups:
    """Memberships in multicast groups of one link, spread over sockets, since the kernel bounds them for each."""

    def __init__(self, interface: str) -> None:
        self._link = socket.if_nametoindex(interface)
        self._sockets: list[socket.socket] = []
        self._joined: dict[str, socket.socket] = {}

    def be_in(self, groups: set[str]) -> None:
        """Exactly these. Where IPv6 is switched off none is joined: neighbours who reach us by multicast still do."""
        for group in self._joined.keys() - groups:
            self._change(self._joined.pop(group), socket.IPV6_LEAVE_GROUP, group)
        for group in sorted(groups - self._joined.keys()):
            if not self._sockets or not self._change(self._sockets[-1], socket.IPV6_JOIN_GROUP, group):
                fresh = self._opened(group)
                if fresh is None:
                    return
                self._sockets.append(fresh)
            self._joined[group] = self._sockets[-1]

    def _opened(self, group: str) -> socket.socket | None:
        """A further socket, member of `group`; None where there is no IPv6."""
        try:
            fresh = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        except OSError as error:
            _log.debug("no multicast groups", error=str(error))
            return None
        if self._change(fresh, socket.IPV6_JOIN_GROUP, group):
            return fresh
        fresh.close()
        return None

    def _change(self, on: socket.socket, option: int, group: str) -> bool:
        request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", self._link)
        try:
            on.setsockopt(socket.IPPROTO_IPV6, option, request)
        except OSError as error:
            _log.debug("multicast group not changed", group=group, error=str(error))
            return False
        return True

    def close(self) -> None:
        for held in self._sockets:
            held.close()
