"""Records as people write them, from zone files, templates and objects.

dnspython reads the rdata; it is imported on first use, because only who configures such records needs it.
"""

from __future__ import annotations

from pilotage.dns.core.name import Name
from pilotage.dns.core.record import Record

REFUSED_TYPES = frozenset((41, 249, 250, 251, 252, 253, 254, 255))
"""OPT, TKEY, TSIG, transfers and ANY are no data."""


def parse_type(text: str) -> int:
    """`A`, `mx`, `TYPE123`. Raises `ValueError`."""
    import dns.rdatatype

    try:
        return int(dns.rdatatype.from_text(text))
    except (dns.rdatatype.UnknownRdatatype, ValueError) as error:
        raise ValueError(f"{text[:40]!r} is not a record type") from error


def parse_record(owner: Name, ttl: int, rtype: str, value: str) -> Record:
    """One record of class IN. Raises `ValueError` with what is wrong."""
    import dns.exception
    import dns.name
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype

    number = parse_type(rtype)
    if number in REFUSED_TYPES:
        raise ValueError(f"{rtype} is not data")
    try:
        rdata = dns.rdata.from_text(
            dns.rdataclass.IN, dns.rdatatype.RdataType.make(number), value, origin=dns.name.root, relativize=False
        )
        return Record(owner, number, ttl, split_names(number, rdata.to_wire() or b""))
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError(f"{value[:80]!r} is no {rtype}: {error}") from error


def parse_line(line: str, origin: Name) -> Record:
    """`name [ttl] [IN] type value`, names without final dot below `origin`. Raises `ValueError`."""
    import dns.exception
    import dns.name
    import dns.zonefile

    zone = dns.name.Name((*origin, b""))
    try:
        rrsets = dns.zonefile.read_rrsets(line, origin=zone, relativize=False, default_ttl=30, rdclass=None)
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError(f"{line[:80]!r}: {error}") from error
    records = [
        Record(_labels(s.name.labels), int(s.rdtype), s.ttl, split_names(int(s.rdtype), r.to_wire() or b""))
        for s in rrsets
        for r in s
    ]
    if len(records) != 1:
        raise ValueError(f"{line[:80]!r} is not one record")
    return records[0]


def parse_zone(text: str, origin: Name) -> tuple[Record, ...]:
    """A zone file (RFC 1035 §5); `$INCLUDE` is refused. Raises `ValueError` with the line."""
    import dns.exception
    import dns.name
    import dns.zone

    try:
        zone = dns.zone.from_text(
            text, origin=dns.name.Name((*origin, b"")), relativize=False, check_origin=False, allow_include=False
        )
    except (dns.exception.DNSException, ValueError, KeyError) as error:
        raise ValueError(str(error)) from error
    return tuple(
        Record(_labels(name.labels), int(rdataset.rdtype), rdataset.ttl, split_names(int(rdataset.rdtype), r.to_wire()))
        for name, rdataset in zone.iterate_rdatasets()
        for r in rdataset
    )


def split_names(rtype: int, rdata: bytes) -> tuple[bytes | Name, ...]:
    """Rdata with the names that matter to answering as names: CNAME, NS, PTR, MX and SRV targets."""
    skip = {2: 0, 5: 0, 12: 0, 15: 2, 33: 6}.get(rtype)
    if skip is None:
        return (rdata,)
    target: list[bytes] = []
    position = skip
    while rdata[position]:
        target.append(rdata[position + 1 : position + 1 + rdata[position]].lower())
        position += 1 + rdata[position]
    return (rdata[:skip], tuple(target)) if skip else (tuple(target),)


def _labels(labels: tuple[bytes, ...]) -> Name:
    return tuple(label.lower() for label in labels if label)
