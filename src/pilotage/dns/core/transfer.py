"""The whole zone as messages, for servers that keep a copy of it (AXFR, RFC 5936; IXFR, RFC 1995).

Apart from `zone`, which answers one question: here every name is enumerated. What has no end or no owner in the objects
stays out: pod records, and the empty non-terminals that every server derives by itself.

A transfer reads a view of the objects taken at its beginning, at the cost of one list; messages are then made one by
one, so that the shell may answer other questions in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.dns.core.record import (
    AXFR,
    IXFR,
    NS,
    SOA,
    Rcode,
    Record,
    address_record,
    name_record,
    soa_record,
    txt_record,
)
from pilotage.dns.core.records import ZoneSettings, endpoint_records, service_name, service_records
from pilotage.dns.core.wire import HEADER_BYTES, Query, Writer, reply_flags, skip_name
from pilotage.dns.core.zone import SCHEMA_VERSION

MESSAGE_BYTES = 16_000
"""Of one message: as far as compression pointers reach, and two milliseconds of work."""
_HEADER = Struct("!HHHHHH")
_SERIAL = Struct("!I")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneView:
    """The objects at one moment; they are frozen, so that references are enough."""

    settings: ZoneSettings
    serial: int
    services: tuple[tuple[Service, tuple[EndpointSlice, ...]], ...]


def zone_records(view: ZoneView) -> Iterator[Record]:
    """SOA, everything else in no particular order, SOA again (RFC 5936 §2.2)."""
    settings = view.settings
    soa = soa_record(settings.zone, view.serial, settings.ttl)
    yield soa
    yield from _nameserver(view)
    yield txt_record((b"dns-version", *settings.zone), SCHEMA_VERSION, settings.ttl)
    for service, slices in view.services:
        sets = service_records(service, settings)
        if service.spec.type != "ExternalName":
            sets = endpoint_records(service, slices, settings) | sets
        for by_type in sets.values():
            for records in by_type.values():
                yield from records
    yield soa


def _nameserver(view: ZoneView) -> Iterator[Record]:
    settings, zone = view.settings, view.settings.zone
    namespace, name = settings.dns_service
    if any((s.metadata.namespace, s.metadata.name) == (namespace, name) for s, _ in view.services):
        yield name_record(zone, NS, service_name(namespace, name, settings), settings.ttl)
        return
    target = (b"ns", b"dns", *zone)
    yield name_record(zone, NS, target, settings.ttl)
    yield from (address_record(target, packed, settings.ttl) for packed in settings.nameserver_addresses)


def is_transfer(query: Query) -> bool:
    return query.rtype in (AXFR, IXFR)


def known_serial(data: bytes, query: Query) -> int | None:
    """The serial that an IXFR's sender has, from the SOA in its authority section; None without one."""
    if query.rtype != IXFR or data[8:10] == b"\0\0":
        return None
    position = skip_name(data, HEADER_BYTES + len(query.question))
    if data[position : position + 2] != SOA.to_bytes(2, "big") or len(data) < position + 10:
        return None
    serial = skip_name(data, skip_name(data, position + 10))
    return int(_SERIAL.unpack_from(data, serial)[0]) if len(data) >= serial + 4 else None


def transfer_messages(data: bytes, query: Query, view: ZoneView) -> Iterator[bytes]:
    """The answers to a transfer's question, each a message.

    Only the cluster's zone is transferred; of any other name we say NOTAUTH, of the reverse zones too, which have a
    record for every pod.
    IXFR: nothing but the SOA for who has this serial, else the whole zone (RFC 1995 §4): changes are not kept, since a
    cluster's zone changes many times a minute and transfers in seconds.
    """
    zone = view.settings.zone
    if query.name != zone:
        yield _message(query, Rcode.NOTAUTH, ())
        return
    if known_serial(data, query) == view.serial:
        yield _message(query, Rcode.NOERROR, (soa_record(zone, view.serial, view.settings.ttl),))
        return
    yield from pack(query, zone_records(view))


def pack(query: Query, records: Iterable[Record]) -> Iterator[bytes]:
    """Messages of `MESSAGE_BYTES`, or of one record where that alone is longer."""
    writer, count = Writer(query.question, query.name), 0
    for record in records:
        end = len(writer.data)
        writer.record(record)
        count += 1
        if len(writer.data) > MESSAGE_BYTES and count > 1:
            del writer.data[end:]
            yield _sealed(query, Rcode.NOERROR, writer, count - 1)
            writer, count = Writer(query.question, query.name), 1
            writer.record(record)
    yield _sealed(query, Rcode.NOERROR, writer, count)


def _message(query: Query, rcode: Rcode, records: tuple[Record, ...]) -> bytes:
    writer = Writer(query.question, query.name)
    for record in records:
        writer.record(record)
    return _sealed(query, rcode, writer, len(records))


def _sealed(query: Query, rcode: Rcode, writer: Writer, count: int) -> bytes:
    flags = reply_flags(query, rcode, authoritative=rcode == Rcode.NOERROR, recursion=False)
    _HEADER.pack_into(writer.data, 0, query.id, flags, 1, count, 0, 0)
    return bytes(writer.data)
