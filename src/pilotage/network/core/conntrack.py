"""Connection tracking entries as values: what the kernel remembers of a flow, and how to make it forget one.

Apart from the socket so that tuples round-trip in a table. Fed by `pilotage.network.conntrack`. The service proxy needs
it: what was translated to an endpoint keeps going there after the endpoint is gone, until its entry is.
Leaves out creating and updating entries, expectations, labels and zones.

Specification: linux/netfilter/nfnetlink_conntrack.h.
"""

import ipaddress
import struct
from dataclasses import dataclass

from pilotage.network.core.message import NLM_F_DUMP, Message, Request, attribute, attributes, nested
from pilotage.network.core.rtnetlink import AF_INET, AF_INET6

_NFNL_SUBSYS_CTNETLINK = 1
_IPCTNL_MSG_CT_GET, _IPCTNL_MSG_CT_DELETE = 1, 2

_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_PROTOINFO, _CTA_ID, _CTA_FILTER = 1, 2, 4, 12, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V4_DST, _CTA_IP_V6_SRC, _CTA_IP_V6_DST = 1, 2, 3, 4
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_CTA_PROTOINFO_TCP = _CTA_PROTOINFO_TCP_STATE = 1
_CTA_FILTER_REPLY_FLAGS = 2
_BY_IP_SRC, _BY_PROTO_NUM = 1 << 0, 1 << 3  # net/netfilter/nf_internals.h: CTA_FILTER_F_*

# enum tcp_conntrack: a first packet that nothing answered yet; a connection that was reset.
TCP_SYN_SENT, TCP_CLOSE = 1, 8

_NFGEN = struct.Struct("=BBH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One tracked flow. `reply_source` differs from `destination` when the flow is translated to an endpoint."""

    protocol: int  # 6 TCP, 17 UDP, 132 SCTP
    source: str
    source_port: int
    destination: str
    destination_port: int
    reply_source: str
    reply_source_port: int
    id: int  # the kernel's own; makes a deletion miss an entry that was replaced meanwhile
    tcp_state: int = 0  # of enum tcp_conntrack; 0 for other protocols


def family_of(address: str) -> int:
    return AF_INET if ipaddress.ip_address(address).version == 4 else AF_INET6


def get_flows(family: int, *, protocol: int = 0, reply_source: str = "") -> Request:
    """Every flow of one family, or only those of a protocol, or only those of it that `reply_source` answers.

    The kernel looks at its whole table whatever is asked, 10 ms for a quarter of a million buckets; each flow of the
    answer costs 10 µs more to read. Before Linux 5.8 it answers with flows nobody asked for: look at them again.
    """
    body = _NFGEN.pack(family, 0, 0)
    if protocol:
        chosen, flags = [nested(_CTA_TUPLE_PROTO, attribute(_CTA_PROTO_NUM, bytes((protocol,))))], _BY_PROTO_NUM
        if reply_source:
            kind = _CTA_IP_V4_SRC if family == AF_INET else _CTA_IP_V6_SRC
            address = attribute(kind, ipaddress.ip_address(reply_source).packed)
            chosen, flags = [nested(_CTA_TUPLE_IP, address), *chosen], flags | _BY_IP_SRC
        body += nested(_CTA_TUPLE_REPLY, *chosen)
        body += nested(_CTA_FILTER, attribute(_CTA_FILTER_REPLY_FLAGS, struct.pack("=I", flags)))
    return Request(kind=_NFNL_SUBSYS_CTNETLINK << 8 | _IPCTNL_MSG_CT_GET, flags=NLM_F_DUMP, body=body)


def tcp_state_mark(state: int) -> bytes:
    """Bytes that a flow in this state has in its message, and hardly any other flow."""
    return attribute(_CTA_PROTOINFO_TCP_STATE, bytes((state,)))


def delete_flow(flow: Flow) -> Request:
    """Forget one flow; ENOENT when it is gone already."""
    family = family_of(flow.source)
    v4 = family == AF_INET
    addresses = attribute(
        _CTA_IP_V4_SRC if v4 else _CTA_IP_V6_SRC, ipaddress.ip_address(flow.source).packed
    ) + attribute(_CTA_IP_V4_DST if v4 else _CTA_IP_V6_DST, ipaddress.ip_address(flow.destination).packed)
    ports = (
        attribute(_CTA_PROTO_NUM, bytes((flow.protocol,)))
        + attribute(_CTA_PROTO_SRC_PORT, struct.pack("!H", flow.source_port))
        + attribute(_CTA_PROTO_DST_PORT, struct.pack("!H", flow.destination_port))
    )
    body = _NFGEN.pack(family, 0, 0)
    body += nested(_CTA_TUPLE_ORIG, nested(_CTA_TUPLE_IP, addresses), nested(_CTA_TUPLE_PROTO, ports))
    body += attribute(_CTA_ID, struct.pack("!I", flow.id))
    return Request(kind=_NFNL_SUBSYS_CTNETLINK << 8 | _IPCTNL_MSG_CT_DELETE, flags=0, body=body)


def read_flow(message: Message) -> Flow | None:
    """A flow from one dump message; None: a protocol without ports (ICMP)."""
    found = attributes(message.body, _NFGEN.size)
    original = _tuple(found.get(_CTA_TUPLE_ORIG, b""))
    reply = _tuple(found.get(_CTA_TUPLE_REPLY, b""))
    if original is None or reply is None:
        return None
    protocol, source, source_port, destination, destination_port = original
    identity = found.get(_CTA_ID, b"")
    state = attributes(attributes(found.get(_CTA_PROTOINFO, b"")).get(_CTA_PROTOINFO_TCP, b""))
    return Flow(
        protocol=protocol,
        source=source,
        source_port=source_port,
        destination=destination,
        destination_port=destination_port,
        reply_source=reply[1],
        reply_source_port=reply[2],
        id=struct.unpack("!I", identity)[0] if len(identity) == 4 else 0,
        tcp_state=state.get(_CTA_PROTOINFO_TCP_STATE, b"\0")[0],
    )


def _tuple(raw: bytes) -> tuple[int, str, int, str, int] | None:
    """(protocol, source, source port, destination, destination port) of one direction; None: no ports or no address."""
    outer = attributes(raw)
    ip, proto = attributes(outer.get(_CTA_TUPLE_IP, b"")), attributes(outer.get(_CTA_TUPLE_PROTO, b""))
    source = ip.get(_CTA_IP_V4_SRC) or ip.get(_CTA_IP_V6_SRC)
    destination = ip.get(_CTA_IP_V4_DST) or ip.get(_CTA_IP_V6_DST)
    if source is None or destination is None or _CTA_PROTO_SRC_PORT not in proto or _CTA_PROTO_DST_PORT not in proto:
        return None
    return (
        proto[_CTA_PROTO_NUM][0],
        str(ipaddress.ip_address(source)),
        int.from_bytes(proto[_CTA_PROTO_SRC_PORT], "big"),
        str(ipaddress.ip_address(destination)),
        int.from_bytes(proto[_CTA_PROTO_DST_PORT], "big"),
    )
