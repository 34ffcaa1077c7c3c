"""Neighbour discovery over Ethernet: what a solicitation asks and what the advertisement says.

The counterpart of `arp` for IPv6: plain functions from bytes to bytes; the announcer owns the socket. Specification:
RFC 4861 §7.1.1 (what is valid), §7.2.4 (answers), §7.2.6 (unsolicited ones); RFC 4862 §5.4 (duplicate address
detection, in which we defend what we answer for).
"""

import ipaddress
import struct
from collections.abc import Container

_ETHERNET = struct.Struct("!6s6sH")
_IPV6 = struct.Struct("!IHBB16s16s")
_ICMP = struct.Struct("!BBHI16s")  # type, code, checksum, flags, target
_PAYLOAD = _ETHERNET.size + _IPV6.size
_ETHERTYPE, _ICMPV6, _HOP_LIMIT = 0x86DD, 58, 255
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_LINK_ADDRESS, _TARGET_LINK_ADDRESS = 1, 2
_SOLICITED, _OVERRIDE = 0x4000_0000, 0x2000_0000
_UNSPECIFIED = bytes(16)
_ALL_NODES = ipaddress.IPv6Address("ff02::1").packed
_SOLICITED_NODE = ipaddress.IPv6Address("ff02::1:ff00:0").packed[:13]

SOLICITATIONS = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x28, 0, 0, 12),  # the EtherType
        (0x15, 0, 5, _ETHERTYPE),
        (0x30, 0, 0, _ETHERNET.size + 6),  # the next header
        (0x15, 0, 3, _ICMPV6),
        (0x30, 0, 0, _PAYLOAD),  # the ICMP type
        (0x15, 0, 1, _SOLICITATION),
        (0x06, 0, 0, 0xFFFF),
        (0x06, 0, 0, 0),
    )
)
"""A program for the kernel (BPF, bpf(4)) that lets solicitations through and nothing else: the same link carries all of
the node's traffic."""


def answer(frame: bytes, addresses: Container[str], mac: bytes) -> bytes | None:
    """The advertisement that answers a valid solicitation for one of `addresses`; None for everything else.

    Whoever asks from the unspecified address wants to use it himself: all nodes are told that it is taken.
    """
    if len(frame) < _PAYLOAD + _ICMP.size:
        return None
    _, sender_mac, ethertype = _ETHERNET.unpack_from(frame)
    version, length, header, hops, source, destination = _IPV6.unpack_from(frame, _ETHERNET.size)
    message = frame[_PAYLOAD : _PAYLOAD + length]
    if (ethertype, version >> 28, header, hops) != (_ETHERTYPE, 6, _ICMPV6, _HOP_LIMIT) or sender_mac == mac:
        return None
    if len(message) != length or length < _ICMP.size or _checksum(source, destination, message) != 0:
        return None
    kind, code, _, _, target = _ICMP.unpack_from(message)
    options = _options(message[_ICMP.size :])
    if (kind, code) != (_SOLICITATION, 0) or options is None or target[0] == 0xFF:
        return None
    if str(ipaddress.IPv6Address(target)) not in addresses:
        return None
    if source == _UNSPECIFIED:
        if destination[:13] != _SOLICITED_NODE or _SOURCE_LINK_ADDRESS in options:
            return None
        return _advertisement(target, _ALL_NODES, _multicast_mac(_ALL_NODES), mac, _OVERRIDE)
    neighbour = options.get(_SOURCE_LINK_ADDRESS, sender_mac)[:6]
    return _advertisement(target, source, neighbour, mac, _SOLICITED | _OVERRIDE)


def announcement(address: str, mac: bytes) -> bytes:
    """An unsolicited advertisement that makes neighbours replace what they remember."""
    target = ipaddress.IPv6Address(address).packed
    return _advertisement(target, _ALL_NODES, _multicast_mac(_ALL_NODES), mac, _OVERRIDE)


def solicited_node(address: str) -> str:
    """The multicast group in which neighbours ask for `address` (RFC 4291 §2.7.1)."""
    return str(ipaddress.IPv6Address(_SOLICITED_NODE + ipaddress.IPv6Address(address).packed[13:]))


def _options(data: bytes) -> dict[int, bytes] | None:
    """Type → value of each, the last of a type; None when they are not well formed."""
    found: dict[int, bytes] = {}
    while data:
        size = data[1] * 8 if len(data) > 1 else 0
        if not 0 < size <= len(data):
            return None
        found[data[0]] = data[2:size]
        data = data[size:]
    return found


def _advertisement(target: bytes, destination: bytes, to: bytes, mac: bytes, flags: int) -> bytes:
    """From the target itself: it is what this node answers for, and no other address of the link need be known."""
    option = bytes((_TARGET_LINK_ADDRESS, 1)) + mac
    message = _ICMP.pack(_ADVERTISEMENT, 0, 0, flags, target) + option
    checksum = _checksum(target, destination, message)
    message = _ICMP.pack(_ADVERTISEMENT, 0, checksum, flags, target) + option
    header = _IPV6.pack(6 << 28, len(message), _ICMPV6, _HOP_LIMIT, target, destination)
    return _ETHERNET.pack(to, mac, _ETHERTYPE) + header + message


def _checksum(source: bytes, destination: bytes, message: bytes) -> int:
    """Of the message and its pseudo-header (RFC 8200 §8.1); 0 when the message carries the right one."""
    data = source + destination + struct.pack("!II", len(message), _ICMPV6) + message + bytes(len(message) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _multicast_mac(group: bytes) -> bytes:
    return b"\x33\x33" + group[12:]  # RFC 2464 §7
