"""A little world of network namespaces: a client, two nodes, pods behind each, and servers that say who they are.

    client 10.89.0.1 ─┐
    n1 10.89.0.11 ────┼─ underlay (bridge in the namespace `client`)
    n2 10.89.0.12 ────┘
    n1: cni0 10.244.1.1/24 ─ pods a (.2), b (.3)        n2: cni0 10.244.2.1/24 ─ pod c (.2)

The proxy under test works in n1. Only sockets cross namespaces; all servers run in one thread of this process.
"""

import contextlib
import selectors
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotage.network import namespaces
from pilotage.nft import KernelNft
from pilotage.proxy.backends.nftables import NftablesBackend
from pilotage.proxy.core.layout import Surroundings

TIMEOUT_S = 2.0  # longer than any of these answers takes, short enough for the test of a dropped packet
PODS = {"a": ("n1", "10.244.1.2"), "b": ("n1", "10.244.1.3"), "c": ("n2", "10.244.2.2")}
NODES = {"n1": "10.89.0.11", "n2": "10.89.0.12"}
NAMESPACES = ("client", *NODES, *PODS)
SURROUNDINGS = Surroundings(cluster_cidrs=("10.244.0.0/16",))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _join(bridge_namespace: str, bridge: str, namespace: str, address: str, gateway: str) -> None:
    port = f"v{namespace}"
    _ip("-n", bridge_namespace, "link", "add", port, "type", "veth", "peer", "eth0", "netns", namespace)
    _ip("-n", bridge_namespace, "link", "set", port, "master", bridge, "up")
    # A pod may be answered by itself: the bridge must send a frame back where it came from.
    _ip("-n", bridge_namespace, "link", "set", port, "type", "bridge_slave", "hairpin", "on")
    _ip("-n", namespace, "addr", "add", address, "dev", "eth0")
    _ip("-n", namespace, "link", "set", "eth0", "up")
    if gateway:
        _ip("-n", namespace, "route", "add", "default", "via", gateway)


def _bridge(namespace: str, name: str, address: str) -> None:
    _ip("-n", namespace, "link", "add", name, "type", "bridge", "forward_delay", "0")
    _ip("-n", namespace, "addr", "add", address, "dev", name)
    _ip("-n", namespace, "link", "set", name, "up")


class Servers(threading.Thread):
    """TCP and UDP servers in many namespaces; each answers `name peer-address` to whoever speaks to it."""

    def __init__(self) -> None:
        super().__init__(name="servers", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._end, self._ended = socket.socketpair()
        self._selector.register(self._ended, selectors.EVENT_READ, None)

    def listen(self, name: str, namespace: str, address: str, port: int, *, udp: bool = False) -> None:
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        sock = namespaces.socket_in(path(namespace), socket.AF_INET, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if not udp:
            sock.listen(64)
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
                            connection.sendall(f"{name} {peer[0]}".encode())

    def close(self) -> None:
        self._end.close()
        self.join(TIMEOUT_S)
        for key in [*self._selector.get_map().values()]:
            key.fileobj.close()  # type: ignore[union-attr]  # sockets only
        self._selector.close()


def path(namespace: str) -> Path:
    return Path("/run/netns") / namespace


class World:
    """What tests do in it."""

    def __init__(self) -> None:
        for namespace in NAMESPACES:
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _bridge("client", "underlay0", "10.89.0.1/16")
        for index, (node, address) in enumerate(NODES.items(), 1):
            _join("client", "underlay0", node, f"{address}/16", "10.89.0.1")
            _bridge(node, "cni0", f"10.244.{index}.1/24")
            namespaces.run_in(path(node), lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
            _ip("-n", "client", "route", "add", f"10.244.{index}.0/24", "via", address)
            for other, (number, via) in enumerate(NODES.items(), 1):
                if number != node:
                    _ip("-n", node, "route", "add", f"10.244.{other}.0/24", "via", via)
        for service_network in ("10.96.0.0/16", "198.51.100.0/24", "10.89.200.0/24"):
            _ip("-n", "client", "route", "add", service_network, "via", NODES["n1"])
        self.servers = Servers()
        for pod, (node, address) in PODS.items():
            _join(node, "cni0", pod, f"{address}/24", address.rpartition(".")[0] + ".1")
            self.servers.listen(pod, pod, address, 8080)
            self.servers.listen(pod, pod, address, 8080, udp=True)
        self.servers.listen("dns-n1", "n1", NODES["n1"], 53, udp=True)
        self.servers.start()

    def ask(self, source: str, to: str, *, udp: bool = False, sock: socket.socket | None = None) -> str:
        """Who answers `address:port` when asked from namespace `source`; or `refused`, or `silence`."""
        own = sock is None
        address, _, port = to.rpartition(":")
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        sock = sock or namespaces.socket_in(path(source), socket.AF_INET, kind)
        try:
            sock.settimeout(TIMEOUT_S)
            if own or not udp:
                sock.connect((address, int(port)))
            if udp:
                sock.send(b"who")
            return sock.recv(2048).decode() or "closed"
        except (ConnectionRefusedError, PermissionError):  # the latter: one's own datagram, refused on the way out
            return "refused"
        except TimeoutError:
            return "silence"
        finally:
            if own:
                sock.close()

    def names(self, source: str, to: str, times: int, *, udp: bool = False) -> set[str]:
        """The servers that answered so many fresh connections."""
        return {self.ask(source, to, udp=udp).split(" ")[0] for _ in range(times)}

    def udp_socket(self, source: str, to: str) -> socket.socket:
        address, _, port = to.rpartition(":")
        sock = namespaces.socket_in(path(source), socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((address, int(port)))
        return sock

    def close(self) -> None:
        self.servers.close()
        for namespace in NAMESPACES:
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def backend(world: World) -> Iterator[NftablesBackend]:
    """The backend in node n1, with no table at first and none at the end."""
    made = namespaces.run_in(
        path("n1"), lambda: NftablesBackend(KernelNft(), families=("ip",), surroundings=SURROUNDINGS)
    )
    made.cleanup()
    yield made
    made.cleanup()
    made.close()
