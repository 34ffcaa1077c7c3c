"""Which addresses and protocols a Service answers on, beyond the ordinary: chosen node addresses, SCTP, weights."""

import socket
import struct

import pytest

from pilotage.api.meta_v1 import ObjectMeta
from pilotage.network import namespaces
from pilotage.nft import KernelNft
from pilotage.proxy.backends.nftables import NftablesBackend
from pilotage.proxy.core.layout import Surroundings
from pilotage.proxy.core.plan import Plan
from pilotage.proxy.core.topology import NodeView
from pilotage.proxy.core.whole import plan_everything
from pilotage.testing.services import make_service, make_slice

from .conftest import TIMEOUT_S, World, path

A, C = "10.244.1.2@n1", "10.244.2.2@n2"


def plan(*ports: str, target: str = "8080", type: str = "NodePort") -> Plan:
    return plan_everything(
        [make_service(ports=ports, type=type)], [make_slice(endpoints=[A], ports=[target])], NodeView(name="n1")
    )


@pytest.mark.parametrize(
    ("chosen", "answer"),
    [(("10.89.0.0/16", "fd00::/8"), "a"), (("192.0.2.0/24",), "refused"), (("fd00::/8",), "refused")],
    ids=["the node's network", "another network", "the other family only"],
)
def test_node_ports_answer_on_chosen_addresses(world: World, chosen: tuple[str, ...], answer: str) -> None:
    surroundings = Surroundings(cluster_cidrs=("10.244.0.0/16",), node_port_addresses=chosen)
    made = namespaces.run_in(
        path("n1"), lambda: NftablesBackend(KernelNft(), families=("ip", "ip6"), surroundings=surroundings)
    )
    try:
        made.cleanup()
        made.sync(plan("80@30080"))
        assert world.ask("client", "10.89.0.11:30080").split(" ")[0] == answer
    finally:
        made.cleanup()
        made.close()


def test_a_weight_is_a_share_of_a_slice(world: World, backend: NftablesBackend) -> None:
    heavy, light = make_slice(endpoints=[A], name="web-1"), make_slice(endpoints=[C], name="web-2")
    meta = ObjectMeta(
        name="web-1",
        namespace="default",
        labels=heavy.metadata.labels,
        annotations={"pilotage.dev/weight": "100"},
    )
    heavy = type(heavy)(metadata=meta, address_type=heavy.address_type, endpoints=heavy.endpoints, ports=heavy.ports)
    backend.sync(plan_everything([make_service()], [heavy, light], NodeView(name="n1")))
    answers = [world.ask("b", "10.96.0.1:80").split(" ")[0] for _ in range(100)]
    # Chance of fewer than 90 of 100 at 100 to 1: below 1e-7.
    assert answers.count("a") >= 90


# ── SCTP without sockets for it: an INIT by hand ────────────────────────────────────────────────────────────────────


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def init_packet(source_port: int, destination_port: int) -> bytes:
    """The common header and one INIT chunk (RFC 9260, sections 3.1 and 3.3.2)."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 0x1234, 65536, 1, 1, 1)
    head = struct.pack(">HHI", source_port, destination_port, 0)
    checksum = crc32c(head + b"\0\0\0\0" + chunk)
    return head + struct.pack("<I", checksum) + chunk


def test_an_sctp_association_begins_at_an_endpoint(world: World, backend: NftablesBackend) -> None:
    backend.sync(plan("3868@30868/SCTP", target="5868/SCTP"))
    pod = namespaces.socket_in(path("a"), socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
    other = namespaces.socket_in(path("b"), socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
    with pod, other:
        pod.settimeout(TIMEOUT_S)
        for number, (address, port) in enumerate((("10.96.0.1", 3868), ("10.89.0.11", 30868))):
            other.sendto(init_packet(40000 + number, port), (address, 0))
            received = pod.recv(2048)
            segment = received[(received[0] & 15) * 4 :]
            source, destination, _ = struct.unpack(">HHI", segment[:8])
            assert destination == 5868, source
            (checksum,) = struct.unpack("<I", segment[8:12])
            assert checksum == crc32c(segment[:8] + b"\0\0\0\0" + segment[12:]), "the kernel mended the checksum"
