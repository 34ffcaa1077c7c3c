"""Which endpoints a change takes away, so that no tracked flow leads to them any more."""

import pytest

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.proxy.core.flows import target_of, tcp_targets, tcp_targets_gone
from pilotage.proxy.core.model import service_ports
from pilotage.proxy.core.plan import Planner
from pilotage.proxy.core.topology import NodeView
from pilotage.testing.services import make_service, make_slice

A, B, C = "10.244.1.2@n1", "10.244.1.3@n1", "10.244.2.2@n2"


def write(planner: Planner, service: Service, *slices: EndpointSlice) -> None:
    planner.update(service.metadata.key, service_ports(service, list(slices)))


def gone(before: list[str], after: list[str], *, port: str = "80", target: str = "8080") -> set[bytes]:
    """When `web` went from some endpoints to others, while `other` has them all."""
    planner = Planner(NodeView(name="n1"))
    write(planner, make_service("other", "10.96.0.2"), make_slice("other", [A, B, C]))
    service = make_service(ports=[port])
    write(planner, service, make_slice(endpoints=before, ports=[target]))
    planner.take()
    write(planner, service, make_slice(endpoints=after, ports=[target]))
    return set(tcp_targets_gone(planner.take()))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([A, B], [A, B], []),
        ([A], [A, B], []),
        ([A, B, C], [A, C], ["10.244.1.3"]),
        ([A, B, C], [C], ["10.244.1.2", "10.244.1.3"]),
        ([A], [B], ["10.244.1.2"]),
        ([A, B], [], ["10.244.1.2", "10.244.1.3"]),
        ([A + "!", B], [B], []),
    ],
)
def test_what_a_change_takes_away(before: list[str], after: list[str], expected: list[str]) -> None:
    wanted = {target_of(address, 8080) for address in expected}
    assert gone(before, after) == wanted
    assert gone(before, after, port="80@30080") == wanted
    assert gone(before, after, port="80/UDP", target="8080/UDP") == set()


def test_an_endpoint_that_changes_its_service_is_gone_from_the_first() -> None:
    planner = Planner(NodeView(name="n1"))
    one, two = make_service("one", "10.96.0.1"), make_service("two", "10.96.0.2")
    write(planner, one, make_slice("one", [A]))
    write(planner, two, make_slice("two", [B]))
    planner.take()
    write(planner, one, make_slice("one", [B]))
    write(planner, two, make_slice("two", [A]))
    assert tcp_targets_gone(planner.take()) == {target_of("10.244.1.2", 8080), target_of("10.244.1.3", 8080)}


def test_every_endpoint_of_a_plan() -> None:
    planner = Planner(NodeView(name="n1"))
    write(planner, make_service(cluster_ip="fd00::1"), make_slice(endpoints=["fd00:1::2@n1"], address_type="IPv6"))
    write(planner, make_service("other", "10.96.0.2"), make_slice("other", [A]))
    write(planner, make_service("dns", "10.96.0.3", ["53/UDP"]), make_slice("dns", [C], ["53/UDP"]))
    assert tcp_targets(planner.plan()) == {target_of("fd00:1::2", 8080), target_of("10.244.1.2", 8080)}
