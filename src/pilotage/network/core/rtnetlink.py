"""Links, addresses, routes and neighbours as netlink messages.

Apart from the socket so that every request is a value a table can test. Fed by `pilotage.network.kernel` with names and
indexes; gives `Request`s to send and `Link`, `Address`, `Route` values read back. IPv4 and IPv6 alike. Leaves out link
kinds other than veth and bridge, and routing tables other than main.

Specification: rtnetlink(7), linux/if_link.h, linux/if_bridge.h.
"""

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

from pilotage.network.core.message import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Request,
    attribute,
    attribute_list,
    attributes,
    nested,
    text,
    u8,
    u32,
)

AF_UNSPEC: Final = 0
AF_INET: Final = 2
AF_BRIDGE: Final = 7
AF_INET6: Final = 10

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

IFF_UP = 0x1

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_PROTINFO, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_NET_NS_FD = 12, 18, 20, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_IFLA_BRPORT_MODE = 4
_IFLA_BR_FORWARD_DELAY, _IFLA_BR_STP_STATE = 1, 5

_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 0x02  # IPv6: duplicate detection would keep a fresh address unusable for a second

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH = 1, 4, 5, 7, 9
_RT_TABLE_MAIN = 254
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
_RTN_UNICAST = 1
_RTNH_F_ONLINK = 4

_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80

# Marks the routes we own, so that a restart removes its own leftovers and nobody else's (values above 4 are free for
# daemons, rtnetlink(7); this one is unclaimed in iproute2's rt_protos).
ROUTE_PROTOCOL: Final = 80
RTPROT_STATIC: Final = 4  # part of an interface's own configuration

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_RTNEXTHOP = struct.Struct("=HBBi")
_NDMSG = struct.Struct("=BxxxiHBB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One network interface as the kernel reports it."""

    index: int  # > 0, unique within the namespace
    name: str
    up: bool
    master: int  # index of the bridge it is a port of; 0: of none
    mac: str  # colon-separated, lower case; empty for a link without one
    mtu: int
    kind: str  # "veth", "bridge", …; empty for physical and loopback links
    alias: str  # free text set by whoever made it; empty when unset


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One address of one link."""

    index: int  # the link's
    address: str  # "10.244.1.1/24": with the prefix length, in canonical form


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Route:
    """A route of the main table: `destination` through every address of `via`, or on-link through `interface`.

    Either `via` or `interface` is set. Several next hops share the load by flow (ECMP).
    """

    destination: str  # prefix in canonical form, "0.0.0.0/0" for the default
    via: tuple[str, ...] = ()
    interface: str = ""  # empty: the kernel picks it from the next hop


def mac_text(raw: bytes) -> str:
    """Six bytes as text."""
    return raw.hex(":")


def _family(address: str) -> tuple[int, bytes]:
    parsed = ipaddress.ip_address(address)
    return (AF_INET if parsed.version == 4 else AF_INET6), parsed.packed


def get_links() -> Request:
    """Every link of the namespace."""
    return Request(kind=RTM_GETLINK, flags=NLM_F_DUMP, body=_IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0))


def get_link(name: str) -> Request:
    """One link, answered with one message, ENODEV when there is none."""
    return Request(kind=RTM_GETLINK, flags=0, body=_IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(_IFLA_IFNAME, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class VethPair:
    """A veth pair to be made, one end here and up, the other in another namespace and down.

    Down, because the kernel refuses to bring up an end before the other one is known to it (ENOTCONN).
    """

    name: str
    peer: str
    peer_namespace_fd: int  # an open namespace file; the peer is born inside, never visible here
    master: int = 0  # bridge to join at birth; 0: none
    mtu: int = 1500
    mac: str = ""  # this end's; empty: the kernel draws one
    peer_mac: str = ""  # empty: the kernel draws one


def add_veth(pair: VethPair) -> Request:
    """Create the pair; EEXIST when either name is taken in its namespace."""
    peer = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0)
    peer += text(_IFLA_IFNAME, pair.peer) + u32(_IFLA_NET_NS_FD, pair.peer_namespace_fd) + u32(_IFLA_MTU, pair.mtu)
    if pair.peer_mac:
        peer += attribute(_IFLA_ADDRESS, bytes.fromhex(pair.peer_mac.replace(":", "")))
    body = _IFINFO.pack(AF_UNSPEC, 0, 0, IFF_UP, IFF_UP) + text(_IFLA_IFNAME, pair.name) + u32(_IFLA_MTU, pair.mtu)
    if pair.mac:
        body += attribute(_IFLA_ADDRESS, bytes.fromhex(pair.mac.replace(":", "")))
    if pair.master:
        body += u32(_IFLA_MASTER, pair.master)
    body += nested(
        _IFLA_LINKINFO,
        text(_IFLA_INFO_KIND, "veth"),
        nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, peer)),
    )
    return Request(kind=RTM_NEWLINK, flags=NLM_F_CREATE | NLM_F_EXCL, body=body)


def add_bridge(name: str, *, mtu: int, mac: str = "") -> Request:
    """Create a bridge, up, without spanning tree and forwarding at once (its default delay is 15 s)."""
    body = _IFINFO.pack(AF_UNSPEC, 0, 0, IFF_UP, IFF_UP) + text(_IFLA_IFNAME, name) + u32(_IFLA_MTU, mtu)
    if mac:
        body += attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    body += nested(
        _IFLA_LINKINFO,
        text(_IFLA_INFO_KIND, "bridge"),
        nested(_IFLA_INFO_DATA, u32(_IFLA_BR_STP_STATE, 0), u32(_IFLA_BR_FORWARD_DELAY, 0)),
    )
    return Request(kind=RTM_NEWLINK, flags=NLM_F_CREATE | NLM_F_EXCL, body=body)


def add_dummy(name: str) -> Request:
    """Create a dummy link, up: a place for addresses that must exist whether or not a wire does."""
    body = _IFINFO.pack(AF_UNSPEC, 0, 0, IFF_UP, IFF_UP) + text(_IFLA_IFNAME, name)
    return Request(
        kind=RTM_NEWLINK,
        flags=NLM_F_CREATE | NLM_F_EXCL,
        body=body + nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "dummy")),
    )


def delete_link(index: int) -> Request:
    """Remove a link; of a veth pair both ends go."""
    return Request(kind=RTM_DELLINK, flags=0, body=_IFINFO.pack(AF_UNSPEC, 0, index, 0, 0))


def set_up(index: int) -> Request:
    """Bring a link up."""
    return Request(kind=RTM_NEWLINK, flags=0, body=_IFINFO.pack(AF_UNSPEC, 0, index, IFF_UP, IFF_UP))


def set_master(index: int, master: int) -> Request:
    """Make a link a port of a bridge (0: of none)."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + u32(_IFLA_MASTER, master)
    return Request(kind=RTM_NEWLINK, flags=0, body=body)


def set_alias(index: int, alias: str) -> Request:
    """Note free text on a link, at most 255 bytes; the kernel ignores it in the request that makes the link."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + attribute(_IFLA_IFALIAS, alias.encode()[:255])
    return Request(kind=RTM_NEWLINK, flags=0, body=body)


def set_hairpin(index: int) -> Request:
    """Let a bridge port send a frame back where it came from: a Service whose endpoint is the caller needs it."""
    body = _IFINFO.pack(AF_BRIDGE, 0, index, 0, 0) + nested(_IFLA_PROTINFO, u8(_IFLA_BRPORT_MODE, 1))
    return Request(kind=RTM_SETLINK, flags=0, body=body)


def read_link(message: Message) -> Link:
    """A link from RTM_NEWLINK."""
    _, _type, index, flags, _change = _IFINFO.unpack_from(message.body)
    found = attributes(message.body, _IFINFO.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=_string(found.get(_IFLA_IFNAME, b"")),
        up=bool(flags & IFF_UP),
        master=_number(found.get(_IFLA_MASTER, b"")),
        mac=mac_text(found.get(_IFLA_ADDRESS, b"")),
        mtu=_number(found.get(_IFLA_MTU, b"")),
        kind=_string(info.get(_IFLA_INFO_KIND, b"")),
        alias=_string(found.get(_IFLA_IFALIAS, b"")),
    )


def get_addresses() -> Request:
    """Every address of every link."""
    return Request(kind=RTM_GETADDR, flags=NLM_F_DUMP, body=_IFADDR.pack(AF_UNSPEC, 0, 0, 0, 0))


def add_address(index: int, address: str) -> Request:
    """Put `address` ("10.0.0.1/24") on a link; repeating it is no error."""
    return Request(kind=RTM_NEWADDR, flags=NLM_F_CREATE | NLM_F_REPLACE, body=_address_body(index, address))


def delete_address(index: int, address: str) -> Request:
    """Take `address` off a link; EADDRNOTAVAIL when it is not there."""
    return Request(kind=RTM_DELADDR, flags=0, body=_address_body(index, address))


def _address_body(index: int, address: str) -> bytes:
    interface = ipaddress.ip_interface(address)
    family = AF_INET if interface.version == 4 else AF_INET6
    packed = interface.ip.packed
    body = _IFADDR.pack(family, interface.network.prefixlen, 0, 0, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if family == AF_INET6:
        body += u32(_IFA_FLAGS, _IFA_F_NODAD)
    return body


def read_address(message: Message) -> Address:
    """An address from RTM_NEWADDR."""
    _, length, _flags, _scope, index = _IFADDR.unpack_from(message.body)
    found = attributes(message.body, _IFADDR.size)
    packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return Address(index=index, address=f"{ipaddress.ip_address(packed)}/{length}")


def get_routes(family: int) -> Request:
    """Every route of one family."""
    return Request(kind=RTM_GETROUTE, flags=NLM_F_DUMP, body=_RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def replace_route(
    route: Route, interface_index: int = 0, *, on_link: bool = False, owner: int = ROUTE_PROTOCOL
) -> Request:
    """Add `route`, or put it in the place of the one to the same destination.

    `on_link`: take the next hop to be on the interface although no address there covers it.
    `owner`: the routing protocol noted on it; only those of ours are read back.
    """
    body = _route_body(route, interface_index, _RTNH_F_ONLINK if on_link else 0, owner)
    return Request(kind=RTM_NEWROUTE, flags=NLM_F_CREATE | NLM_F_REPLACE, body=body)


def delete_route(route: Route, interface_index: int = 0) -> Request:
    """Remove `route`; ESRCH when there is none."""
    return Request(kind=RTM_DELROUTE, flags=0, body=_route_body(route, interface_index))


def _route_body(route: Route, interface_index: int, flags: int = 0, owner: int = ROUTE_PROTOCOL) -> bytes:
    network = ipaddress.ip_network(route.destination)
    family = AF_INET if network.version == 4 else AF_INET6
    scope = _RT_SCOPE_UNIVERSE if route.via else _RT_SCOPE_LINK
    body = _RTMSG.pack(family, network.prefixlen, 0, 0, _RT_TABLE_MAIN, owner, scope, _RTN_UNICAST, flags)
    if network.prefixlen:
        body += attribute(_RTA_DST, network.network_address.packed)
    if interface_index:
        body += u32(_RTA_OIF, interface_index)
    if len(route.via) == 1:
        body += attribute(_RTA_GATEWAY, _family(route.via[0])[1])
    elif route.via:
        hops = b""
        for address in route.via:
            gateway = attribute(_RTA_GATEWAY, _family(address)[1])
            hops += _RTNEXTHOP.pack(_RTNEXTHOP.size + len(gateway), 0, 0, 0) + gateway
        body += attribute(_RTA_MULTIPATH, hops)
    return body


def read_route(message: Message) -> tuple[Route, int] | None:
    """A unicast route of the main table that carries our mark, with its output index; None: somebody else's."""
    family, length, _src, _tos, table, protocol, _scope, kind, _flags = _RTMSG.unpack_from(message.body)
    if table != _RT_TABLE_MAIN or protocol != ROUTE_PROTOCOL or kind != _RTN_UNICAST:
        return None
    found = attributes(message.body, _RTMSG.size)
    zero = bytes(4 if family == AF_INET else 16)
    destination = f"{ipaddress.ip_address(found.get(_RTA_DST, zero))}/{length}"
    via: list[str] = []
    if _RTA_GATEWAY in found:
        via.append(str(ipaddress.ip_address(found[_RTA_GATEWAY])))
    raw, offset = found.get(_RTA_MULTIPATH, b""), 0
    while offset + _RTNEXTHOP.size <= len(raw):
        size, _flags, _hops, _index = _RTNEXTHOP.unpack_from(raw, offset)
        if size < _RTNEXTHOP.size:
            break
        hop = dict(attribute_list(raw[offset + _RTNEXTHOP.size : offset + size]))
        if _RTA_GATEWAY in hop:
            via.append(str(ipaddress.ip_address(hop[_RTA_GATEWAY])))
        offset += (size + 3) & ~3
    return Route(destination=destination, via=tuple(via)), _number(found.get(_RTA_OIF, b""))


def add_neighbour(index: int, address: str, mac: str) -> Request:
    """A permanent ARP or NDP entry."""
    family, packed = _family(address)
    body = _NDMSG.pack(family, index, _NUD_PERMANENT, 0, 0)
    body += attribute(_NDA_DST, packed) + attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    return Request(kind=RTM_NEWNEIGH, flags=NLM_F_CREATE | NLM_F_REPLACE, body=body)


def delete_neighbour(index: int, address: str) -> Request:
    """Remove an ARP or NDP entry, so that the next packet asks again; ENOENT when there is none."""
    family, packed = _family(address)
    return Request(kind=RTM_DELNEIGH, flags=0, body=_NDMSG.pack(family, index, 0, 0, 0) + attribute(_NDA_DST, packed))


def _string(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _number(raw: bytes) -> int:
    return int(struct.unpack("=I", raw)[0]) if len(raw) == 4 else 0
