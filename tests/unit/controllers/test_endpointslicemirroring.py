"""Hand-written Endpoints, as slices."""

from typing import Any

import pytest

from pilotage.api.codec import convert
from pilotage.api.core_v1 import Endpoints, Service
from pilotage.controllers.endpointslicemirroring.core import is_mirrored, mirror


def endpoints(*subsets: Any, **metadata: Any) -> Endpoints:
    meta = {"name": "db", "namespace": "default", "uid": "u", **metadata}
    return convert(Endpoints, {"metadata": meta, "subsets": list(subsets)})


def subset(*ips: str, broken: tuple[str, ...] = (), port: int = 5432) -> dict[str, Any]:
    return {
        "addresses": [{"ip": ip} for ip in ips],
        "notReadyAddresses": [{"ip": ip} for ip in broken],
        "ports": [{"name": "sql", "port": port}],
    }


def service(**spec: Any) -> Service:
    return convert(Service, {"metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}], **spec}})


DECISIONS = [
    pytest.param(endpoints(), service(), True, id="a Service without a selector"),
    pytest.param(endpoints(), service(selector={"app": "db"}), False, id="a Service with pods of its own"),
    pytest.param(endpoints(), None, False, id="no Service"),
    pytest.param(None, service(), False, id="no object"),
    pytest.param(
        endpoints(labels={"endpointslice.kubernetes.io/skip-mirror": "true"}), service(), False, id="asks not to be"
    ),
    pytest.param(
        endpoints(annotations={"control-plane.alpha.kubernetes.io/leader": "{}"}), service(), False, id="only a lock"
    ),
]


@pytest.mark.parametrize(("item", "owner", "answer"), DECISIONS)
def test_is_mirrored(item: Any, owner: Any, answer: bool) -> None:
    assert is_mirrored(item, owner) is answer


def test_a_slice_for_each_family_and_each_set_of_ports() -> None:
    made = endpoints(subset("192.0.2.1", "2001:db8::1", broken=("192.0.2.2",)), subset("192.0.2.3", port=5433))
    found = mirror(made, [])
    shown = {
        (item["addressType"], item["ports"][0]["port"]): [
            (endpoint["addresses"][0], endpoint["conditions"]) for endpoint in item["endpoints"]
        ]
        for item in found.plan.create
    }
    assert shown == {
        ("IPv4", 5432): [("192.0.2.1", {"ready": True}), ("192.0.2.2", {"ready": False})],
        ("IPv4", 5433): [("192.0.2.3", {"ready": True})],
        ("IPv6", 5432): [("2001:db8::1", {"ready": True})],
    }
    assert (found.skipped, found.invalid) == (0, 0)


def test_metadata_comes_along_but_not_what_belongs_to_the_object_alone() -> None:
    annotations = {"note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    (document,) = mirror(
        endpoints(subset("192.0.2.1"), labels={"team": "data"}, annotations=annotations), []
    ).plan.create
    meta = document["metadata"]
    assert meta["labels"] == {
        "team": "data",
        "kubernetes.io/service-name": "db",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
    }
    assert meta["annotations"] == {"note": "x"}
    assert meta["ownerReferences"][0]["kind"] == "Endpoints"


def test_a_thousand_addresses_of_a_subset_and_no_more() -> None:
    ips = [f"192.0.{number // 250}.{number % 250 + 1}" for number in range(1100)]
    found = mirror(endpoints(subset(*ips), subset("198.51.100.1", "not an address", port=1)), [])
    assert (found.skipped, found.invalid) == (100, 1)
    assert sum(len(item["endpoints"]) for item in found.plan.create) == 1001
    assert max(len(item["endpoints"]) for item in found.plan.create) == 100
