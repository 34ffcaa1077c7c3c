"""Which Service gets which address: tables over the assignments."""

from typing import Any

import pytest

from pilotage.api.core_v1 import Service
from pilotage.loadbalancer.core.pools import Assignments, is_wanted
from pilotage.testing.services import make_service

POOL = "10.89.200.10-10.89.200.12"


def balanced(name: str, **spec: Any) -> Service:
    return make_service(name, type="LoadBalancer", **spec)


def assigned(assignments: Assignments, service: Service) -> tuple[tuple[str, ...], str]:
    verdict = assignments.assign(service)
    return verdict.addresses, verdict.reason


@pytest.mark.parametrize(
    ("service", "wanted"),
    [
        pytest.param(balanced("web"), True, id="a LoadBalancer without class"),
        pytest.param(balanced("web", load_balancer_class="pilotage.dev/l2"), True, id="our class"),
        pytest.param(balanced("web", load_balancer_class="example.com/other"), False, id="another balancer's class"),
        pytest.param(make_service(), False, id="a ClusterIP Service"),
    ],
)
def test_who_asks_us(service: Service, wanted: bool) -> None:
    assert is_wanted(service) is wanted


def test_services_get_different_addresses_in_order() -> None:
    assignments = Assignments([POOL])
    assert [assigned(assignments, balanced(name))[0] for name in "abc"] == [
        ("10.89.200.10",),
        ("10.89.200.11",),
        ("10.89.200.12",),
    ]


def test_asking_again_changes_nothing() -> None:
    assignments = Assignments([POOL])
    assert {assigned(assignments, balanced("a")) for _ in range(5)} == {(("10.89.200.10",), "Assigned")}


def test_an_exhausted_pool_says_so_until_an_address_is_free() -> None:
    assignments = Assignments([POOL])
    for name in "abc":
        assignments.assign(balanced(name))
    assert assigned(assignments, balanced("d")) == ((), "PoolExhausted")
    assert assignments.release("default/b") == ("10.89.200.11",)
    assert assigned(assignments, balanced("d")) == (("10.89.200.11",), "Assigned")


def test_a_second_pool_is_used_when_the_first_is_full() -> None:
    assignments = Assignments(["10.89.200.1-10.89.200.1", "10.89.201.1-10.89.201.1"])
    assert [assigned(assignments, balanced(name))[0] for name in "ab"] == [("10.89.200.1",), ("10.89.201.1",)]


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        pytest.param("10.89.200.12", (("10.89.200.12",), "Assigned"), id="a free one"),
        pytest.param("10.89.200.10", ((), "AddressInUse"), id="one that another Service has"),
        pytest.param("192.0.2.1", ((), "AddressOutsidePools"), id="one outside the pools"),
        pytest.param("rubbish", ((), "InvalidAddress"), id="no address"),
    ],
)
def test_a_requested_address(requested: str, expected: tuple[tuple[str, ...], str]) -> None:
    assignments = Assignments([POOL])
    assignments.assign(balanced("first"))
    assert assigned(assignments, balanced("second", load_balancer_ip=requested)) == expected


def test_a_changed_request_frees_the_old_address() -> None:
    assignments = Assignments([POOL])
    assignments.assign(balanced("a"))
    assert assigned(assignments, balanced("a", load_balancer_ip="10.89.200.12"))[0] == ("10.89.200.12",)
    assert assignments.holder("10.89.200.10") == ""
    assert assigned(assignments, balanced("b", load_balancer_ip="10.89.200.10"))[1] == "Assigned"


def test_both_families_from_their_own_pools() -> None:
    assignments = Assignments([POOL, "fd00:200::10-fd00:200::20"])
    service = balanced("a", ip_families=("IPv4", "IPv6"))
    assert assigned(assignments, service)[0] == ("10.89.200.10", "fd00:200::10")


def test_a_restart_finds_what_services_state() -> None:
    services = [
        balanced("old", ingress=["10.89.200.10"], created="2026-01-01T00:00:00Z"),
        balanced("thief", ingress=["10.89.200.10"], created="2026-01-02T00:00:00Z"),
        balanced("foreign", ingress=["192.0.2.1"]),
    ]
    assignments = Assignments([POOL])
    assignments.restore(services)
    assert [assigned(assignments, service)[0] for service in services] == [
        ("10.89.200.10",),
        ("10.89.200.11",),
        ("10.89.200.12",),
    ]


def test_a_pool_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError):
        Assignments(["10.89.200.0/33"])
