"""What may be believed and kept of an upstream's answer.

Apart from `chain.forward` (which moves bytes) and `chain.cache` (which keeps them) because every decision about a
foreign packet is made here: is it the answer to what was asked, how long does it hold, how does it read for the next
asker. Nothing of an answer is ever used for another question than its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from struct import Struct
from struct import error as StructError

from pilotage.dns.core.bailiwick import check_answer
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
    STREAM_BYTES_MAX,
    TC,
    UDP_BYTES_MAX,
    Malformed,
    Query,
    compile_answer,
    skip_name,
)
from pilotage.dns.core.zone import Answer

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
    authoritative: bool = False
    """Whether it is from data of our own: the AA bit."""
    private: bool = False
    """Whether another asker, or the same one a moment later, may get another answer: never to be kept."""

    @property
    def repeatable_s(self) -> int:
        """For how long the same bytes may be sent to anybody who asks the same."""
        return 0 if self.private else self.lifetime_s - self.age_s

    def aged(self, age_s: int) -> Reply:
        """The same answer, received `age_s` seconds ago."""
        return replace(self, age_s=age_s)

    def with_ttls(self, least: int, most: int) -> Reply:
        """The same answer with every TTL, and the lifetime, between the two."""
        message = bytearray(self.message)
        for offset in self.ttl_offsets:
            ttl = int.from_bytes(message[offset : offset + 4], "big")
            message[offset : offset + 4] = min(max(ttl if ttl < 1 << 31 else 0, least), most).to_bytes(4, "big")
        lifetime = min(max(self.lifetime_s, least), most)
        return replace(self, message=bytes(message), lifetime_s=lifetime)


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
    questions = int.from_bytes(received[4:6], "big")
    if questions != 1 or received[HEADER_BYTES:question_end].lower() != sent[HEADER_BYTES:question_end].lower():
        raise ValueError("another question")
    reply = read_reply(received, question_end)
    if reply.message[6:8] == b"\0\0":
        return reply
    end = check_answer(reply.message, question_end)
    wants_proof = sent[-6:-2] != b"\0\0\0\0"  # DO: the authority section may hold signatures
    return reply if wants_proof or end == len(reply.message) else _without_offers(reply, end)


def _without_offers(reply: Reply, end: int) -> Reply:
    """Only the answer section, which ends at `end`: no stub needs more, and every further name could be a forgery."""
    counts = reply.message[4:8] + b"\0\0\0\0"
    message = reply.message[:4] + counts + reply.message[HEADER_BYTES:end]
    return replace(reply, message=message, ttl_offsets=tuple(o for o in reply.ttl_offsets if o < end))


def read_reply(received: bytes, question_end: int) -> Reply:
    """Find the records of a message whose question ends at `question_end`. Raises `ValueError` when malformed."""
    _, flags, _, *counts = _HEADER.unpack_from(received)
    rcode = flags & 0xF
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
    own = AA if reply.authoritative else 0
    flags = flags & ~(AA | RD | CD | TC | 0xF) | RA | own | reply.rcode | query.flags & (RD | CD)
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


def local_reply(query: Query, answer: Answer, *, private: bool = False) -> Reply:
    """An answer made of records of our own, in the shape of an upstream's."""
    plain = replace(query, edns=False)
    compiled = compile_answer(plain, answer, bytes_max=STREAM_BYTES_MAX, recursion=True)
    message = b"\0\0" + (compiled if isinstance(compiled, bytes) else compiled())
    reply = read_reply(message, HEADER_BYTES + len(query.question))
    return replace(reply, authoritative=answer.authoritative, private=private)


def answer_records(reply: Reply) -> tuple[Record, ...]:
    """The answer section as records, names uncompressed; for appending to a CNAME of our own. Raises `ValueError`."""
    return _section_records(reply, 1)


def authority_records(reply: Reply) -> tuple[Record, ...]:
    """The same of the authority section. Raises `ValueError`."""
    return _section_records(reply, 2)


def _section_records(reply: Reply, section: int) -> tuple[Record, ...]:
    import dns.exception  # a tenth of a second to import, and only ExternalName Services need it
    import dns.message

    try:
        message = dns.message.from_wire(reply.message, ignore_trailing=True)
    except dns.exception.DNSException as error:
        raise ValueError("malformed answer") from error
    return tuple(
        Record(_labels(rrset.name.labels), int(rrset.rdtype), max(0, rrset.ttl - reply.age_s), (rdata.to_digestable(),))
        for rrset in message.sections[section]
        for rdata in rrset
    )


def _labels(labels: tuple[bytes, ...]) -> Name:
    return tuple(label.lower() for label in labels if label)
