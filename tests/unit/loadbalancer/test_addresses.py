import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.api.core_v1 import LoadBalancerIngress, LoadBalancerStatus, Service, ServiceSpec, ServiceStatus
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.loadbalancer.core.addresses import CLASS, AddressBook, Decision


def balanced(
    name: str,
    *,
    stated: str = "",
    asked: str = "",
    type: str = "LoadBalancer",
    clazz: str = "",
    age: int = 0,
    families: tuple[str, ...] = (),
) -> Service:
    ingress = tuple(LoadBalancerIngress(ip=ip) for ip in stated.split())
    return Service(
        metadata=ObjectMeta(name=name, namespace="x", creation_timestamp=f"2026-01-{1 + age:02}T00:00:00Z"),
        spec=ServiceSpec(type=type, load_balancer_ip=asked, load_balancer_class=clazz, ip_families=families),
        status=ServiceStatus(load_balancer=LoadBalancerStatus(ingress=ingress)),
    )


def test_every_address_of_the_pool_is_given_out_once() -> None:
    book = AddressBook(["10.89.200.0/30", "10.89.201.8-10.89.201.9"])
    given = [book.decide(balanced(f"s{number}")).address for number in range(4)]
    assert given == ["10.89.200.1", "10.89.200.2", "10.89.201.8", "10.89.201.9"]
    refused = book.decide(balanced("s4"))
    assert (refused.address, refused.reason) == ("", "AllocationFailed")
    assert "all 4 addresses" in refused.message


def test_asking_again_changes_nothing() -> None:
    book = AddressBook(["10.89.200.0/24"])
    assert book.decide(balanced("a")) == book.decide(balanced("a"))


def test_what_is_assigned_stays_over_a_restart() -> None:
    book = AddressBook(["10.89.200.0/24"])
    book.restore([balanced("a", stated="10.89.200.7")])
    assert book.decide(balanced("a", stated="10.89.200.7")).address == "10.89.200.7"
    assert book.decide(balanced("b")).address != "10.89.200.7"


def test_of_two_with_one_address_the_older_keeps_it() -> None:
    young, old = balanced("a", stated="10.89.200.7", age=9), balanced("b", stated="10.89.200.7", age=1)
    book = AddressBook(["10.89.200.0/24"])
    book.restore([young, old])
    assert book.decide(old).address == "10.89.200.7"
    assert book.decide(young).address not in ("", "10.89.200.7")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("10.89.200.9", Decision(address="10.89.200.9")),
        ("10.1.2.3", Decision(reason="AllocationFailed", message="loadBalancerIP 10.1.2.3 is in none of the pools")),
        ("10.89.200.1", Decision(reason="AllocationFailed", message="loadBalancerIP 10.89.200.1 belongs to x/holder")),
        ("nonsense", Decision(reason="AllocationFailed", message="loadBalancerIP nonsense is in none of the pools")),
    ],
)
def test_a_wish_is_granted_or_refused_with_the_reason(asked: str, expected: Decision) -> None:
    book = AddressBook(["10.89.200.0/24"])
    book.restore([balanced("holder", stated="10.89.200.1")])
    assert book.decide(balanced("a", asked=asked)) == expected


@pytest.mark.parametrize("service", [balanced("a", type="ClusterIP"), balanced("a", clazz="example.com/other")])
def test_services_of_others_get_nothing_and_lose_what_they_held(service: Service) -> None:
    book = AddressBook(["10.89.200.0/32"])
    assert book.decide(balanced("a")).address == "10.89.200.0"
    assert book.decide(service) == Decision()
    assert book.decide(balanced("b", clazz=CLASS)).address == "10.89.200.0"


def test_each_family_has_a_book_of_its_own() -> None:
    pools = ["10.89.200.0/30", "fd00:89::10-fd00:89::11"]
    four, six = AddressBook(pools), AddressBook(pools, "IPv6")
    both = balanced("both", families=("IPv6", "IPv4"), asked="fd00:89::11")
    assert (four.decide(both).address, six.decide(both).address) == ("10.89.200.1", "fd00:89::11")
    lone = balanced("lone", families=("IPv6",))
    assert (four.decide(lone), six.decide(lone).address) == (Decision(), "fd00:89::10")
    assert "all 2 addresses" in six.decide(balanced("late", families=("IPv6",))).message
    assert AddressBook(pools[:1], "IPv6").decide(lone).message == "none of the pools has IPv6 addresses"
    restored = AddressBook(pools, "IPv6")
    restored.restore([balanced("both", stated="10.89.200.1 fd00:89::11", families=("IPv4", "IPv6"))])
    assert restored.decide(lone).address == "fd00:89::10"


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["decide", "release", "restate"])), max_size=40))
def test_no_address_is_ever_in_two_hands(steps: list[tuple[int, str]]) -> None:
    book, held = AddressBook(["10.89.200.0/30"]), dict[str, str]()
    for number, action in steps:
        service = balanced(f"s{number}", stated=held.get(f"x/s{number}", ""))
        key = service.metadata.key
        if action == "release":
            assert book.release(key) == (key in held)
            held.pop(key, None)
            continue
        if action == "restate":  # somebody wrote another's address into the status
            service = msgspec.structs.replace(
                service,
                status=ServiceStatus(
                    load_balancer=LoadBalancerStatus(ingress=(LoadBalancerIngress(ip="10.89.200.2"),))
                ),
            )
        address = book.decide(service).address
        assert address not in [other for owner, other in held.items() if owner != key] or not address
        if address:
            held[key] = address
        assert len(set(held.values())) == len(held)
