"""Manifests → the whole zone as text; `PILOTAGE_GOLDEN=1` rewrites, the author reads the difference.

The zone's text is then read by dnspython, and every question is put to both: what the table finds by algorithm must be
what a conventional server finds by storing the zone.
"""

from __future__ import annotations

import os
from pathlib import Path

import dns.name
import dns.rdatatype
import dns.zone
import pytest

from pilotage.api.codec import convert, load_yaml
from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.dns.core.record import record_text
from pilotage.dns.core.records import endpoint_records, service_records
from pilotage.testing.dns import ZONE, ask, settings, table

CASES = sorted((Path(__file__).parent / "testdata").glob("*.in.yaml"))
KINDS: dict[str, type[Service] | type[EndpointSlice]] = {"Service": Service, "EndpointSlice": EndpointSlice}


def read(case: Path) -> tuple[list[Service], list[EndpointSlice]]:
    objects = [convert(KINDS[document["kind"]], document) for document in load_yaml(case.read_text())]
    return [o for o in objects if isinstance(o, Service)], [o for o in objects if isinstance(o, EndpointSlice)]


def zone_text(services: list[Service], slices: list[EndpointSlice]) -> str:
    lines = []
    for service in services:
        key = (service.metadata.namespace, service.metadata.name)
        own = [part for part in slices if (part.metadata.namespace, part.service_name) == key]
        sets = {**service_records(service, settings())}
        for name, found in endpoint_records(service, own, settings()).items():
            sets.setdefault(name, found)
        lines += [record_text(r) for found in sets.values() for records in found.values() for r in records]
    return "".join(line + "\n" for line in sorted(lines))


@pytest.mark.parametrize("case", CASES, ids=[case.name.removesuffix(".in.yaml") for case in CASES])
def test_golden(case: Path) -> None:
    text = zone_text(*read(case))
    golden = case.with_name(case.name.replace(".in.yaml", ".out.zone"))
    if os.environ.get("PILOTAGE_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("case", CASES, ids=[case.name.removesuffix(".in.yaml") for case in CASES])
def test_the_table_answers_as_a_server_that_stores_the_zone(case: Path) -> None:
    services, slices = read(case)
    namespaces = {service.metadata.namespace for service in services}
    made = table(*services, *slices, namespaces=namespaces)
    apex = f"{ZONE}. 5 IN SOA ns.dns.{ZONE}. hostmaster.{ZONE}. 0 7200 1800 86400 5\n{ZONE}. 5 IN NS ns.dns.{ZONE}.\n"
    stored = dns.zone.from_text(apex + zone_text(services, slices), ZONE, relativize=False)
    existing = {name for owner in stored for name in _up_to(owner, stored.origin)}
    asked = existing | {dns.name.Name((b"nothing", *name.labels)) for name in existing}
    asked = {name for name in asked if name.is_subdomain(dns.name.from_text(f"svc.{ZONE}."))}
    for name in sorted(asked):
        for rtype in ("A", "AAAA", "SRV", "TXT"):
            kind = dns.rdatatype.from_text(rtype)
            node = stored.get_node(name)
            if node is not None and node.get_rdataset(1, dns.rdatatype.CNAME) is not None:
                continue  # where the table and RFC 1034 differ on purpose
            held = node.get_rdataset(1, kind) if node is not None else None
            response = ask(made, str(name), rtype, use_edns=0, payload=1232)
            assert response.rcode() == (0 if name in existing else 3), (name, rtype)
            answers = {str(rdata) for rrset in response.answer for rdata in rrset}
            assert answers == {str(rdata) for rdata in held or ()}, (name, rtype)


def _up_to(owner: dns.name.Name, origin: dns.name.Name | None) -> list[dns.name.Name]:
    """A name and everything between it and the zone: those exist too (RFC 8020)."""
    names = []
    while owner != origin:
        names.append(owner)
        owner = owner.parent()
    return names
