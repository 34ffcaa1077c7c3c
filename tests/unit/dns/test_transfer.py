"""Whole zones as messages: dnspython reads them back, and they say what single answers say."""

from __future__ import annotations

from collections.abc import Iterator

import dns.message
import dns.name
import dns.rcode
import dns.rdataset
import dns.rdatatype
import dns.rrset
import dns.xfr
import dns.zone
import pytest

from pilotage.dns.core.table import Table
from pilotage.dns.core.transfer import MESSAGE_BYTES, transfer_messages
from pilotage.dns.core.wire import parse_query
from pilotage.dns.transfer import Transfers
from pilotage.testing.dns import ask, endpoint, part, service, summary, table

ZONE = dns.name.from_text("cluster.local.")


@pytest.fixture(scope="module")
def cluster() -> Table:
    made = table(
        service("web", "10.96.0.20", "fd00:96::20", ports=[("http", 80), ("dns", 53, "UDP")]),
        part("web", "10.244.1.5"),
        service("db", ports=[("sql", 5432)]),
        part("db", endpoint("10.244.1.7", "db-0"), endpoint("10.244.2.7", "db-1"), ports=[("sql", 5432)]),
        service("legacy", external="legacy.example.test"),
        service("many"),
        part("many", *(f"10.244.{i // 200}.{i % 200 + 1}" for i in range(1_000))),
    )
    made.advance_serial(1234)
    return made


def question(rtype: str, serial: int | None = None, name: str = "cluster.local.") -> bytes:
    query = dns.message.make_query(name, rtype)
    if serial is not None:
        query.authority.append(dns.rrset.from_text(name, 0, "IN", "SOA", f". . {serial} 0 0 0 0"))
    return query.to_wire()


def answers(made: Table, data: bytes) -> Iterator[dns.message.Message]:
    for wire in transfer_messages(data, parse_query(data), made.view()):
        assert len(wire) <= MESSAGE_BYTES
        yield dns.message.from_wire(wire, xfr=True, origin=ZONE, one_rr_per_rrset=True)


def transferred(made: Table) -> dns.zone.Zone:
    zone = dns.zone.Zone(ZONE)
    with dns.xfr.Inbound(zone, dns.rdatatype.AXFR) as inbound:
        done = [inbound.process_message(message) for message in answers(made, question("AXFR"))]
    assert done == [False] * (len(done) - 1) + [True]
    assert len(done) > 1
    return zone


def test_the_copy_holds_what_the_server_answers(cluster: Table) -> None:
    copy = transferred(cluster)
    checked = 0
    for name, rdataset in copy.iterate_rdatasets():
        if rdataset.rdtype == dns.rdatatype.SOA:
            continue
        full = name.derelativize(ZONE).to_text()
        response = ask(cluster, full, dns.rdatatype.to_text(rdataset.rdtype), use_edns=0)
        found = {str(r) for rrset in response.answer for r in rrset}
        assert found <= {r.to_text(origin=ZONE, relativize=False) for r in rdataset}
        assert found
        checked += 1
    assert checked > 1_000
    assert {str(r) for r in copy.find_rdataset("db-0.db.default.svc", "A")} == {"10.244.1.7"}
    assert copy.find_rdataset("legacy.default.svc", "CNAME")[0].target.to_text() == "legacy.example.test."
    assert copy.get_rdataset("@", "SOA")[0].serial == 1234  # type: ignore[index]


def test_who_has_the_serial_gets_the_soa_alone(cluster: Table) -> None:
    (message,) = answers(cluster, question("IXFR", 1234))
    (rrset,) = message.answer
    assert rrset.rdtype == dns.rdatatype.SOA
    assert sum(len(m.answer) for m in answers(cluster, question("IXFR", 1233))) > 1_000
    assert sum(len(m.answer) for m in answers(cluster, question("IXFR"))) > 1_000


@pytest.mark.parametrize("name", ["svc.cluster.local.", "example.test.", "96.10.in-addr.arpa."])
def test_other_zones_are_not_ours_to_transfer(cluster: Table, name: str) -> None:
    data = question("AXFR", name=name)
    (wire,) = transfer_messages(data, parse_query(data), cluster.view())
    assert dns.message.from_wire(wire).rcode() == dns.rcode.NOTAUTH


def test_a_serial_that_was_told_never_stands_for_another_content() -> None:
    made = table()
    made.advance_serial(100)
    made.advance_serial(100)
    assert made.serial == 100  # nobody has seen it
    assert ask(made, "", "SOA").answer[0][0].serial == 100
    made.advance_serial(100)
    assert made.serial == 101
    made.view()
    made.advance_serial(100)
    assert made.serial == 102
    made.advance_serial(200)
    assert made.serial == 200


def test_only_allowed_peers_get_the_zone(cluster: Table) -> None:
    transfers = Transfers(cluster, ["192.0.2.0/24", "2001:db8::1"])
    data = question("AXFR")
    for peer, allowed in (("192.0.2.7", True), ("2001:db8::1", True), ("192.0.3.1", False), ("", False)):
        messages = transfers.answer(data, peer)
        assert messages is not None
        first = dns.message.from_wire(next(messages), xfr=True)
        messages.close()
        assert (first.rcode() == dns.rcode.NOERROR) is allowed
    assert transfers.answer(ask_wire(), "192.0.2.7") is None
    assert transfers.answer(b"\0" * 20, "192.0.2.7") is None


def test_transfers_under_way_are_bounded(cluster: Table) -> None:
    transfers = Transfers(cluster, ["127.0.0.0/8"])
    held = []
    for _ in range(4):
        messages = transfers.answer(question("AXFR"), "127.0.0.1")
        assert messages is not None
        next(messages)
        held.append(messages)
    refused = transfers.answer(question("AXFR"), "127.0.0.1")
    assert refused is not None
    assert dns.message.from_wire(next(refused)).rcode() == dns.rcode.REFUSED
    held[0].close()
    again = transfers.answer(question("AXFR"), "127.0.0.1")
    assert again is not None
    assert dns.message.from_wire(next(again), xfr=True).rcode() == dns.rcode.NOERROR


def test_by_udp_it_is_refused(cluster: Table) -> None:
    for rtype in ("AXFR", "IXFR"):
        assert summary(ask(cluster, "", rtype))[0] == "REFUSED"


def ask_wire() -> bytes:
    return dns.message.make_query("web.default.svc.cluster.local.", "A").to_wire()
