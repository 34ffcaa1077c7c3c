"""Queries from bytes, answers to bytes (RFC 1035 §4, RFC 6891).

Hand-written because this is the inner loop: a query is read in a few microseconds, and an answer is written once and
then served many times by `table`. Reading is strict and never follows a pointer: a question has none to follow.

An answer is written *relative to its query*: everything after the two bytes of the id, which alone differs between two
askers of the same question. Owner names point into the question, so the question's case (0x20) is echoed for free.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from pilotage.dns.core.name import LABEL_BYTES_MAX, NAME_BYTES_MAX, Name, to_wire
from pilotage.dns.core.record import AAAA, CLASS_IN, CNAME, MX, NS, OPT, PTR, SOA, A, Rcode, Record
from pilotage.dns.core.zone import Answer

HEADER_BYTES = 12
UDP_BYTES_DEFAULT = 512
"""What a client without EDNS takes (RFC 1035 §2.3.4)."""
UDP_BYTES_MAX = 1232
"""Larger datagrams are fragmented on some path, and fragments are how answers get forged (DNS flag day 2020)."""
STREAM_BYTES_MAX = 65535
POINTER_MAX = 0x3FFF  # fourteen bits

QR, OPCODE_MASK, AA, TC, RD, RA, AD, CD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
DO = 0x8000

_HEADER = Struct("!HHHHHH")
_HEADER_REST = Struct("!HHHHH")
_QUESTION_END = Struct("!HH")
_RECORD = Struct("!HHIH")
# Types whose names may be compressed: those of RFC 1035 alone (RFC 3597 §4).
_COMPRESSIBLE = frozenset((NS, CNAME, SOA, PTR, MX))


class Malformed(Exception):
    """A packet that is no query. `reply` is what to send, or None when any answer would be wrong."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__("malformed")
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question as it arrived."""

    id: int
    flags: int
    name: Name
    """Lower-case."""
    rtype: int
    rclass: int
    question: bytes
    """The question section as it arrived, case and all."""
    edns: bool = False
    edns_version: int = 0
    udp_bytes: int = UDP_BYTES_DEFAULT
    """The most the client takes by UDP; meaningless on a stream."""
    dnssec_ok: bool = False
    plain: bool = True
    """No EDNS options and nothing after them: the same bytes from another client mean the same query."""

    @property
    def answer_bytes_max(self) -> int:
        """How large a UDP answer may be."""
        return min(max(self.udp_bytes, UDP_BYTES_DEFAULT), UDP_BYTES_MAX)


def parse_query(data: bytes) -> Query:
    """One query. Raises `Malformed` with the right refusal: nothing for what is no query at all, FORMERR, NOTIMP."""
    if len(data) < HEADER_BYTES:
        raise Malformed(None)
    ident, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
    if flags & QR:
        raise Malformed(None)  # answering an answer is how two servers talk for ever
    if flags & OPCODE_MASK:
        raise Malformed(error_reply(data, Rcode.NOTIMP))
    if questions != 1 or answers:
        raise Malformed(error_reply(data, Rcode.FORMERR))
    name, position = _parse_name(data, HEADER_BYTES)
    if position + 4 > len(data):
        raise Malformed(error_reply(data, Rcode.FORMERR))
    rtype, rclass = _QUESTION_END.unpack_from(data, position)
    position += 4
    question = data[HEADER_BYTES:position]
    if not additionals and not authorities:
        plain = position == len(data)
        return Query(id=ident, flags=flags, name=name, rtype=rtype, rclass=rclass, question=question, plain=plain)
    options = None
    for _ in range(authorities + additionals):
        start = position
        position = skip_name(data, position)
        if position + 10 > len(data):
            raise Malformed(error_reply(data, Rcode.FORMERR))
        kind, size, extended, length = _RECORD.unpack_from(data, position)
        position += 10 + length
        if position > len(data):
            raise Malformed(error_reply(data, Rcode.FORMERR))
        if kind == OPT:
            if options is not None or data[start]:
                raise Malformed(error_reply(data, Rcode.FORMERR))  # RFC 6891 §6.1.1: at most one, at the root
            options = (size, extended, length)
    size, extended, length = options or (UDP_BYTES_DEFAULT, 0, 0)
    return Query(
        id=ident,
        flags=flags,
        name=name,
        rtype=rtype,
        rclass=rclass,
        question=question,
        edns=options is not None,
        edns_version=(extended >> 16) & 0xFF,
        udp_bytes=size,
        dnssec_ok=bool(extended & DO),
        plain=length == 0 and authorities + additionals == 1 and position == len(data),
    )


def _parse_name(data: bytes, position: int) -> tuple[Name, int]:
    """The lower-case labels at `position`, and where they end. A pointer in a question is malformed."""
    labels = []
    start, end = position, len(data)
    while True:
        if position >= end:
            raise Malformed(error_reply(data, Rcode.FORMERR))
        length = data[position]
        position += 1
        if length == 0:
            break
        if length > LABEL_BYTES_MAX or position + length > end or position + length - start >= NAME_BYTES_MAX:
            raise Malformed(error_reply(data, Rcode.FORMERR))
        labels.append(data[position : position + length].lower())
        position += length
    return tuple(labels), position


def skip_name(data: bytes, position: int) -> int:
    """Where the name at `position` ends; pointers end it and are not followed. Raises `Malformed`."""
    end = len(data)
    while position < end:
        length = data[position]
        if length == 0:
            return position + 1
        if length >= 0xC0:
            return position + 2
        if length > LABEL_BYTES_MAX:
            break
        position += 1 + length
    raise Malformed(error_reply(data, Rcode.FORMERR))


def question_section(name: Name, rtype: int) -> bytes:
    """A question of class IN as bytes."""
    return to_wire(name) + _QUESTION_END.pack(rtype, CLASS_IN)


def error_reply(data: bytes, rcode: Rcode) -> bytes:
    """The header alone with `rcode`: for packets whose question cannot be repeated."""
    ident, flags = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
    return _HEADER.pack(ident, QR | (flags & (OPCODE_MASK | RD)) | rcode, 0, 0, 0, 0)


class Writer:
    """One message under construction, with the names written so far for compression (RFC 1035 §4.1.4)."""

    def __init__(self, question: bytes, name: Name) -> None:
        self.data = bytearray(HEADER_BYTES)
        self.data += question
        self._offsets: dict[Name, int] = {}
        offset = HEADER_BYTES
        for index, label in enumerate(name):
            self._offsets[name[index:]] = offset
            offset += 1 + len(label)

    def name(self, name: Name, *, compress: bool = True) -> None:
        """Append `name`, as far as possible as a pointer; uncompressed names are still pointed to by later ones."""
        data, offsets = self.data, self._offsets
        for index, label in enumerate(name):
            suffix = name[index:]
            known = offsets.get(suffix)
            if known is not None and compress:
                data += (0xC000 | known).to_bytes(2, "big")
                return
            if known is None and len(data) <= POINTER_MAX:
                offsets[suffix] = len(data)
            data.append(len(label))
            data += label
        data.append(0)

    def record(self, record: Record) -> None:
        self.name(record.owner)
        data = self.data
        start = len(data)
        data += _RECORD.pack(record.rtype, CLASS_IN, record.ttl, 0)
        for part in record.data:
            if isinstance(part, tuple):
                self.name(part, compress=record.rtype in _COMPRESSIBLE)
            else:
                data += part
        length = len(data) - start - 10
        data[start + 8 : start + 10] = length.to_bytes(2, "big")


def _option(query: Query, rcode: int) -> bytes:
    """The OPT record of the reply; empty for a client without EDNS (RFC 6891 §7)."""
    if not query.edns:
        return b""
    flags = (rcode >> 4) << 24 | (DO if query.dnssec_ok else 0)
    return b"\0" + _RECORD.pack(OPT, UDP_BYTES_MAX, flags, 0)


def reply_flags(query: Query, rcode: int, *, authoritative: bool, recursion: bool, truncated: bool = False) -> int:
    """QR, with RD and CD repeated (RFC 1035 §4.1.1, RFC 4035 §3.2.2)."""
    flags = QR | (query.flags & (RD | CD)) | (rcode & 0xF)
    return flags | (AA if authoritative else 0) | (RA if recursion else 0) | (TC if truncated else 0)


@dataclass(slots=True)
class Rotation:
    """A compiled answer whose addresses take turns in front.

    All records have the same length, because their owner is a pointer: a turn is one slice of the records written
    twice, and a large answer needs no copy per turn.
    """

    head: bytes
    doubled: bytes
    length: int
    """Bytes of records in one answer; less than all of them when truncated."""
    period: int
    """Bytes of all records; `doubled` is twice this."""
    step: int
    tail: bytes
    position: int = 0

    def __call__(self) -> bytes:
        position = self.position
        following = position + self.step
        self.position = following if following < self.period else 0
        return self.head + self.doubled[position : position + self.length] + self.tail


Compiled = bytes | Rotation


def compile_answer(query: Query, answer: Answer, *, bytes_max: int, recursion: bool) -> Compiled:
    """The reply without its id, at most `bytes_max` long with it.

    What does not fit is left out: answers with TC set, since a resolver must know (RFC 2181 §9); the additional section
    silently, since it was only offered.
    """
    writer = Writer(query.question, query.name)
    option = _option(query, answer.rcode)
    room = bytes_max - len(option)
    rotated = _is_rotated(query, answer)
    start = len(writer.data)
    counts = [0, 0, 0]
    truncated = False
    for section, records in enumerate((answer.answers, answer.authority, answer.additional)):
        for record in records:
            end = len(writer.data)
            writer.record(record)
            if len(writer.data) > room:
                del writer.data[end:]
                truncated = section < 2
                break
            counts[section] += 1
        if truncated:
            break
    flags = reply_flags(
        query, answer.rcode, authoritative=answer.authoritative, recursion=recursion, truncated=truncated
    )
    head = _HEADER_REST.pack(flags, 1, counts[0], counts[1], counts[2] + bool(option))
    body = bytes(writer.data[HEADER_BYTES:])
    if not rotated or not counts[0]:
        return head + body + option
    step = 16 if query.rtype == A else 28
    question_end = start - HEADER_BYTES
    period = step * len(answer.answers)
    records_bytes = b"".join(_plain_address(record) for record in answer.answers)
    return Rotation(head + body[:question_end], records_bytes * 2, step * counts[0], period, step, option)


def _is_rotated(query: Query, answer: Answer) -> bool:
    """Whether the answer is nothing but two or more addresses at the question's own name."""
    if query.rtype not in (A, AAAA) or len(answer.answers) < 2 or answer.authority or answer.additional:
        return False
    return all(record.rtype == query.rtype and record.owner == query.name for record in answer.answers)


def _plain_address(record: Record) -> bytes:
    """A or AAAA of the question's name: its owner is a pointer to the question."""
    (packed,) = record.data
    assert isinstance(packed, bytes)
    return b"\xc0\x0c" + _RECORD.pack(record.rtype, CLASS_IN, record.ttl, len(packed)) + packed


def rcode_reply(query: Query, rcode: Rcode, *, recursion: bool = False) -> bytes:
    """A whole reply that says nothing but `rcode`."""
    option = _option(query, rcode)
    flags = reply_flags(query, rcode, authoritative=False, recursion=recursion)
    return _HEADER.pack(query.id, flags, 1, 0, 0, bool(option)) + query.question + option


def fast_key(data: bytes) -> bytes:
    """What stands for a query in the table of compiled answers: everything but its id, in lower case."""
    return data[2:].lower()


def is_fast(data: bytes, query: Query) -> bool:
    """Whether `fast_key` stands for this query and no other.

    Lower-casing touches every byte, so a query qualifies only if outside its name nothing changed; and only letters,
    digits, dashes and underscores in the name, so that `echo_case` finds its end by the zero byte.
    """
    if not query.plain or query.flags & ~(RD | AD | CD):
        return False
    end = HEADER_BYTES + len(query.question) - 4
    rest = data[2:HEADER_BYTES] + data[end:]
    return rest == rest.lower() and b"\0" not in data[HEADER_BYTES : end - 1]


def echo_case(data: bytes, body: bytes, lowered: bytes, reply: bytes) -> bytes | None:
    """`reply` (for `lowered`) with the question as `data` wrote it; None if more than the name's case differs."""
    end = body.index(0, HEADER_BYTES - 2)
    if body[end:] != lowered[end:] or body[: HEADER_BYTES - 2] != lowered[: HEADER_BYTES - 2]:
        return None
    return data[:2] + reply[: HEADER_BYTES - 2] + body[HEADER_BYTES - 2 : end] + reply[end:]
