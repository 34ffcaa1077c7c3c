"""What may be believed and kept of an upstream's answer.

Apart from `chain.forward` (which moves bytes) and `chain.cache` (which keeps them) because every decision about a
foreign packet is made here: is it the answer to what was asked, how long does it hold, how does it read for the next
asker. Nothing of an answer is ever used for another question than its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from struct import Struct
from struct import error as StructError

from pilotage.dns.core.name import Name
from pilotage.dns.core.record import OPT, SOA, Rcode, Record
from pilotage.dns.core.wire import (
    AA,
    AD,
    CD,
    DO,
    HEADER_BYTES,
    OPCODE_MASK,
    QR,
    RA,
    RD,
    TC,
    UDP_BYTES_MAX,
    Malformed,
    Query,
    skip_name,
)

_HEADER = Struct("!HHHHHH")
_RECORD = Struct("!HHIH")
NEGATIVE_TTL_DEFAULT_S = 5
"""For negative answers without a SOA, which RFC 2308 §5 says not to keep; a few seconds stop a storm."""
TTL_MAX_S = 3600
"""Longer promises are cut: a record that a person has corrected should not be wrong for a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An upstream's answer, checked, without its OPT record."""

    message: bytes
    """Header and sections; the id means nothing."""
    question_end: int
    ttl_offsets: tuple[int, ...]
    rcode: int
    lifetime_s: int
    """How long it may be kept; 0: not at all."""
    age_s: int = 0
    """How much of the TTLs and of `lifetime_s` has passed."""

    def aged(self, age_s: int) -> Reply:
        """The same answer, received `age_s` seconds ago."""
        return replace(self, age_s=age_s)


def upstream_query(query: Query, ident: int, case_bits: int) -> bytes:
    """The query to send: own id, random letter case (draft-vixie-dnsext-dns0x20), own EDNS, DO and CD as the client."""
    question = bytearray(query.question.lower()[:-4])
    for index, byte in enumerate(question):
        if 0x61 <= byte <= 0x7A and case_bits >> (index % 256) & 1:
            question[index] = byte - 0x20
    header = _HEADER.pack(ident, RD | (query.flags & CD), 1, 0, 0, 1)
    option = b"\0" + _RECORD.pack(OPT, UDP_BYTES_MAX, DO if query.dnssec_ok else 0, 0)
    return header + bytes(question) + query.question[-4:] + option


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a packet answers the query sent."""

    ours: bool
    """False: a stray or forged packet, keep waiting."""
    retry_by_stream: bool = False
    """Truncated, or the case was not repeated: ask again where nobody can forge."""


def judge(sent: bytes, received: bytes) -> Verdict:
    """Compare id, opcode and question, case included."""
    end = len(sent) - 11  # upstream_query's own OPT
    if len(received) < HEADER_BYTES or received[:2] != sent[:2]:
        return Verdict(False)
    flags = int.from_bytes(received[2:4], "big")
    if not flags & QR or flags & OPCODE_MASK:
        return Verdict(False)
    if received[HEADER_BYTES:end] != sent[HEADER_BYTES:end]:
        same = received[HEADER_BYTES:end].lower() == sent[HEADER_BYTES:end].lower()
        # Servers that cannot read a query may answer with the header alone.
        return Verdict(same or len(received) == HEADER_BYTES, retry_by_stream=same)
    return Verdict(True, retry_by_stream=bool(flags & TC))


def accept(sent: bytes, received: bytes) -> Reply:
    """Take an answer apart that `judge` found to be ours. Raises `ValueError` when it is malformed."""
    question_end = len(sent) - 11
    _, flags, questions, *counts = _HEADER.unpack_from(received)
    rcode = flags & 0xF
    if questions != 1 or received[HEADER_BYTES:question_end].lower() != sent[HEADER_BYTES:question_end].lower():
        raise ValueError("another question")
    offsets: list[int] = []
    lifetime = TTL_MAX_S
    position = question_end
    authority_soa_ttl: int | None = None
    kept = [0, 0, 0]
    try:
        for section, count in enumerate(counts):
            for _ in range(count):
                start = position
                position = skip_name(received, position)
                rtype, _, ttl, length = _RECORD.unpack_from(received, position)
                data_end = position + 10 + length
                if data_end > len(received):
                    raise ValueError("record beyond the packet")
                if rtype == OPT and section == 2:
                    rcode |= (ttl >> 24) << 4
                    received = received[:start]  # what follows was additional too, and may point beyond the cut
                    break
                offsets.append(position + 4)
                ttl = ttl if ttl < 1 << 31 else 0  # RFC 2181 §8
                lifetime = min(lifetime, ttl)
                if section == 1 and rtype == SOA and length >= 22:
                    authority_soa_ttl = min(ttl, int.from_bytes(received[data_end - 4 : data_end], "big"))
                kept[section] += 1
                position = data_end
    except (Malformed, StructError) as error:
        raise ValueError("cut short") from error
    if rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN) or flags & TC:
        lifetime = 0
    elif rcode == Rcode.NXDOMAIN or not kept[0]:
        lifetime = NEGATIVE_TTL_DEFAULT_S if authority_soa_ttl is None else min(lifetime, authority_soa_ttl)
    header = _HEADER.pack(0, flags & ~0xF | min(rcode, 0xF), 1, *kept)
    return Reply(
        message=header + received[HEADER_BYTES : max(position, question_end)],
        question_end=question_end,
        ttl_offsets=tuple(offsets),
        rcode=rcode if rcode <= 0xF else Rcode.SERVFAIL,
        lifetime_s=lifetime,
    )


def failure(query: Query, rcode: Rcode) -> Reply:
    """An answer of our own that holds nothing but `rcode`."""
    message = _HEADER.pack(0, QR | RA | rcode, 1, 0, 0, 0) + query.question
    return Reply(message=message, question_end=len(message), ttl_offsets=(), rcode=rcode, lifetime_s=0)


def render(reply: Reply, query: Query, *, bytes_max: int) -> bytes:
    """The reply for this asker: its id, question and case, EDNS or none, TTLs counted down."""
    _, flags, questions, *counts = _HEADER.unpack_from(reply.message)
    flags = flags & ~(AA | RD | CD | TC | 0xF) | RA | reply.rcode | query.flags & (RD | CD)
    if not query.flags & AD and not query.dnssec_ok:
        flags &= ~AD  # RFC 6840 §5.7: only for those who asked
    option = b"\0" + _RECORD.pack(OPT, UDP_BYTES_MAX, DO if query.dnssec_ok else 0, 0) if query.edns else b""
    if len(reply.message) + len(option) > bytes_max:
        header = _HEADER.pack(query.id, flags | TC, questions, 0, 0, bool(option))
        return header + query.question + option
    message = bytearray(reply.message)
    _HEADER.pack_into(message, 0, query.id, flags, questions, counts[0], counts[1], counts[2] + bool(option))
    message[HEADER_BYTES : reply.question_end] = query.question
    if reply.age_s:
        for offset in reply.ttl_offsets:
            ttl = int.from_bytes(message[offset : offset + 4], "big")
            message[offset : offset + 4] = max(0, ttl - reply.age_s).to_bytes(4, "big")
    return bytes(message) + option


def answer_records(reply: Reply) -> tuple[Record, ...]:
    """The answer section as records, names uncompressed; for appending to a CNAME of our own. Raises `ValueError`."""
    import dns.exception  # a tenth of a second to import, and only ExternalName Services need it
    import dns.message

    try:
        message = dns.message.from_wire(reply.message, ignore_trailing=True)
    except dns.exception.DNSException as error:
        raise ValueError("malformed answer") from error
    return tuple(
        Record(_labels(rrset.name.labels), int(rrset.rdtype), max(0, rrset.ttl - reply.age_s), (rdata.to_digestable(),))
        for rrset in message.answer
        for rdata in rrset
    )


def _labels(labels: tuple[bytes, ...]) -> Name:
    return tuple(label.lower() for label in labels if label)
