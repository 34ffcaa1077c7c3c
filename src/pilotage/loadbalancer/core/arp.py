"""ARP over Ethernet: what a question asks and what the answer is.

Two plain functions from bytes to bytes; the announcer owns the socket. Specification: RFC 826; RFC 5227 §3 for
announcements.
"""

import ipaddress
import struct
from collections.abc import Container

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ETHERTYPE, _HARDWARE, _PROTOCOL = 0x0806, 1, 0x0800
_REQUEST, _REPLY = 1, 2
_BROADCAST = b"\xff" * 6


def answer(frame: bytes, addresses: Container[str], mac: bytes) -> bytes | None:
    """The reply to a question for one of `addresses`; None for everything else.

    Announcements (sender and target address equal) are not answered: nobody asked.
    """
    if len(frame) < _ETHERNET.size + _ARP.size:
        return None
    _, _, ethertype = _ETHERNET.unpack_from(frame)
    fields = _ARP.unpack_from(frame, _ETHERNET.size)
    hardware, protocol, hardware_size, protocol_size, operation, sender_mac, sender_ip, _, target_ip = fields
    if (ethertype, hardware, protocol, hardware_size, protocol_size) != (_ETHERTYPE, _HARDWARE, _PROTOCOL, 6, 4):
        return None
    if operation != _REQUEST or sender_ip == target_ip or sender_mac == mac:
        return None
    if str(ipaddress.IPv4Address(target_ip)) not in addresses:
        return None
    return _frame(sender_mac, mac, _REPLY, mac, target_ip, sender_mac, sender_ip)


def announcement(address: str, mac: bytes) -> bytes:
    """A gratuitous request that makes neighbours update what they remember (RFC 5227 §3)."""
    packed = ipaddress.IPv4Address(address).packed
    return _frame(_BROADCAST, mac, _REQUEST, mac, packed, b"\0" * 6, packed)


def _frame(to: bytes, source: bytes, operation: int, *fields: bytes) -> bytes:
    arp = _ARP.pack(_HARDWARE, _PROTOCOL, 6, 4, operation, *fields)
    return _ETHERNET.pack(to, source, _ETHERTYPE) + arp
