"""One resource record, and the numbers of the DNS registries that this server uses.

Stands below `records` and `wire` so that neither needs the other. Values come from the IANA DNS parameters registry.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from pilotage.dns.core.name import Name, to_text

A = 1
NS = 2
CNAME = 5
SOA = 6
PTR = 12
MX = 15
TXT = 16
AAAA = 28
SRV = 33
OPT = 41
TSIG = 250
IXFR = 251
AXFR = 252
ANY = 255
CLASS_IN = 1

TYPE_NAMES = {A: "A", NS: "NS", CNAME: "CNAME", SOA: "SOA", PTR: "PTR", TXT: "TXT", AAAA: "AAAA", SRV: "SRV"}


class Rcode(IntEnum):
    """RFC 1035 §4.1.1, RFC 2136 §2.2, RFC 6891 §9."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    NOTAUTH = 9
    BADVERS = 16


class Record(NamedTuple):
    """One record of class IN. A tuple, because a large headless Service makes thousands of them at once."""

    owner: Name
    rtype: int
    ttl: int
    data: tuple[bytes | Name, ...]
    """The rdata in pieces: names are kept apart from bytes so that the wire format may compress them."""


def address_record(owner: Name, packed: bytes, ttl: int) -> Record:
    """A or AAAA, by the length of the address."""
    return Record(owner, A if len(packed) == 4 else AAAA, ttl, (packed,))


def name_record(owner: Name, rtype: int, target: Name, ttl: int) -> Record:
    """CNAME, NS or PTR."""
    return Record(owner, rtype, ttl, (target,))


def srv_record(owner: Name, weight: int, port: int, target: Name, ttl: int) -> Record:
    """SRV with priority 0 (RFC 2782)."""
    return Record(owner, SRV, ttl, (b"\0\0" + weight.to_bytes(2, "big") + port.to_bytes(2, "big"), target))


def txt_record(owner: Name, text: bytes, ttl: int) -> Record:
    """TXT with one string of at most 255 bytes."""
    return Record(owner, TXT, ttl, (bytes((len(text),)) + text,))


def soa_record(zone: Name, serial: int, ttl: int) -> Record:
    """The SOA of `zone`. Its own TTL is at most 300 s; the negative TTL (minimum) is `ttl` (RFC 2308 §4)."""
    timers = b"".join(n.to_bytes(4, "big") for n in (serial & 0xFFFFFFFF, 7200, 1800, 86400, ttl))
    return Record(zone, SOA, min(ttl, 300), ((b"ns", b"dns", *zone), (b"hostmaster", *zone), timers))


def record_text(record: Record) -> str:
    """One line as in a zone file; for goldens and people."""
    kind = TYPE_NAMES.get(record.rtype, f"TYPE{record.rtype}")
    return f"{to_text(record.owner)} {record.ttl} IN {kind} {_data_text(record)}"


def _data_text(record: Record) -> str:
    parts = record.data
    match record.rtype, parts:
        case 1, (bytes(packed),):
            return ".".join(map(str, packed))
        case 28, (bytes(packed),):
            import ipaddress

            return str(ipaddress.IPv6Address(packed))
        case 33, (bytes(numbers), tuple(target)):
            fields = (int.from_bytes(numbers[i : i + 2], "big") for i in (0, 2, 4))
            return " ".join(map(str, fields)) + " " + to_text(target)
        case 16, (bytes(text),):
            return f'"{text[1:].decode("latin-1")}"'
        case _:
            return " ".join(to_text(p) if isinstance(p, tuple) else _numbers(p) for p in parts)


def _numbers(timers: bytes) -> str:
    return " ".join(str(int.from_bytes(timers[i : i + 4], "big")) for i in range(0, len(timers), 4))
