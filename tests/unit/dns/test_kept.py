"""What is kept of an object answers every question as the whole object does."""

from __future__ import annotations

import pytest

from pilotage.api.codec import decode, encode
from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.dns.core.kept import kept_service, kept_slice
from pilotage.dns.core.records import endpoint_records, service_records
from pilotage.testing.dns import endpoint, part, service, settings

SERVICES = [
    pytest.param(service("web", "10.96.0.20", "fd00::20", ports=[("http", 80), ("dns", 53, "UDP")]), id="dual stack"),
    pytest.param(service("web", "10.96.0.20"), id="one family"),
    pytest.param(service("web", publish_not_ready=True), id="headless"),
    pytest.param(service("web", external="legacy.example.test"), id="ExternalName"),
]
SLICE = part("web", endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", ready=False), endpoint("10.0.0.3", ready=None))


@pytest.mark.parametrize("whole", SERVICES)
def test_the_names_are_the_same(whole: Service) -> None:
    kept = kept_service(whole)
    assert service_records(kept, settings()) == service_records(whole, settings())
    assert endpoint_records(kept, [kept_slice(SLICE)], settings()) == endpoint_records(whole, [SLICE], settings())
    assert kept_service(kept) == kept
    assert kept.metadata == whole.metadata


def test_identity_and_place_survive_the_pods_behind_do_not() -> None:
    document = (
        b'{"metadata":{"name":"web-x","namespace":"default","resourceVersion":"7","uid":"u",'
        b'"labels":{"kubernetes.io/service-name":"web","other":"x"}},"addressType":"IPv4","endpoints":['
        b'{"addresses":["10.0.0.1"],"conditions":{"ready":true},"nodeName":"n1","zone":"z1",'
        b'"hints":{"forZones":[{"name":"z1"}]},"targetRef":{"kind":"Pod","name":"p"}}]}'
    )
    kept = kept_slice(decode(EndpointSlice, document))
    assert (kept.metadata.key, kept.metadata.version_number, kept.service_name) == ("default/web-x", 7, "web")
    (one,) = kept.endpoints
    assert (one.addresses, one.node_name, one.zone, one.hints.for_zones[0].name) == (("10.0.0.1",), "n1", "z1", "z1")
    assert one.target_ref is None


def test_equal_values_are_one_value() -> None:
    first, second = (kept_slice(decode(EndpointSlice, encode(part("web", "10.0.0.1", "10.0.0.2")))) for _ in range(2))
    assert first.ports is second.ports
    assert first.endpoints[0].conditions is second.endpoints[1].conditions
