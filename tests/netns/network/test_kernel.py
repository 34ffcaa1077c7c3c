"""The kernel keeps the promises of the seam, and packets prove it."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotage.network import (
    ETHERTYPE_ARP,
    Flow,
    KernelWiring,
    Route,
    forget_flows,
    interface_mac,
    namespaces,
    open_packet_socket,
)
from pilotage.network.core import rtnetlink
from pilotage.network.kernel import links
from pilotage.network.netlink import NetlinkSocket
from pilotage.testing.wiring_suite import BRIDGE, GATEWAY, WiringSuite


@pytest.fixture
def wiring() -> Iterator[KernelWiring]:
    wiring = KernelWiring()
    yield wiring
    wiring.ensure_routes(())
    with NetlinkSocket.open() as here:
        for link in links(here):
            if link.kind in ("bridge", "veth"):
                here.execute("clean up", [rtnetlink.delete_link(link.index)], tolerate=(19,))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for path in tmp_path.iterdir():
        namespaces.delete(path)


class TestKernelWiring(WiringSuite):
    """Fixtures come from this module."""


def routes() -> dict[str, tuple[str, ...]]:
    with NetlinkSocket.open() as here:
        found = (rtnetlink.read_route(message) for message in here.query("routes", rtnetlink.get_routes(2)))
        return {one[0].destination: one[0].via for one in found if one is not None}


def two_namespaces(wiring: KernelWiring, directory: Path) -> tuple[Path, Path]:
    wiring.set_sysctls({"net.ipv4.ip_forward": "1"})
    wiring.ensure_bridge(BRIDGE, addresses=(f"{GATEWAY}/24",))
    one, two = directory / "one", directory / "two"
    for path, address in ((one, "10.244.1.5/24"), (two, "10.244.1.6/24")):
        wiring.create_namespace(path)
        wiring.attach(path, bridge=BRIDGE, address=address, gateway=GATEWAY)
    return one, two


def test_a_datagram_from_one_namespace_reaches_the_other_through_the_gateway(
    wiring: KernelWiring, directory: Path
) -> None:
    one, two = two_namespaces(wiring, directory)
    with (
        namespaces.socket_in(one, socket.AF_INET, socket.SOCK_DGRAM) as sender,
        namespaces.socket_in(two, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("10.244.1.6", 5000))
        receiver.settimeout(5)
        receiver.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL: one less than sent proves a hop
        sender.sendto(b"hello", ("10.244.1.6", 5000))
        data, ancillary, _flags, source = receiver.recvmsg(100, 100)
    assert data == b"hello"
    assert source[0] == "10.244.1.5"
    assert int.from_bytes(ancillary[0][2], "little") == 63


def test_a_namespace_answers_on_its_loopback(wiring: KernelWiring, directory: Path) -> None:
    wiring.create_namespace(directory / "one")
    with namespaces.socket_in(directory / "one", socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("127.0.0.1", 0))


def test_the_caller_stays_where_it_was(wiring: KernelWiring, directory: Path) -> None:
    before = os.readlink("/proc/self/ns/net")
    two_namespaces(wiring, directory)
    assert os.readlink("/proc/self/ns/net") == before


def test_routes_appear_and_disappear_in_the_kernel(wiring: KernelWiring, directory: Path) -> None:
    wiring.ensure_bridge(BRIDGE, addresses=(f"{GATEWAY}/24",))
    spread = Route(destination="10.96.0.0/16", via=("10.244.1.8", "10.244.1.9"))
    wiring.ensure_routes((Route(destination="10.244.2.0/24", via=("10.244.1.9",)), spread))
    assert routes() == {"10.244.2.0/24": ("10.244.1.9",), "10.96.0.0/16": ("10.244.1.8", "10.244.1.9")}
    wiring.ensure_routes((Route(destination="10.244.2.0/24", via=("10.244.1.8",)),))
    assert routes() == {"10.244.2.0/24": ("10.244.1.8",)}
    wiring.ensure_routes(())
    assert routes() == {}


def test_routes_of_an_interface_survive_the_reconciled_ones(wiring: KernelWiring, directory: Path) -> None:
    one, _ = two_namespaces(wiring, directory)
    namespaces.run_in(one, lambda: wiring.ensure_routes(()))
    with namespaces.socket_in(one, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # only a default route leads there
        assert sock.getsockname()[0] == "10.244.1.5"


def test_a_sysctl_is_set_in_the_namespace_alone(wiring: KernelWiring, directory: Path) -> None:
    wiring.create_namespace(directory / "one")
    name = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    before = name.read_text()
    wiring.set_sysctls({"net.ipv4.ip_unprivileged_port_start": "77"}, namespace=directory / "one")
    assert namespaces.run_in(directory / "one", name.read_text).strip() == "77"
    assert name.read_text() == before


def test_attaching_takes_milliseconds(wiring: KernelWiring, directory: Path) -> None:
    wiring.ensure_bridge(BRIDGE, addresses=(f"{GATEWAY}/24",))
    best = 1.0
    for number in range(10, 20):
        path = directory / f"p{number}"
        started = time.perf_counter()
        wiring.create_namespace(path)
        wiring.attach(path, bridge=BRIDGE, address=f"10.244.1.{number}/24", gateway=GATEWAY)
        best = min(best, time.perf_counter() - started)
    assert best < 0.05, f"{best * 1000:.1f} ms"  # about 3 ms on an idle machine


def test_frames_are_seen_by_the_packet_socket(wiring: KernelWiring, directory: Path) -> None:
    one, _ = two_namespaces(wiring, directory)
    with (
        open_packet_socket(BRIDGE, ETHERTYPE_ARP) as packets,
        namespaces.socket_in(one, socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        packets.settimeout(5)
        sender.sendto(b"x", ("10.244.1.99", 9))
        frame = packets.recv(2048)
    assert frame[12:14] == b"\x08\x06"
    assert interface_mac(BRIDGE).hex(":") == "02:50:0a:f4:01:01"


def test_a_tracked_flow_is_forgotten(wiring: KernelWiring, directory: Path) -> None:
    import subprocess

    one, two = two_namespaces(wiring, directory)
    rules = "table ip t { chain c { type filter hook forward priority 0; ct state new accept; }; }"
    subprocess.run(["nft", rules], check=True)  # a rule that looks at flows makes the kernel track them
    try:
        with (
            namespaces.socket_in(one, socket.AF_INET, socket.SOCK_DGRAM) as sender,
            namespaces.socket_in(two, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        ):
            receiver.bind(("10.244.1.6", 5000))
            receiver.settimeout(5)
            sender.sendto(b"hello", ("10.244.1.6", 5000))
            receiver.recv(100)

        def mine(flow: Flow) -> bool:
            return flow.protocol == 17 and flow.destination == "10.244.1.6" and flow.destination_port == 5000

        shown: list[Flow] = []
        for protocol, answered_by in ((6, ()), (17, ("10.244.1.5",)), (17, [f"10.0.0.{n}" for n in range(4)])):
            assert not forget_flows(lambda flow: bool(shown.append(flow)), protocol=protocol, answered_by=answered_by)
        assert not [flow for flow in shown if mine(flow)], "the kernel shows only what was asked for"
        assert not forget_flows(lambda flow: bool(shown.append(flow)), protocol=17, answered_by=["10.244.1.6"])
        assert [flow.reply_source for flow in shown if mine(flow)] == ["10.244.1.6"]
        assert forget_flows(mine, protocol=17, answered_by=[f"10.244.1.{n}" for n in range(100)]) == 1
        assert forget_flows(mine) == 0, "it is gone"
    finally:
        subprocess.run(["nft", "delete table ip t"], check=True)
