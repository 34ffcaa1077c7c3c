"""A question about the cluster's own names → its answer, as records.

Apart from `records` (which names exist) and from `table` (how they are kept): this is the algorithm of RFC 1034 §4.3.2
for a zone whose names are computed from objects rather than stored. Asked by `table`; reads objects through `Objects`.

Every answer states its `scope`: the one object whose change makes it stale, so that compiled answers can be dropped
exactly. Leaves out everything outside the zone (None), and wildcard owners: the specification has none.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Protocol

from pilotage.api.core_v1 import Service
from pilotage.dns.core.name import (
    IN_ADDR_ARPA,
    IP6_ARPA,
    Name,
    is_partial_reverse,
    is_within,
    reversed_address,
    undashed,
)
from pilotage.dns.core.record import (
    AAAA,
    ANY,
    AXFR,
    CNAME,
    IXFR,
    NS,
    PTR,
    SOA,
    SRV,
    TXT,
    A,
    Rcode,
    Record,
    address_record,
    name_record,
    soa_record,
    txt_record,
)
from pilotage.dns.core.records import RecordSets, ZoneSettings, service_name

CHAIN_MAX = 10
"""CNAMEs followed inside the zone; longer chains are somebody's mistake."""
SCHEMA_VERSION = b"1.1.0"
STATIC = ""
"""The scope of answers that no object can change."""


class Objects(Protocol):
    """What the algorithm asks of the table."""

    serial: int

    def told_serial(self) -> int: ...
    def service(self, namespace: str, name: str) -> Service | None: ...
    def service_sets(self, service: Service) -> RecordSets: ...
    def endpoint_sets(self, service: Service) -> RecordSets: ...
    def has_namespace(self, namespace: str) -> bool: ...
    def has_pod(self, namespace: str, address: bytes) -> bool: ...
    def names_of_address(self, address: bytes) -> Iterable[Name]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The three sections, and what the shell has to know beyond them."""

    rcode: Rcode = Rcode.NOERROR
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authoritative: bool = True
    scope: Hashable | None = None
    """What makes this stale: (namespace, service), a namespace, a packed address, STATIC; None: do not keep it."""
    follow: Name | None = None
    """A CNAME left the zone: ask the upstreams for this name and append what they say."""


@dataclass(frozen=True, slots=True)
class Zone:
    """The algorithm over one set of objects."""

    settings: ZoneSettings
    objects: Objects

    def answer(self, name: Name, rtype: int) -> Answer | None:
        """The answer for class IN; None when the name is not ours."""
        zone = self.settings.zone
        if is_within(name, zone):
            if rtype in (AXFR, IXFR):
                return Answer(rcode=Rcode.REFUSED, authoritative=False)
            return self._inside(name, name[: len(name) - len(zone)], rtype)
        if is_within(name, IN_ADDR_ARPA) or is_within(name, IP6_ARPA):
            return self._reverse(name, rtype)
        return None

    # ── forward names ───────────────────────────────────────────────────────────────────────────────────────────────

    def _inside(self, name: Name, relative: Name, rtype: int) -> Answer:
        match relative:
            case ():
                return self._apex(rtype)
            case (b"svc",) | (b"pod",):
                return self._found({}, rtype, STATIC)
            case (namespace, b"svc" | b"pod"):
                text = namespace.decode("latin-1")
                exists = self.objects.has_namespace(text)
                return self._found({}, rtype, text) if exists else self._negative(Rcode.NXDOMAIN, text)
            case (label, namespace, b"pod"):
                return self._pod(name, label, namespace.decode("latin-1"), rtype)
            case (*_, service, namespace, b"svc"):
                return self._service(name, namespace.decode("latin-1"), service.decode("latin-1"), rtype, 0)
            case (b"dns-version",):
                return self._found({TXT: (txt_record(name, SCHEMA_VERSION, self.settings.ttl),)}, rtype, STATIC)
            case (b"dns",) | (b"ns", b"dns") if self._own_nameserver():
                return self._found(self._nameserver_sets(name) if len(relative) == 2 else {}, rtype, None)
            case _:
                return self._negative(Rcode.NXDOMAIN, None if relative[-1] == b"dns" else STATIC)

    def _service(self, name: Name, namespace: str, service_label: str, rtype: int, depth: int) -> Answer:
        scope = (namespace, service_label)
        service = self.objects.service(namespace, service_label)
        if service is None:
            return self._negative(Rcode.NXDOMAIN, scope)
        found = self.objects.service_sets(service).get(name)
        if found is None and service.spec.type != "ExternalName":
            found = self.objects.endpoint_sets(service).get(name)
        if found is None:
            return self._negative(Rcode.NXDOMAIN, scope)
        if CNAME in found and rtype in (A, AAAA):
            return self._chase(found[CNAME][0], rtype, depth)
        answer = self._found(found, rtype, scope)
        return self._with_addresses(answer, service) if rtype in (SRV, ANY) else answer

    def _chase(self, alias: Record, rtype: int, depth: int) -> Answer:
        """A CNAME and what its target has (RFC 1034 §3.6.2).

        Never kept: it depends on more than one object. As CoreDNS, and differs from RFC 6604: a chain that ends nowhere
        inside the zone is NODATA, so that the resolver goes on with its search list either way.
        """
        (target,) = alias.data
        assert isinstance(target, tuple)
        if not is_within(target, self.settings.zone):
            return Answer(answers=(alias,), follow=target)
        if depth >= CHAIN_MAX:
            return self._negative(Rcode.NOERROR, None)
        relative = target[: len(target) - len(self.settings.zone)]
        if len(relative) >= 3 and relative[-1] == b"svc":
            namespace, label = relative[-2].decode("latin-1"), relative[-3].decode("latin-1")
            further = self._service(target, namespace, label, rtype, depth + 1)
        else:
            further = self._inside(target, relative, rtype)
        if not further.answers:
            return self._negative(Rcode.NOERROR, None)
        return Answer(answers=(alias, *further.answers), follow=further.follow)

    def _with_addresses(self, answer: Answer, service: Service) -> Answer:
        """SRV targets' addresses in the additional section (RFC 2782)."""
        sets = self.objects.service_sets(service) or self.objects.endpoint_sets(service)
        targets = dict.fromkeys(record.data[1] for record in answer.answers if record.rtype == SRV)
        additional = tuple(
            record
            for target in targets
            if isinstance(target, tuple)
            for rtype in (A, AAAA)
            for record in sets.get(target, {}).get(rtype, ())
        )
        return Answer(answers=answer.answers, authority=answer.authority, additional=additional, scope=answer.scope)

    def _pod(self, name: Name, label: bytes, namespace: str, rtype: int) -> Answer:
        """Pod records, outside the specification: `10-244-1-7.default.pod`. Never kept, for they have no end."""
        address = undashed(label)
        mode = self.settings.pods
        if mode == "disabled" or address is None or not self.objects.has_namespace(namespace):
            return self._negative(Rcode.NXDOMAIN, None)
        if mode == "verified" and not self.objects.has_pod(namespace, address):
            return self._negative(Rcode.NXDOMAIN, None)
        record = address_record(name, address, self.settings.ttl)
        return self._found({record.rtype: (record,)}, rtype, None)

    # ── apex ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _own_nameserver(self) -> bool:
        """Whether `ns.dns.<zone>` exists: only while no DNS Service does."""
        service = self.objects.service(*self.settings.dns_service)
        return bool(self.settings.nameserver_addresses) and service is None

    def _nameserver_sets(self, name: Name) -> dict[int, tuple[Record, ...]]:
        records = [address_record(name, packed, self.settings.ttl) for packed in self.settings.nameserver_addresses]
        sets = {rtype: tuple(r for r in records if r.rtype == rtype) for rtype in (A, AAAA)}
        return {rtype: found for rtype, found in sets.items() if found}

    def _apex(self, rtype: int) -> Answer:
        """SOA and NS. Never kept: the serial moves with every change."""
        zone, ttl = self.settings.zone, self.settings.ttl
        soa = soa_record(zone, self.objects.told_serial(), ttl)
        service = self.objects.service(*self.settings.dns_service)
        if service is not None:
            target = service_name(*self.settings.dns_service, self.settings)
            sets = (self.objects.service_sets(service) or self.objects.endpoint_sets(service)).get(target, {})
        else:
            target = (b"ns", b"dns", *zone)
            sets = self._nameserver_sets(target)
        answer = self._found({SOA: (soa,), NS: (name_record(zone, NS, target, ttl),)}, rtype, None)
        if rtype != NS:
            return answer
        additional = (*sets.get(A, ()), *sets.get(AAAA, ()))
        return Answer(answers=answer.answers, additional=additional)

    # ── reverse names ───────────────────────────────────────────────────────────────────────────────────────────────

    def _reverse(self, name: Name, rtype: int) -> Answer | None:
        address = reversed_address(name)
        if address is not None:
            targets = sorted(self.objects.names_of_address(address))
            if targets:
                records = tuple(name_record(name, PTR, target, self.settings.ttl) for target in targets)
                zone = next((z for z in self.settings.reverse_zones if is_within(name, z)), name)
                return self._found({PTR: records}, rtype, address, zone)
        for zone in self.settings.reverse_zones:
            if name == zone:
                soa = soa_record(zone, self.objects.serial, self.settings.ttl)
                return self._found({SOA: (soa,)}, rtype, None, zone)
            if is_within(name, zone):
                # The levels between the zone and a full address exist: below them there may be addresses (RFC 8020).
                rcode = Rcode.NOERROR if is_partial_reverse(name) else Rcode.NXDOMAIN
                return self._negative(rcode, address if address is not None else STATIC, zone)
        return None

    # ── sections ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _found(
        self, sets: dict[int, tuple[Record, ...]], rtype: int, scope: Hashable | None, zone: Name | None = None
    ) -> Answer:
        """The records of the type at an existing name, or NODATA. ANY gets one set, whichever (RFC 8482 §4.1)."""
        records = next(iter(sets.values()), ()) if rtype == ANY else sets.get(rtype, ())
        return Answer(answers=records, scope=scope) if records else self._negative(Rcode.NOERROR, scope, zone)

    def _negative(self, rcode: Rcode, scope: Hashable | None, zone: Name | None = None) -> Answer:
        """NXDOMAIN or NODATA with the SOA that says how long to believe it (RFC 2308 §3).

        The serial in a kept negative answer may be older than the zone's: nobody reads it there, and exactness would
        mean dropping every negative answer at every change.
        """
        # What no object can bring about may be disbelieved longest: most of what search lists ask for.
        ttl = self.settings.ttl if scope == STATIC else self.settings.negative
        soa = soa_record(zone or self.settings.zone, self.objects.serial, ttl)
        return Answer(rcode=rcode, authority=(soa,), scope=scope)
