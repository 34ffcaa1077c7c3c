"""Names of imported Services, beside the cluster's own."""

from __future__ import annotations

from msgspec.structs import replace

from pilotage.api.core_v1 import ServicePort
from pilotage.api.discovery_v1 import Endpoint, EndpointSlice
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.dns.core.cluster_set import (
    IMPORTED_LABEL,
    SOURCE_LABEL,
    ServiceImport,
    ServiceImportSpec,
    as_service,
    as_slice,
    cluster_set_table,
)
from pilotage.dns.core.kept import kept_slice
from pilotage.dns.core.name import from_text
from pilotage.dns.core.table import Table
from pilotage.testing.dns import ask, endpoint, part, service, summary, table

SET = "default.svc.clusterset.local."


def imported(name: str, *ips: str) -> ServiceImport:
    spec = ServiceImportSpec(
        type="ClusterSetIP" if ips else "Headless", ips=ips, ports=(ServicePort(name="sql", port=5432),)
    )
    return ServiceImport(metadata=ObjectMeta(name=name, namespace="default"), spec=spec)


def slice_from(cluster: str, of: str, *endpoints: Endpoint) -> EndpointSlice:
    made = part(of, *endpoints, name=f"{of}-{cluster}", ports=[("sql", 5432)])
    return replace(made, metadata=replace(made.metadata, labels={IMPORTED_LABEL: of, SOURCE_LABEL: cluster}))


def both() -> tuple[Table, Table]:
    own = table(service("db", "10.96.0.9"))
    beside = cluster_set_table(own.settings, from_text("clusterset.local"))
    beside.set_namespace("default", exists=True)
    beside.set_service(None, as_service(imported("web", "10.112.0.1", "fd00:112::1")))
    beside.set_service(None, as_service(imported("db")))
    for made in (
        slice_from("east", "db", endpoint("10.1.0.1", "db-0"), endpoint("10.1.0.2", "db-1", ready=False)),
        slice_from("west", "db", endpoint("10.2.0.1", "db-0"), endpoint("10.2.0.3")),
    ):
        kept = as_slice(kept_slice(made))
        assert kept is not None
        beside.set_slice(None, kept)
    beside.synced = True
    own.adopt(beside)
    return own, beside


def test_names_of_the_cluster_set() -> None:
    own, _ = both()
    for name, rtype, expected in (
        (f"web.{SET}", "A", ("NOERROR", ["A 10.112.0.1"])),
        (f"web.{SET}", "AAAA", ("NOERROR", ["AAAA fd00:112::1"])),
        (f"_sql._tcp.web.{SET}", "SRV", ("NOERROR", [f"SRV 0 100 5432 web.{SET}"])),
        (f"db.{SET}", "A", ("NOERROR", ["A 10.1.0.1", "A 10.2.0.1", "A 10.2.0.3"])),
        (f"db-0.east.db.{SET}", "A", ("NOERROR", ["A 10.1.0.1"])),
        (f"db-0.west.db.{SET}", "A", ("NOERROR", ["A 10.2.0.1"])),
        (f"10-2-0-3.west.db.{SET}", "A", ("NOERROR", ["A 10.2.0.3"])),
        (f"west.db.{SET}", "A", ("NODATA", [])),
        (f"db-1.east.db.{SET}", "A", ("NXDOMAIN", [])),
        (f"db-0.db.{SET}", "A", ("NXDOMAIN", [])),
        (f"north.db.{SET}", "A", ("NXDOMAIN", [])),
        (f"missing.{SET}", "A", ("NXDOMAIN", [])),
        ("default.svc.clusterset.local.", "A", ("NODATA", [])),
        ("db.default.svc", "A", ("NOERROR", ["A 10.96.0.9"])),
    ):
        assert summary(ask(own, name, rtype)) == expected, (name, rtype)
    response = ask(own, f"_sql._tcp.db.{SET}", "SRV", use_edns=0)
    assert summary(response)[1] == [
        f"SRV 0 33 5432 10-2-0-3.west.db.{SET}",
        f"SRV 0 33 5432 db-0.east.db.{SET}",
        f"SRV 0 33 5432 db-0.west.db.{SET}",
    ]
    assert {str(r) for rrset in response.additional for r in rrset} == {"10.1.0.1", "10.2.0.1", "10.2.0.3"}
    assert str(ask(own, f"missing.{SET}").authority[0].name) == "clusterset.local."


def test_without_a_cluster_set_its_zone_is_the_upstreams() -> None:
    assert table().answer(from_text("web.default.svc.clusterset.local"), 1) is None


def test_what_is_not_imported_is_none_of_its_business() -> None:
    assert as_slice(part("db", "10.0.0.1")) is None
