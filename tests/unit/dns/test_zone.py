"""Question → answer, as tables: every Service kind, negative answers, reverse names, the apex."""

from __future__ import annotations

import dns.message
import dns.rdatatype
import pytest

from pilotage.dns.core.name import pack_address
from pilotage.dns.core.table import Table
from pilotage.testing.dns import ask, endpoint, part, reverse, service, summary, table

SVC = "default.svc"


@pytest.fixture(scope="module")
def cluster() -> Table:
    """One of everything."""
    return table(
        service("web", "10.96.0.20", ports=[("http", 80), ("dns", 53, "UDP"), ("", 9)]),
        part("web", "10.244.1.5", endpoint("10.244.2.5", ready=False)),
        service("dual", "10.96.0.21", "fd00:96::21"),
        service("db", ports=[("sql", 5432)]),
        part("db", endpoint("10.244.1.7", "db-0"), endpoint("10.244.2.7", "DB-1"), ports=[("sql", 5432)]),
        part("db", endpoint("fd00:244::7", "db-0"), ports=[("sql", 5432)]),
        part("db", endpoint("10.244.3.7", "db-2", ready=False), name="db-x", ports=[("sql", 5432)]),
        service("plain"),
        part("plain", "10.244.1.8", endpoint("10.244.2.8", ready=None)),
        part("plain", "fd00:244::"),
        service("portless", ports=[]),
        part("portless", "10.244.1.9", ports=[]),
        service("empty"),
        service("unready"),
        part("unready", endpoint("10.244.1.10", ready=False)),
        service("eager", publish_not_ready=True),
        part("eager", endpoint("10.244.1.11", "eager-0", ready=False)),
        service("manual", "10.96.0.30", ports=[("http", 80)]),
        part("manual", "192.0.2.10"),
        service("inside", external="web.default.svc.cluster.local"),
        service("twice", external="inside.default.svc.cluster.local."),
        service("dangling", external="nothing.default.svc.cluster.local"),
        service("self", external="self.default.svc.cluster.local"),
        service("literal", external="192.0.2.1"),
        service("outside", external="Legacy.example.test"),
        service("other", "10.96.0.40", namespace="prod"),
        namespaces=("default", "prod", "bare"),
    )


@pytest.mark.parametrize(
    ("name", "rtype", "answers"),
    [
        pytest.param(f"web.{SVC}", "A", ["A 10.96.0.20"], id="ClusterIP has one address"),
        pytest.param("WEB.Default.SVC.Cluster.Local.", "A", ["A 10.96.0.20"], id="case does not matter"),
        pytest.param(f"dual.{SVC}", "A", ["A 10.96.0.21"], id="dual stack, IPv4"),
        pytest.param(f"dual.{SVC}", "AAAA", ["AAAA fd00:96::21"], id="dual stack, IPv6"),
        pytest.param("other.prod.svc", "A", ["A 10.96.0.40"], id="another namespace"),
        pytest.param(f"manual.{SVC}", "A", ["A 10.96.0.30"], id="Service without selector"),
        pytest.param(
            f"_http._tcp.web.{SVC}", "SRV", [f"SRV 0 100 80 web.{SVC}.cluster.local."], id="SRV of a named port"
        ),
        pytest.param(f"_dns._udp.web.{SVC}", "SRV", [f"SRV 0 100 53 web.{SVC}.cluster.local."], id="SRV of a UDP port"),
        pytest.param(
            f"web.{SVC}",
            "SRV",
            [f"SRV 0 33 {port} web.{SVC}.cluster.local." for port in (53, 80, 9)],
            id="SRV at the Service's own name has all ports, unnamed ones too",
        ),
        pytest.param(f"10-244-1-5.web.{SVC}", "A", ["A 10.244.1.5"], id="endpoint name under a ClusterIP"),
        pytest.param(f"db.{SVC}", "A", ["A 10.244.1.7", "A 10.244.2.7"], id="headless: ready addresses of all slices"),
        pytest.param(f"db.{SVC}", "AAAA", ["AAAA fd00:244::7"], id="headless: IPv6 slices too"),
        pytest.param(f"db-0.db.{SVC}", "A", ["A 10.244.1.7"], id="stable name of a StatefulSet's pod"),
        pytest.param(f"db-0.db.{SVC}", "AAAA", ["AAAA fd00:244::7"], id="addresses with one hostname belong together"),
        pytest.param(f"db-1.db.{SVC}", "A", ["A 10.244.2.7"], id="hostnames in any case"),
        pytest.param(
            f"_sql._tcp.db.{SVC}",
            "SRV",
            [f"SRV 0 50 5432 db-{i}.db.{SVC}.cluster.local." for i in (0, 1)],
            id="headless SRV points at the endpoints' names, weights shared",
        ),
        pytest.param(f"plain.{SVC}", "A", ["A 10.244.1.8", "A 10.244.2.8"], id="unset readiness counts as ready"),
        pytest.param(f"10-244-1-8.plain.{SVC}", "A", ["A 10.244.1.8"], id="without hostname the address is the name"),
        pytest.param(f"fd00-244--0.plain.{SVC}", "AAAA", ["AAAA fd00:244::"], id="no label ends in a dash"),
        pytest.param(f"portless.{SVC}", "A", ["A 10.244.1.9"], id="headless without ports has addresses"),
        pytest.param(f"eager.{SVC}", "A", ["A 10.244.1.11"], id="publishNotReadyAddresses"),
        pytest.param(f"eager-0.eager.{SVC}", "A", ["A 10.244.1.11"], id="publishNotReadyAddresses, endpoint name"),
        pytest.param(
            f"inside.{SVC}", "A", ["A 10.96.0.20", f"CNAME web.{SVC}.cluster.local."], id="ExternalName inside the zone"
        ),
        pytest.param(
            f"twice.{SVC}",
            "A",
            ["A 10.96.0.20", f"CNAME inside.{SVC}.cluster.local.", f"CNAME web.{SVC}.cluster.local."],
            id="ExternalName of an ExternalName",
        ),
        pytest.param(f"outside.{SVC}", "CNAME", ["CNAME legacy.example.test."], id="ExternalName asked for its CNAME"),
        pytest.param("10-1-2-3.default.pod", "A", ["A 10.1.2.3"], id="pod record echoes the address"),
        pytest.param("fd00--1.default.pod", "AAAA", ["AAAA fd00::1"], id="pod record, IPv6"),
        pytest.param("dns-version", "TXT", ['TXT "1.1.0"'], id="schema version"),
        pytest.param(reverse("10.96.0.20"), "PTR", [f"PTR web.{SVC}.cluster.local."], id="PTR of a ClusterIP"),
        pytest.param(reverse("fd00:96::21"), "PTR", [f"PTR dual.{SVC}.cluster.local."], id="PTR of an IPv6 ClusterIP"),
        pytest.param(reverse("10.244.1.7"), "PTR", [f"PTR db-0.db.{SVC}.cluster.local."], id="PTR of an endpoint"),
        pytest.param(
            reverse("10.244.1.5"), "PTR", [f"PTR 10-244-1-5.web.{SVC}.cluster.local."], id="PTR under a ClusterIP"
        ),
        pytest.param(reverse("fd00:244::7"), "PTR", [f"PTR db-0.db.{SVC}.cluster.local."], id="PTR, IPv6 endpoint"),
    ],
)
def test_names_that_have_records(cluster: Table, name: str, rtype: str, answers: list[str]) -> None:
    response = ask(cluster, name, rtype)
    assert summary(response) == ("NOERROR", sorted(answers))
    assert response.flags & dns.flags.AA
    assert all(rrset.ttl == 5 for rrset in response.answer)


@pytest.mark.parametrize(
    ("name", "rtype", "outcome"),
    [
        pytest.param(f"web.{SVC}", "AAAA", "NODATA", id="other family"),
        pytest.param(f"web.{SVC}", "TXT", "NODATA", id="other type at an existing name"),
        pytest.param(f"web.{SVC}", "HTTPS", "NODATA", id="HTTPS record"),
        pytest.param("", "A", "NODATA", id="apex has no address"),
        pytest.param("svc", "A", "NODATA", id="svc"),
        pytest.param("pod", "A", "NODATA", id="pod"),
        pytest.param(SVC, "A", "NODATA", id="existing namespace"),
        pytest.param("bare.svc", "SRV", "NODATA", id="existing namespace without Services"),
        pytest.param("default.pod", "A", "NODATA", id="existing namespace below pod"),
        pytest.param(f"_tcp.web.{SVC}", "SRV", "NODATA", id="protocol alone is an empty non-terminal"),
        pytest.param(f"_http._tcp.web.{SVC}", "A", "NODATA", id="address at a port's name"),
        pytest.param(f"portless.{SVC}", "SRV", "NODATA", id="SRV without ports"),
        pytest.param(f"inside.{SVC}", "SRV", "NODATA", id="SRV of an ExternalName"),
        pytest.param(f"inside.{SVC}", "AAAA", "NODATA", id="ExternalName whose target lacks the family"),
        pytest.param(f"dangling.{SVC}", "A", "NODATA", id="ExternalName to nothing"),
        pytest.param(f"self.{SVC}", "A", "NODATA", id="ExternalName to itself"),
        pytest.param("10-1-2-3.default.pod", "AAAA", "NODATA", id="pod record, wrong family"),
        pytest.param("dns-version", "A", "NODATA", id="address of the schema version"),
        pytest.param(reverse("10.96.0.20"), "A", "NODATA", id="address at a reverse name"),
        pytest.param("0.96.10.in-addr.arpa.", "PTR", "NODATA", id="reverse name above addresses"),
        pytest.param("96.10.in-addr.arpa.", "PTR", "NODATA", id="apex of the reverse zone"),
        pytest.param(f"nothing.{SVC}", "A", "NXDOMAIN", id="missing Service"),
        pytest.param("web.nowhere.svc", "A", "NXDOMAIN", id="missing namespace"),
        pytest.param("nowhere.svc", "A", "NXDOMAIN", id="the missing namespace itself"),
        pytest.param(f"*.{SVC}", "A", "NXDOMAIN", id="wildcard Service"),
        pytest.param("web.*.svc", "A", "NXDOMAIN", id="wildcard namespace"),
        pytest.param(f"*.web.{SVC}", "A", "NXDOMAIN", id="wildcard endpoint"),
        pytest.param(f"_ftp._tcp.web.{SVC}", "SRV", "NXDOMAIN", id="wrong port name"),
        pytest.param(f"_http._udp.web.{SVC}", "SRV", "NXDOMAIN", id="wrong protocol"),
        pytest.param(f"_sctp.web.{SVC}", "SRV", "NXDOMAIN", id="protocol that no port has"),
        pytest.param(f"db-2.db.{SVC}", "A", "NXDOMAIN", id="hostname of an endpoint that is not ready"),
        pytest.param(f"10-244-1-7.db.{SVC}", "A", "NXDOMAIN", id="a hostname hides the dashed name"),
        pytest.param(f"10-244-2-5.web.{SVC}", "A", "NXDOMAIN", id="endpoint of a ClusterIP that is not ready"),
        pytest.param(f"empty.{SVC}", "A", "NXDOMAIN", id="headless without endpoints"),
        pytest.param(f"unready.{SVC}", "A", "NXDOMAIN", id="headless without ready endpoints"),
        pytest.param(f"literal.{SVC}", "A", "NXDOMAIN", id="ExternalName that is an address"),
        pytest.param(f"x.literal.{SVC}", "A", "NXDOMAIN", id="below an ExternalName that is an address"),
        pytest.param(f"x.outside.{SVC}", "A", "NXDOMAIN", id="below an ExternalName"),
        pytest.param("a.b.c.web.default", "A", "NXDOMAIN", id="not below svc"),
        pytest.param("www.example.com", "A", "NXDOMAIN", id="search list of an external name, last step"),
        pytest.param(f"www.example.com.{SVC}", "A", "NXDOMAIN", id="search list of an external name, first step"),
        pytest.param("10-1-2-3.nowhere.pod", "A", "NXDOMAIN", id="pod record, missing namespace"),
        pytest.param("web.default.pod", "A", "NXDOMAIN", id="pod record that is no address"),
        pytest.param("10-1-2-300.default.pod", "A", "NXDOMAIN", id="pod record that is almost an address"),
        pytest.param("x.dns-version", "TXT", "NXDOMAIN", id="below the schema version"),
        pytest.param(reverse("10.96.9.9"), "PTR", "NXDOMAIN", id="PTR of an unused Service address"),
        pytest.param(f"1.{reverse('10.96.0.20')}", "PTR", "NXDOMAIN", id="below a reverse name"),
        pytest.param("x.96.10.in-addr.arpa.", "PTR", "NXDOMAIN", id="reverse name that is no number"),
    ],
)
def test_names_that_have_none(cluster: Table, name: str, rtype: str, outcome: str) -> None:
    response = ask(cluster, name, rtype)
    assert summary(response) == (outcome, [])
    assert response.flags & dns.flags.AA
    (soa,) = response.authority
    assert soa.rdtype == dns.rdatatype.SOA
    assert response.question[0].name.is_subdomain(soa.name)
    assert (soa.ttl, soa[0].minimum, soa[0].refresh, soa[0].retry, soa[0].expire) == (5, 5, 7200, 1800, 86400)


@pytest.mark.parametrize(
    ("name", "rtype"),
    [
        pytest.param("www.example.com.", "A", id="an outside name"),
        pytest.param("local.", "A", id="above the zone"),
        pytest.param("xcluster.local.", "A", id="a name that only ends like the zone"),
        pytest.param(".", "NS", id="the root"),
        pytest.param(reverse("192.0.2.77"), "PTR", id="PTR of an address outside the ranges"),
    ],
)
def test_what_is_not_ours_is_left_to_the_upstreams(cluster: Table, name: str, rtype: str) -> None:
    from pilotage.dns.core.wire import parse_query

    data = dns.message.make_query(name, rtype).to_wire()
    assert cluster.respond(data, parse_query(data)) is None


def test_another_class_is_left_to_the_upstreams(cluster: Table) -> None:
    from pilotage.dns.core.wire import parse_query

    data = dns.message.make_query(f"web.{SVC}.cluster.local.", "A", "CH").to_wire()
    assert cluster.respond(data, parse_query(data)) is None


def test_an_external_name_outside_is_followed_by_the_shell(cluster: Table) -> None:
    answer = cluster.answer((b"outside", b"default", b"svc", b"cluster", b"local"), 1)
    assert answer is not None
    assert answer.follow == (b"legacy", b"example", b"test")
    assert len(answer.answers) == 1


def test_srv_brings_the_addresses_along(cluster: Table) -> None:
    response = ask(cluster, f"_sql._tcp.db.{SVC}", "SRV")
    found = {(str(rrset.name).partition(".")[0], str(r)) for rrset in response.additional for r in rrset}
    assert found == {("db-0", "10.244.1.7"), ("db-0", "fd00:244::7"), ("db-1", "10.244.2.7")}


def test_the_same_address_in_two_services_has_one_name_for_each() -> None:
    made = table(service("one"), part("one", "10.244.1.1"), service("two"), part("two", endpoint("10.244.1.1", "host")))
    assert summary(ask(made, reverse("10.244.1.1"), "PTR"))[1] == [
        f"PTR 10-244-1-1.one.{SVC}.cluster.local.",
        f"PTR host.two.{SVC}.cluster.local.",
    ]


def test_pod_records_can_be_switched_off() -> None:
    assert summary(ask(table(pods="disabled"), "10-1-2-3.default.pod"))[0] == "NXDOMAIN"


def test_verified_pod_records_need_a_pod() -> None:
    made = table(pods="verified")
    made.set_pod("default", "web-1", "10.1.2.3", exists=True)
    assert summary(ask(made, "10-1-2-3.default.pod"))[1] == ["A 10.1.2.3"]
    assert summary(ask(made, "10-1-2-4.default.pod"))[0] == "NXDOMAIN"
    made.set_pod("default", "web-1", "10.1.2.3", exists=False)
    assert summary(ask(made, "10-1-2-3.default.pod"))[0] == "NXDOMAIN"


def test_the_apex_names_the_dns_service() -> None:
    made = table(service("kube-dns", "10.96.0.10", namespace="kube-system"))
    made.serial = 1234
    response = ask(made, "", "NS")
    assert summary(response)[1] == ["NS kube-dns.kube-system.svc.cluster.local."]
    assert [str(r) for rrset in response.additional for r in rrset] == ["10.96.0.10"]
    assert ask(made, "", "SOA").answer[0][0].serial == 1234


def test_without_a_dns_service_the_apex_names_this_server() -> None:
    address = pack_address("10.89.0.11")
    made = table(nameserver_addresses=(address,))
    assert summary(ask(made, "", "NS"))[1] == ["NS ns.dns.cluster.local."]
    assert summary(ask(made, "ns.dns", "A"))[1] == ["A 10.89.0.11"]
    assert summary(ask(made, "dns", "A"))[0] == "NODATA"
    made.set_service(None, service("kube-dns", "10.96.0.10", namespace="kube-system"))
    assert summary(ask(made, "ns.dns", "A"))[0] == "NXDOMAIN"


def test_any_gets_one_set_only(cluster: Table) -> None:
    response = ask(cluster, f"web.{SVC}", "ANY")
    assert len(response.answer) == 1


def test_transfers_are_refused(cluster: Table) -> None:
    assert summary(ask(cluster, "", "AXFR"))[0] == "REFUSED"


def test_before_the_first_complete_view_nothing_is_known() -> None:
    made = table(service("web", "10.96.0.20"))
    made.synced = False
    for name, rtype in ((f"web.{SVC}", "A"), (reverse("10.96.0.20"), "PTR"), ("", "SOA")):
        response = ask(made, name, rtype)
        assert summary(response)[0] == "SERVFAIL"
        assert not response.authority
    made.synced = True
    assert summary(ask(made, f"web.{SVC}"))[1] == ["A 10.96.0.20"]
