"""The graph of a namespace and its two drawings, held against goldens."""

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from pilotage.api.codec import convert, load_yaml
from pilotage.api.core_v1 import Node, Pod, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.networking_v1 import Ingress
from pilotage.observe import Snapshot, Traffic, build_topology
from pilotage.observe.core.svg import draw_svg
from pilotage.observe.core.text import draw_text
from pilotage.observe.core.topology import Topology

TESTDATA = Path(__file__).parent / "testdata"

CHAIN = {
    "answered_by": {"pod": "web-1"},
    "upstreams": [
        {
            "url": "http://api/",
            "answer": {
                "answered_by": {"pod": "api-1"},
                "upstreams": [
                    {"url": "tcp://db-0.db:5432", "answer": {"answered_by": {"pod": "db-0"}}},
                    {"url": "http://legacy:8088/inventory", "answer": {"answered_by": {"pod": "mainframe"}}},
                    {"url": "http://broken/", "error": "no answer"},
                ],
            },
        }
    ],
}


@pytest.fixture
def topology() -> Topology:
    documents = load_yaml((TESTDATA / "shop.in.yaml").read_text())

    def of(kind):  # type: ignore[no-untyped-def]
        return tuple(convert(kind, document) for document in documents if document["kind"] == kind.kind)

    snapshot = Snapshot(
        ingresses=of(Ingress), services=of(Service), slices=of(EndpointSlice), pods=of(Pod), nodes=of(Node)
    )
    traffic = Traffic(service.metadata.name for service in snapshot.services)
    for _ in range(3):
        traffic.record(CHAIN, "outside", "ingress/edge", "service/web")
    traffic.record_spread({"web-1": 2, "web-2": 5}, "outside", "service/public")
    return build_topology(snapshot, traffic)


def test_requests_are_counted_along_the_whole_chain(topology: Topology) -> None:
    counts = {(edge.source, edge.target): edge.requests for edge in topology.edges}
    assert counts["outside", "ingress/edge"] == 3
    assert counts["service/web", "service/api"] == 3
    assert counts["service/api", "service/db"] == 3
    assert counts["service/legacy", "external/legacy.example.test"] == 3
    assert counts["outside", "service/public"] == 7


def test_calls_that_no_object_declares_are_marked(topology: Topology) -> None:
    undeclared = {(edge.source, edge.target) for edge in topology.edges if not edge.declared}
    assert undeclared == {
        ("service/web", "service/api"),
        ("service/api", "service/db"),
        ("service/api", "service/legacy"),
    }


def test_depth_grows_along_every_edge(topology: Topology) -> None:
    assert all(topology.depths[edge.source] < topology.depths[edge.target] for edge in topology.edges)


def test_services_that_call_each_other_in_a_circle_still_have_a_depth() -> None:
    services = tuple(
        convert(Service, {"metadata": {"name": name}, "spec": {"clusterIP": "10.96.0.1"}}) for name in ("a", "b")
    )
    traffic = Traffic("ab")
    traffic.edges.update({("service/a", "service/b"): 1, ("service/b", "service/a"): 1})
    topology = build_topology(Snapshot(services=services), traffic)
    assert set(topology.depths.values()) <= {0, 1, 2}


@pytest.mark.parametrize(("draw", "golden"), [(draw_text, "shop.out.txt"), (draw_svg, "shop.out.svg")])
def test_drawings(topology: Topology, draw, golden: str) -> None:  # type: ignore[no-untyped-def]
    drawn = draw(topology).rstrip("\n") + "\n"
    path = TESTDATA / golden
    if os.environ.get("PILOTAGE_GOLDEN"):
        path.write_text(drawn)
    assert drawn == path.read_text()


def test_the_picture_is_well_formed_and_escapes_names() -> None:
    service = convert(Service, {"metadata": {"name": "<&>"}, "spec": {"clusterIP": "10.96.0.1"}})
    root = ElementTree.fromstring(draw_svg(build_topology(Snapshot(services=(service,)), Traffic()), title='a "b" <c>'))
    assert "<&>" in "".join(root.itertext())
