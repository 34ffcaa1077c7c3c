"""Netlink framing: headers, attributes, acknowledgements, as values.

Apart from the socket so that the layout can be tested byte by byte. Fed by `rtnetlink` and `conntrack`, which know what
the attributes mean; called by `pilotage.network.netlink`, which knows sockets. Leaves out generic netlink and
notifications, which nobody here uses.

Specification: netlink(7), and RFC 3549 for the header.
"""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_ROOT = 0x100
NLM_F_MATCH = 0x200
NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
# In an acknowledgement: the failed request is not echoed, extended attributes follow the header.
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF  # the two top bits are flags: nested, network byte order

_NLMSGERR_ATTR_MSG = 1

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One message to the kernel, without its sequence number, which belongs to the socket."""

    kind: int
    flags: int  # NLM_F_REQUEST and NLM_F_ACK are added when it is framed
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message from the kernel."""

    kind: int
    flags: int
    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The kernel's verdict on one request."""

    code: int  # 0 or an errno
    text: str  # what the kernel says about it; often empty


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length % 4)


def nested(kind: int, *children: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(children))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """An unsigned 32-bit attribute in host order."""
    return attribute(kind, struct.pack("=I", value))


def u8(kind: int, value: int) -> bytes:
    """An unsigned 8-bit attribute."""
    return attribute(kind, bytes((value,)))


def frame(request: Request, sequence: int) -> bytes:
    """The bytes that go to the kernel; a dump needs no acknowledgement, since DONE ends it."""
    flags = request.flags | NLM_F_REQUEST
    if request.flags & NLM_F_DUMP != NLM_F_DUMP or request.flags & NLM_F_CREATE:
        flags |= NLM_F_ACK
    return HEADER.pack(HEADER.size + len(request.body), request.kind, flags, sequence, 0) + request.body


def messages(datagram: bytes, marks: Collection[bytes] = ()) -> Iterator[Message]:
    """The messages of one datagram, in order; a truncated tail is dropped, as the kernel never sends one.

    With `marks`, of what is no acknowledgement only what contains one of them: the rest costs a quarter as much.
    """
    offset = 0
    while offset + HEADER.size <= len(datagram):
        length, kind, flags, sequence, _port = HEADER.unpack_from(datagram, offset)
        if length < HEADER.size or offset + length > len(datagram):
            return
        body = datagram[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3
        if not marks or kind in (NLMSG_ERROR, NLMSG_DONE) or any(mark in body for mark in marks):
            yield Message(kind=kind, flags=flags, sequence=sequence, body=body)


def attributes(body: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attributes of a body from `offset` on, by kind; of a kind that repeats, the last wins."""
    return dict(attribute_list(body, offset))


def attribute_list(body: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Attributes in order, repeated kinds included; stops at the first malformed one."""
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size or offset + length > len(body):
            return
        yield kind & _NLA_TYPE_MASK, body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def acknowledgement(message: Message) -> Acknowledgement:
    """Read an NLMSG_ERROR message, of which success (code 0) is one; or the code a dump's DONE carries."""
    (negative,) = struct.unpack_from("=i", message.body) if len(message.body) >= 4 else (0,)
    explanation = ""
    if message.kind == NLMSG_ERROR and message.flags & NLM_F_ACK_TLVS:
        offset = 4 + HEADER.size
        if not message.flags & NLM_F_CAPPED and len(message.body) >= 8:
            (echoed,) = struct.unpack_from("=I", message.body, 4)
            offset = 4 + ((echoed + 3) & ~3)
        raw = attributes(message.body, offset).get(_NLMSGERR_ATTR_MSG, b"")
        explanation = raw.rstrip(b"\0").decode(errors="replace")[:200]
    return Acknowledgement(code=-negative, text=explanation)
