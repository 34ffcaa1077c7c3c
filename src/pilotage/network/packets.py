"""Raw link-layer sockets: frames of one EtherType on one interface, for who answers ARP or NDP.

Apart from `kernel` because it carries packets, not configuration. Called by load balancer announcers. What a frame says
is the caller's business (a pure core of its own).

Specification: packet(7).
"""

import ctypes
import fcntl
import socket
import struct

from pilotage.network.errors import NetworkError

ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD

_SIOCGIFHWADDR = 0x8927
_PACKET_ADD_MEMBERSHIP, _PACKET_MR_PROMISC, _PACKET_MR_ALLMULTI = 1, 1, 2
_SOL_PACKET = 263
_SO_ATTACH_FILTER, _INSTRUCTION_BYTES = 26, 8


def open_packet_socket(
    interface: str, ethertype: int, *, all_multicast: bool = False, program: bytes = b""
) -> socket.socket:
    """A non-blocking AF_PACKET socket that receives and sends whole frames of `ethertype` on `interface`.

    `program`: classic BPF that chooses among the frames received, before this process is woken for them.
    """
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
        if program:
            held = ctypes.create_string_buffer(program, len(program))
            described = struct.pack("@HP", len(program) // _INSTRUCTION_BYTES, ctypes.addressof(held))
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
        sock.bind((interface, ethertype))
    except OSError as error:
        raise NetworkError(f"open packet socket on {interface}: {error.strerror}", error.errno or 0) from error
    if all_multicast:
        membership = struct.pack("=iHH8s", socket.if_nametoindex(interface), _PACKET_MR_ALLMULTI, 0, b"")
        sock.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
    return sock


def interface_mac(interface: str) -> bytes:
    """The six bytes of the interface's hardware address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError as error:
            raise NetworkError(f"no link {interface}: {error.strerror}", error.errno or 0) from error
    return answer[18:24]
