"""Requests for routes, addresses and flows, read back by the readers of the kernel's answers."""

from dataclasses import replace

import pytest

from pilotage.network.core import conntrack, rtnetlink
from pilotage.network.core.conntrack import Flow
from pilotage.network.core.message import Message, Request, attribute, nested
from pilotage.network.core.rtnetlink import Route


def echoed(request: Request) -> Message:
    """What the kernel would report of an object made by this request: the layout is the same."""
    return Message(kind=request.kind, flags=0, sequence=1, body=request.body)


@pytest.mark.parametrize(
    "route",
    [
        pytest.param(Route(destination="10.244.2.0/24", via=("10.89.0.12",)), id="one next hop"),
        pytest.param(Route(destination="10.96.0.0/16", via=("10.89.0.11", "10.89.0.12")), id="several next hops"),
        pytest.param(Route(destination="0.0.0.0/0", via=("10.89.0.1",)), id="the default route"),
        pytest.param(Route(destination="fd00:2::/64", via=("fd00:1::2",)), id="IPv6"),
    ],
)
def test_a_route_reads_back_as_written(route: Route) -> None:
    assert rtnetlink.read_route(echoed(rtnetlink.replace_route(route))) == (route, 0)


def test_an_on_link_route_names_its_interface() -> None:
    route = Route(destination="10.89.200.0/24", interface="eth0")
    found = rtnetlink.read_route(echoed(rtnetlink.replace_route(route, 7)))
    assert found == (Route(destination="10.89.200.0/24"), 7)


def test_a_route_of_somebody_else_is_not_ours() -> None:
    route = Route(destination="10.244.2.0/24", via=("10.89.0.12",))
    request = rtnetlink.replace_route(route, owner=rtnetlink.RTPROT_STATIC)
    assert rtnetlink.read_route(echoed(request)) is None


@pytest.mark.parametrize("address", ["10.244.1.1/24", "10.244.1.5/32", "fd00::5/64"])
def test_an_address_reads_back_as_written(address: str) -> None:
    found = rtnetlink.read_address(echoed(rtnetlink.add_address(3, address)))
    assert (found.index, found.address) == (3, address)


def test_a_flow_is_deleted_by_the_tuple_it_was_read_from() -> None:
    flow = Flow(
        protocol=17,
        source="10.244.1.5",
        source_port=40000,
        destination="10.96.0.10",
        destination_port=53,
        reply_source="10.89.0.11",
        reply_source_port=53,
        id=99,
    )
    request = conntrack.delete_flow(flow)
    # A dump holds the reply direction too, which a deletion does not need.
    reply = nested(
        2,
        nested(1, attribute(1, bytes((10, 89, 0, 11))), attribute(2, bytes((10, 244, 1, 5)))),
        nested(
            2, attribute(1, b"\x11"), attribute(2, (53).to_bytes(2, "big")), attribute(3, (40000).to_bytes(2, "big"))
        ),
    )
    message = Message(kind=request.kind, flags=0, sequence=1, body=request.body + reply)
    assert conntrack.read_flow(message) == flow
    reset = nested(4, nested(1, attribute(1, bytes((conntrack.TCP_CLOSE,)))))
    message = Message(kind=request.kind, flags=0, sequence=1, body=request.body + reply + reset)
    assert conntrack.read_flow(message) == replace(flow, tcp_state=conntrack.TCP_CLOSE)


def test_a_flow_without_ports_is_none() -> None:
    icmp = nested(
        1,
        nested(1, attribute(1, bytes((10, 0, 0, 1))), attribute(2, bytes((10, 0, 0, 2)))),
        nested(2, attribute(1, b"\x01")),
    )
    assert conntrack.read_flow(Message(kind=0, flags=0, sequence=1, body=bytes(4) + icmp)) is None
