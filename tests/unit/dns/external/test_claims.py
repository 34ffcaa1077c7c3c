"""Which names objects want, in the words that users of external-dns know."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Service
from pilotage.api.networking_v1 import Ingress
from pilotage.dns.core.name import from_text
from pilotage.dns.external.core.annotations import CONTROLLER, HOSTNAME, TARGET, TTL, ttl
from pilotage.dns.external.core.gateways import Gateway, GRPCRoute, HTTPRoute, Route, TLSRoute, common, from_gateways
from pilotage.dns.external.core.wanted import from_ingress, from_service, join

ZONE = from_text("apps.test")
WEB = {HOSTNAME: "web.apps.test"}
IP = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}


def service(annotations: dict[str, str], status: Any = IP, **spec: Any) -> Service:
    meta = {"name": "web", "namespace": "default", "annotations": annotations}
    return convert(Service, {"metadata": meta, "spec": {"type": "LoadBalancer", **spec}, "status": status})


def found(claims: Any) -> dict[str, list[tuple[str, str]]]:
    wanted, problems = join(claims, ZONE)
    assert not problems
    return {".".join(map(bytes.decode, name)): sorted(want.records) for name, want in wanted.items()}


@pytest.mark.parametrize(
    ("made", "records"),
    [
        (service(WEB), [("A", "192.0.2.1")]),
        (service({**WEB, TARGET: "192.0.2.7, 2001:DB8::7"}), [("A", "192.0.2.7"), ("AAAA", "2001:db8::7")]),
        (service({**WEB, TARGET: "Edge.Example."}), [("CNAME", "edge.example.")]),
        (service(WEB, externalIPs=["192.0.2.8"]), [("A", "192.0.2.8")]),
        (service(WEB, {}, type="ExternalName", externalName="db.example"), [("CNAME", "db.example.")]),
        (service({**WEB, CONTROLLER: "dns-controller"}), [("A", "192.0.2.1")]),
        (service({**WEB, CONTROLLER: "somebody"}), None),
        (service(WEB, {}), None),
        (service({}), None),
    ],
    ids=[
        "its balancer's address",
        "targets by hand",
        "a host name as target",
        "external addresses before the balancer's",
        "an external name",
        "said to be ours",
        "another controller's",
        "not reachable yet",
        "without a hostname",
    ],
)
def test_a_service_publishes(made: Service, records: list[tuple[str, str]] | None) -> None:
    assert found(from_service(made)) == ({"web.apps.test": records} if records else {})


def test_an_ingress_publishes_the_hosts_of_rules_certificates_and_annotation() -> None:
    ingress = convert(
        Ingress,
        {
            "metadata": {"name": "i", "namespace": "default", "annotations": {HOSTNAME: "c.apps.test"}},
            "spec": {"rules": [{"host": "a.apps.test"}, {}], "tls": [{"hosts": ["b.apps.test", "a.apps.test"]}]},
            "status": IP,
        },
    )
    assert found(from_ingress(ingress)) == {f"{x}.apps.test": [("A", "192.0.2.1")] for x in "abc"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("60s", 60), ("1m30s", 90), ("2h", 7200), ("0", 1), ("9" * 9, 86_400)]
    + [(wrong, 300) for wrong in ("", "-5", "soon", "1d", "s", "9" * 400, "²")],
)
def test_ttls_are_numbers_or_durations(text: str, seconds: int) -> None:
    assert ttl({TTL: text}) == seconds


@pytest.mark.parametrize(
    ("hostname", "target"),
    [
        ("a..apps.test", "192.0.2.1"),
        ('a"b.apps.test', "192.0.2.1"),
        ("a b.apps.test", "192.0.2.1"),
        ("_pilotage.web.apps.test", "192.0.2.1"),
        ("_any.apps.test", "192.0.2.1"),
        (".".join(["a" * 60] * 4) + ".apps.test", "192.0.2.1"),
        ("web.apps.test", "not a host"),
        ("web.apps.test", "fe80::1%eth0"),
        ("web.apps.test", "x" * 64),
        ("web.apps.test", '"'),
    ],
)
def test_what_cannot_be_published_is_said_and_hurts_no_other(hostname: str, target: str) -> None:
    claims = [("fine.apps.test", "service/a/b", 60, ("192.0.2.1",)), (hostname, "service/a/c", 60, (target,))]
    wanted, problems = join(claims, ZONE)
    assert list(wanted) == [from_text("fine.apps.test")]
    assert len(problems) == 1
    assert problems[0].startswith("service/a/c: ")


def test_objects_that_share_a_name_join_their_addresses_and_take_the_shorter_ttl() -> None:
    claims = [("x.apps.test", f"service/a/{n}", 60 * n, (f"192.0.2.{n}",)) for n in (1, 2)]
    wanted, _ = join(claims, ZONE)
    (want,) = wanted.values()
    assert (sorted(want.records), want.ttl) == ([("A", "192.0.2.1"), ("A", "192.0.2.2")], 60)
    _, problems = join([*claims, ("x.apps.test", "service/a/3", 60, ("edge.example",))], ZONE)
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("", "a.test", "a.test"),
        ("*.test", "a.test", "a.test"),
        ("*.test", "b.a.test", "b.a.test"),
        ("*.a.test", "*.test", "*.a.test"),
        ("A.test", "a.TEST", "a.test"),
        ("*.test", "test", ""),
        ("a.test", "b.test", ""),
        ("*.a.test", "*.b.test", ""),
        ("", "", ""),
    ],
)
def test_hostnames_of_listener_and_route(one: str, other: str, both: str) -> None:
    assert common(one, other) == common(other, one) == both


def gateway(**annotations: str) -> Gateway:
    listeners = [
        {"name": "web", "protocol": "HTTPS", "port": 443, "hostname": "*.apps.test"},
        {"name": "other", "protocol": "HTTP", "port": 8080, "hostname": "*.other.test"},
        {"name": "tls", "protocol": "TLS", "port": 8443, "hostname": "*.tls.apps.test"},
    ]
    return convert(
        Gateway,
        {
            "metadata": {"name": "edge", "namespace": "infra", "annotations": annotations},
            "spec": {"listeners": listeners},
            "status": {"addresses": [{"type": "IPAddress", "value": "192.0.2.9"}]},
        },
    )


def route(made: type[Route], *hostnames: str, accepted: str = "True", said: Any = None, **reference: Any) -> Route:
    parent = {"name": "edge", "namespace": "infra", **reference}
    status = {"parentRef": said or parent, "conditions": [{"type": "Accepted", "status": accepted}]}
    return convert(
        made,
        {
            "metadata": {"name": "r", "namespace": "shop"},
            "spec": {"parentRefs": [parent], "hostnames": list(hostnames)},
            "status": {"parents": [status]},
        },
    )


LISTENERS = {"*.apps.test", "*.tls.apps.test"}


@pytest.mark.parametrize(
    ("made", "names"),
    [
        (route(HTTPRoute, "shop.apps.test", "x.elsewhere.test"), {"shop.apps.test"}),
        (route(HTTPRoute, "shop.apps.test", sectionName="web"), {"shop.apps.test"}),
        (route(HTTPRoute, "shop.apps.test", port=443), {"shop.apps.test"}),
        (route(GRPCRoute, "rpc.apps.test"), {"rpc.apps.test"}),
        (route(TLSRoute, "a.tls.apps.test", "a.apps.test"), {"a.tls.apps.test"}),
        (route(HTTPRoute), set()),
        (route(HTTPRoute, "shop.apps.test", accepted="False"), set()),
        (route(HTTPRoute, "shop.apps.test", said={"name": "another"}), set()),
        (route(HTTPRoute, "shop.apps.test", sectionName="other"), set()),
        (route(HTTPRoute, "shop.apps.test", port=80), set()),
        (route(HTTPRoute, "shop.apps.test", kind="Service"), set()),
        (route(HTTPRoute, "shop.apps.test", namespace="shop"), set()),
    ],
    ids=[
        "the names that the Gateway listens for",
        "at the listener it names",
        "at the port it names",
        "of gRPC",
        "of TLS, at a listener for TLS",
        "no more than the listener's own without hostnames",
        "nothing before it is accepted",
        "nothing when another accepted it",
        "nothing at a listener for other names",
        "nothing at a port where nobody listens",
        "nothing at a Service",
        "nothing at a Gateway that is not there",
    ],
)
def test_a_route_publishes(made: Route, names: set[str]) -> None:
    assert found(from_gateways([gateway()], [made])) == {key: [("A", "192.0.2.9")] for key in LISTENERS | names}


def test_annotations_of_gateways() -> None:
    claims = [*from_gateways([gateway(**{TARGET: "edge.example", TTL: "1m"})], [route(HTTPRoute, "shop.apps.test")])]
    wanted, _ = join(claims, ZONE)
    want = wanted[from_text("shop.apps.test")]
    assert (want.resource, want.ttl, want.records) == ("httproute/shop/r", 60, {("CNAME", "edge.example.")})
    assert not [*from_gateways([gateway(**{CONTROLLER: "somebody"})], [route(HTTPRoute, "shop.apps.test")])]
