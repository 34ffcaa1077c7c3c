"""ARP frames: the answer to one, and the announcement of an address.

Stands apart as a stateless protocol core: bytes in, bytes out. Fed by the announcer with whatever arrives on the
interface, so every length is checked. Leaves out IPv6 (NDP).

Specification: RFC 826 (frame), RFC 5227 §1.1 (probes), §2.3 (announcement), §3 (gratuitous reply).
"""

import struct
from collections.abc import Container

BROADCAST = b"\xff" * 6
_FRAME = struct.Struct("!6s6sHHHBBH6s4s6s4s")
_ETHERTYPE, _ETHERNET, _IPV4 = 0x0806, 1, 0x0800
_REQUEST, _REPLY = 1, 2


def answer(frame: bytes, mac: bytes, addresses: Container[bytes]) -> bytes | None:
    """The reply to an ARP request for one of `addresses` (four bytes each); None if it is not one.

    A probe (sender address 0.0.0.0) is answered too: that is how a host that wants the address learns it is taken.
    """
    if len(frame) < _FRAME.size:
        return None
    _, _, ethertype, hardware, protocol, mac_size, address_size, operation, sender_mac, sender, _, target = (
        _FRAME.unpack_from(frame)
    )
    if (ethertype, hardware, protocol, mac_size, address_size) != (_ETHERTYPE, _ETHERNET, _IPV4, 6, 4):
        return None
    if operation != _REQUEST or target not in addresses or sender_mac == mac:
        return None
    return _frame(sender_mac, mac, _REPLY, mac, target, sender_mac, sender)


def announcement(mac: bytes, address: bytes) -> tuple[bytes, bytes]:
    """Frames that make neighbours send `address` to `mac` from now on: some heed only requests, some only replies."""
    return (
        _frame(BROADCAST, mac, _REQUEST, mac, address, b"\0" * 6, address),
        _frame(BROADCAST, mac, _REPLY, mac, address, BROADCAST, address),
    )


def _frame(
    to: bytes, mac: bytes, operation: int, sender_mac: bytes, sender: bytes, target_mac: bytes, target: bytes
) -> bytes:
    return _FRAME.pack(to, mac, _ETHERTYPE, _ETHERNET, _IPV4, 6, 4, operation, sender_mac, sender, target_mac, target)
