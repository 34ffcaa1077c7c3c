"""A little world of network namespaces: a client, two nodes, pods behind each, and servers that say who they are.

Everything has an address of each family; `V4` and `V6` name them, so that one test runs on both.

    client 10.89.0.1 ─┐
    n1 10.89.0.11 ────┼─ underlay (bridge in the namespace `client`)
    n2 10.89.0.12 ────┘
    n1: cni0 10.244.1.1/24 ─ pods a (.2), b (.3)        n2: cni0 10.244.2.1/24 ─ pod c (.2)

The proxy under test works in n1. Only sockets cross namespaces; all servers run in one thread of this process. A new
backend is one line in `BACKENDS`, and then has to answer for everything in `test_real_packets`.
"""

import contextlib
import errno
import selectors
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilotage.network import forget_flows, namespaces
from pilotage.nft import KernelNft
from pilotage.proxy.backends import Backend
from pilotage.proxy.backends.iptables import IptablesBackend
from pilotage.proxy.backends.nftables import NftablesBackend
from pilotage.proxy.backends.xtables import KernelXtables
from pilotage.proxy.core.layout import Surroundings

TIMEOUT_S = 2.0  # longer than any of these answers takes
PATIENCE_S = 0.25  # for the test of a dropped packet: an answer that does come takes a hundredth of it
PODS = {"a": "n1", "b": "n1", "c": "n2"}
NODES = ("n1", "n2")
NAMESPACES = ("client", *NODES, *PODS)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Addresses:
    """The world in one address family."""

    family: str  # ip or ip6
    address_type: str  # of slices
    length: int  # of the networks below that one link is on
    client: str
    nodes: dict[str, str]
    pods: dict[str, str]
    bridges: dict[str, str]  # node → its address in the network of its pods
    pod_network: str
    service_networks: tuple[str, ...]  # led to n1 by the client
    vip: str
    other_vip: str
    external: str
    balancer: str
    client_network: str  # only the client is in it
    elsewhere_network: str  # nobody is in it

    def endpoint(self, pod: str) -> str:
        """As `make_endpoint` reads it."""
        return f"{self.pods[pod]}@{PODS[pod]}"


V4 = Addresses(
    family="ip",
    address_type="IPv4",
    length=24,
    client="10.89.0.1",
    nodes={"n1": "10.89.0.11", "n2": "10.89.0.12"},
    pods={"a": "10.244.1.2", "b": "10.244.1.3", "c": "10.244.2.2"},
    bridges={"n1": "10.244.1.1", "n2": "10.244.2.1"},
    pod_network="10.244.0.0/16",
    service_networks=("10.96.0.0/16", "198.51.100.0/24", "10.89.200.0/24"),
    vip="10.96.0.1",
    other_vip="10.96.0.10",
    external="198.51.100.7",
    balancer="10.89.200.1",
    client_network="10.89.0.0/29",
    elsewhere_network="203.0.113.0/24",
)
V6 = Addresses(
    family="ip6",
    address_type="IPv6",
    length=64,
    client="fd00:89::1",
    nodes={"n1": "fd00:89::11", "n2": "fd00:89::12"},
    pods={"a": "fd00:244:0:1::2", "b": "fd00:244:0:1::3", "c": "fd00:244:0:2::2"},
    bridges={"n1": "fd00:244:0:1::1", "n2": "fd00:244:0:2::1"},
    pod_network="fd00:244::/48",
    service_networks=("fd00:96::/112", "2001:db8:51::/64", "fd00:89:200::/64"),
    vip="fd00:96::1",
    other_vip="fd00:96::10",
    external="2001:db8:51::7",
    balancer="fd00:89:200::1",
    client_network="fd00:89::/124",
    elsewhere_network="2001:db8:203::/64",
)
SURROUNDINGS = Surroundings(cluster_cidrs=(V4.pod_network, V6.pod_network))
FAMILIES = ("ip", "ip6")


def at(address: str, port: int) -> str:
    """`address:port`, as people write it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _address(namespace: str, address: str, length: int, device: str) -> None:
    nodad = ["nodad"] if ":" in address else []
    _ip("-n", namespace, "addr", "add", f"{address}/{length}", "dev", device, *nodad)


def _join(bridge_namespace: str, bridge: str, namespace: str) -> None:
    port = f"v{namespace}"
    _ip("-n", bridge_namespace, "link", "add", port, "type", "veth", "peer", "eth0", "netns", namespace)
    _ip("-n", bridge_namespace, "link", "set", port, "master", bridge, "up")
    # A pod may be answered by itself: the bridge must send a frame back where it came from.
    _ip("-n", bridge_namespace, "link", "set", port, "type", "bridge_slave", "hairpin", "on")
    _ip("-n", namespace, "link", "set", "eth0", "up")


def _bridge(namespace: str, name: str) -> None:
    _ip("-n", namespace, "link", "add", name, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
    _ip("-n", namespace, "link", "set", name, "up")


def _set_up_kernel() -> None:
    """Forward; nobody waits for duplicate address detection, and no refusal is left out because there were many."""
    Path("/proc/sys/net/ipv4/icmp_ratelimit").write_text("0")
    Path("/proc/sys/net/ipv6/icmp/ratelimit").write_text("0")
    Path("/proc/sys/net/ipv4/icmp_msgs_per_sec").write_text("100000")
    Path("/proc/sys/net/ipv4/icmp_msgs_burst").write_text("10000")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
    for name in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")


class Servers(threading.Thread):
    """TCP and UDP servers in many namespaces; each answers `name peer-address` to whoever speaks to it.

    A TCP server without a name gives the address it was reached at.
    """

    def __init__(self) -> None:
        super().__init__(name="servers", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._end, self._ended = socket.socketpair()
        self._selector.register(self._ended, selectors.EVENT_READ, None)

    def listen(self, name: str, namespace: str, address: str, port: int, *, udp: bool = False) -> None:
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        sock = namespaces.socket_in(path(namespace), _socket_family(address), kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if not udp:
            sock.listen(512)
        self._selector.register(sock, selectors.EVENT_READ, (name, udp))

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                name, udp = key.data
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                with contextlib.suppress(OSError):
                    if udp:
                        _, peer = sock.recvfrom(2048)
                        sock.sendto(f"{name} {peer[0]}".encode(), peer)
                    else:
                        connection, peer = sock.accept()
                        with connection:
                            connection.sendall(f"{name or connection.getsockname()[0]} {peer[0]}".encode())

    def close(self) -> None:
        self._end.close()
        self.join(TIMEOUT_S)
        for key in [*self._selector.get_map().values()]:
            key.fileobj.close()  # type: ignore[union-attr]  # sockets only
        self._selector.close()


def _socket_family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def path(namespace: str) -> Path:
    return Path("/run/netns") / namespace


@contextlib.contextmanager
def further_addresses(namespace: str, addresses: Iterable[str]) -> Iterator[None]:
    """More addresses for a pod, gone again for the tests that come after: they change what the pod speaks from."""
    given = [f"{address}/{128 if ':' in address else 32}" for address in addresses]
    for address in given:
        _ip("-n", namespace, "addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
    yield
    for address in given:
        _ip("-n", namespace, "addr", "del", address, "dev", "eth0")


class World:
    """What tests do in it."""

    def __init__(self) -> None:
        for namespace in NAMESPACES:
            _ip("netns", "add", namespace)
            namespaces.run_in(path(namespace), _set_up_kernel)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _bridge("client", "underlay0")
        for node in NODES:
            _join("client", "underlay0", node)
            _bridge(node, "cni0")
        for pod, node in PODS.items():
            _join(node, "cni0", pod)
        self.servers = Servers()
        for net in (V4, V6):
            self._number(net)
            for pod, address in net.pods.items():
                self.servers.listen(pod, pod, address, 8080)
                self.servers.listen(pod, pod, address, 8080, udp=True)
            self.servers.listen("dns-n1", "n1", net.nodes["n1"], 53, udp=True)
        self.servers.start()

    @staticmethod
    def _number(net: Addresses) -> None:
        """Addresses and routes of one family."""
        wide = 16 if net is V4 else 64
        _address("client", net.client, wide, "underlay0")
        for node, address in net.nodes.items():
            _address(node, address, wide, "eth0")
            _address(node, net.bridges[node], net.length, "cni0")
            _ip("-n", node, "route", "add", "default", "via", net.client)
        for pod, node in PODS.items():
            _address(pod, net.pods[pod], net.length, "eth0")
            _ip("-n", pod, "route", "add", "default", "via", net.bridges[node])
        for node, address in net.nodes.items():
            network = f"{net.bridges[node].removesuffix('1') + ('0' if net is V4 else '')}/{net.length}"
            for other in ("client", *NODES):
                if other != node:
                    _ip("-n", other, "route", "add", network, "via", address)
        for network in net.service_networks:
            _ip("-n", "client", "route", "add", network, "via", net.nodes["n1"])

    def ask(
        self,
        source: str,
        to: str,
        *,
        udp: bool = False,
        sock: socket.socket | None = None,
        patience_s: float = TIMEOUT_S,
    ) -> str:
        """Who answers `address:port` when asked from namespace `source`; or `refused`, `silence` or `unreachable`."""
        own = sock is None
        address, port = _split(to)
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        sock = sock or namespaces.socket_in(path(source), _socket_family(address), kind)
        try:
            sock.settimeout(patience_s)
            if own or not udp:
                sock.connect((address, port))
            if udp:
                sock.send(b"who")
            return sock.recv(2048).decode() or "closed"
        except (ConnectionRefusedError, PermissionError):  # the latter: one's own datagram, refused on the way out
            return "refused"
        except TimeoutError:
            return "silence"
        except OSError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return "unreachable"
        finally:
            if own:
                sock.close()

    def is_silent(self, source: str, to: str) -> bool:
        """Whether nobody answers: the packet was dropped."""
        return self.ask(source, to, patience_s=PATIENCE_S) == "silence"

    def names(self, source: str, to: str, times: int, *, udp: bool = False) -> set[str]:
        """The servers that answered so many fresh connections."""
        return {self.ask(source, to, udp=udp).split(" ")[0] for _ in range(times)}

    def udp_socket(self, source: str, to: str) -> socket.socket:
        address, port = _split(to)
        sock = namespaces.socket_in(path(source), _socket_family(address), socket.SOCK_DGRAM)
        sock.connect((address, port))
        return sock

    def close(self) -> None:
        self.servers.close()
        for namespace in NAMESPACES:
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def _split(to: str) -> tuple[str, int]:
    address, _, port = to.rpartition(":")
    return address.strip("[]"), int(port)


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def _nftables() -> NftablesBackend:
    return NftablesBackend(KernelNft(), families=FAMILIES, surroundings=SURROUNDINGS)


def _iptables_legacy() -> IptablesBackend:
    return IptablesBackend(KernelXtables("legacy"), families=FAMILIES, surroundings=SURROUNDINGS)


def _iptables_nft() -> IptablesBackend:
    return IptablesBackend(KernelXtables("nft"), families=FAMILIES, surroundings=SURROUNDINGS)


BACKENDS: dict[str, Callable[[], Backend]] = {
    "nftables": _nftables,
    "iptables-legacy": _iptables_legacy,
    "iptables-nft": _iptables_nft,
}


def _in_node(make: Callable[[], Backend]) -> Iterator[Backend]:
    made = namespaces.run_in(path("n1"), make)
    made.cleanup()
    namespaces.run_in(path("n1"), lambda: forget_flows(lambda flow: True))
    yield made
    made.cleanup()
    made.close()


@pytest.fixture
def backend(world: World) -> Iterator[Backend]:
    """The nftables backend in node n1, with no table at first and none at the end."""
    yield from _in_node(_nftables)


def skip_without(backend: str) -> None:
    """Kernels are built without one flavour of iptables or the other; then this machine cannot try it."""
    if backend.startswith("iptables-"):
        listed = subprocess.run([backend, "-w", "-t", "nat", "-S"], capture_output=True, text=True, check=False)
        if listed.returncode:
            pytest.skip(f"this kernel does not do {backend}: {listed.stderr.strip()}")


@pytest.fixture(params=BACKENDS)
def each_backend(world: World, request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every backend in turn, in node n1, with no rule at first and none at the end."""
    skip_without(request.param)
    yield from _in_node(BACKENDS[request.param])


@pytest.fixture(params=[V4, V6], ids=["IPv4", "IPv6"])
def net(request: pytest.FixtureRequest) -> Addresses:
    """The world in each address family in turn."""
    chosen: Addresses = request.param
    return chosen
