"""Where the service proxy is measured: a network of its own, an API server, Services, the proxy, and real connections.

The process that runs this is already alone in a network namespace. Every address of the endpoint range is an address of
that namespace, so one listener serves all endpoints and each connection says which of them it reached; a second
namespace, joined by a cable, is the client whose packets are forwarded into the rules.
"""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pilotage.api.core_v1 import Service
from pilotage.api.status import ApiError
from pilotage.client import Client, ConnectionFailed, PatchType
from pilotage.network import namespaces
from pilotage.testing.etcd import free_port

SERVICE_CIDR, ENDPOINT_CIDR = "10.96.0.0/12", "10.128.0.0/9"
NODE, NODE_ADDRESS, CLIENT_ADDRESS = "n1", "192.0.2.1", "192.0.2.2"
PORT, TARGET = 80, 8080
SLICE_ENDPOINTS_MAX = 100
PROBE = "probe"
PROBE_ENDPOINTS = ("10.255.0.1", "10.255.0.2")
_CREATES_AT_ONCE = 48
_TICKS = os.sysconf("SC_CLK_TCK")
_CONNECT_S = 0.02


def endpoint_address(number: int) -> str:
    """The address of the n-th endpoint of all."""
    number += 256
    return f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def plumb(client: Path) -> None:
    """Give this namespace its addresses and make the client's, joined to it."""
    namespaces.create(client)
    prepare_node()
    for words in (
        f"link add node0 type veth peer name client0 netns {os.getpid()}",
        f"addr add {NODE_ADDRESS}/24 dev node0",
        "link set node0 up",
    ):
        _ip(words)
    fd = os.open(client, os.O_RDONLY)
    try:
        os.set_inheritable(fd, True)
        _run(["ip", "link", "set", "client0", "netns", f"/proc/{os.getpid()}/fd/{fd}"])
    finally:
        os.close(fd)
    namespaces.run_in(client, _set_up_client)


def prepare_node() -> None:
    """Make this namespace a node, but for the cable: endpoints are its own, Services have a route."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # Every connection of a run is a new one and is tracked for a while.
    with suppress(OSError):
        Path("/proc/sys/net/netfilter/nf_conntrack_max").write_text("1000000")
    for words in (
        "link set lo up",
        f"route add local {ENDPOINT_CIDR} dev lo",
        "link add service0 type bridge",
        "link set service0 up",
        f"route add {SERVICE_CIDR} dev service0",
    ):
        _ip(words)


def _set_up_client() -> None:
    for words in (
        "link set lo up",
        f"addr add {CLIENT_ADDRESS}/24 dev client0",
        "link set client0 up",
        f"route add default via {NODE_ADDRESS}",
    ):
        _ip(words)


def _ip(words: str) -> None:
    _run(["ip", *words.split()])


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip()}")


class Endpoints(threading.Thread):
    """All endpoints: tells each connection the address that it reached, and ends it without a trace."""

    def __init__(self, listener: socket.socket | None = None) -> None:
        super().__init__(name="endpoints", daemon=True)
        self._socket = listener or socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("", TARGET))
        self._socket.listen(4096)

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            with connection, suppress(OSError):
                connection.sendall(connection.getsockname()[0].encode())

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def reached(address: str, port: int = PORT, timeout_s: float = _CONNECT_S) -> str:
    """The endpoint that answers at an address; empty when nobody does within `timeout_s`."""
    with socket.socket() as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect((address, port))
            return sock.recv(64).decode()
        except OSError:
            return ""


def until_reached(address: str, wanted: str, deadline_s: float = 120.0) -> float:
    """The time at which a connection to `address` first arrived at `wanted`."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if reached(address) == wanted:
            return time.perf_counter()
    raise SystemExit(f"{address} does not lead to {wanted}")


def connect_times(source: Path, address: str, port: int, count: int) -> list[float]:
    """Seconds of each of `count` connects from the namespace `source`, one after another."""

    def connects() -> list[float]:
        took = []
        reset = struct.pack("ii", 1, 0)
        for _ in range(count):
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                started = time.perf_counter()
                sock.connect((address, port))
                took.append(time.perf_counter() - started)
        return took

    return namespaces.run_in(source, connects)


# ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Process:
    """A pilotage process and what it costs."""

    def __init__(self, *words: str, log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            self.started = time.perf_counter()
            self._process = subprocess.Popen([sys.executable, "-m", "pilotage.cli", *words], stderr=file)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mb(self, field: str) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) * 1024 / 1e6

    def until_ready(self) -> None:
        """Until it says so."""
        deadline = time.monotonic() + 120
        while b'"ready"' not in (said := self._log.read_bytes()) and b" ready" not in said:
            if time.monotonic() > deadline or not self.running():
                raise SystemExit(f"not ready: {said.decode(errors='replace')[-600:]}")
            time.sleep(0.01)

    def running(self) -> bool:
        return self._process.poll() is None

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(how)
        self._process.wait(30)


@contextmanager
def api_server(home: Path) -> Iterator[Path]:
    """An API server on a store in `home`; gives the administrator's kubeconfig."""
    home.mkdir(parents=True)
    kubeconfig = home / "admin.kubeconfig"
    listen = f"127.0.0.1:{free_port()}"
    process = Process(
        *("apiserver", "--listen", listen, "--data-dir", str(home)),
        *("--service-cidr", SERVICE_CIDR, "--log-level", "error"),
        log=home / "apiserver.log",
    )
    try:
        deadline = time.monotonic() + 60
        while not (kubeconfig.exists() and asyncio.run(_is_served(kubeconfig))):
            if time.monotonic() > deadline or not process.running():
                raise SystemExit("the API server does not become ready")
            time.sleep(0.05)
        yield kubeconfig
    finally:
        process.end()


@contextmanager
def proxy(kubeconfig: Path) -> Iterator[Process]:
    """The proxy of this namespace, as a user starts it."""
    log = kubeconfig.with_name("proxy.log")
    process = Process("proxy", "--kubeconfig", str(kubeconfig), "--node", NODE, log=log)
    try:
        yield process
    finally:
        process.end()


async def _is_served(kubeconfig: Path) -> bool:
    try:
        async with Client.from_kubeconfig(kubeconfig) as client:
            await client.get(Service, "kubernetes", namespace="default")
            return True
    except (ApiError, ConnectionFailed):
        return False


# ── objects ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def service_document(name: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": PORT, "targetPort": TARGET, "protocol": "TCP"}]},
    }


def slice_document(service: str, name: str, addresses: list[str]) -> dict[str, object]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": TARGET, "protocol": "TCP"}],
        "endpoints": endpoint_documents(addresses),
    }


def endpoint_documents(addresses: list[str]) -> list[dict[str, object]]:
    return [
        {
            "addresses": [address],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": _node_of(address),
            "targetRef": {"kind": "Pod", "namespace": "default", "name": f"pod-{address.replace('.', '-')}"},
        }
        for address in addresses
    ]


def _node_of(address: str) -> str:
    """One of a hundred nodes; the probe's endpoints are on this one."""
    return NODE if address in PROBE_ENDPOINTS else f"n{sum(map(int, address.split('.'))) % 100 + 1}"


async def fill(kubeconfig: Path, services: range, endpoints: int) -> str:
    """Create Services with so many endpoints each, the probe (one endpoint) if need be; returns the probe's address."""
    async with Client.from_kubeconfig(kubeconfig) as client:
        turns = asyncio.Semaphore(_CREATES_AT_ONCE)

        async def one(number: int) -> None:
            async with turns:
                await _post(client, service_document(f"s-{number}"))
                for part, first in enumerate(range(0, endpoints, SLICE_ENDPOINTS_MAX)):
                    last = min(first + SLICE_ENDPOINTS_MAX, endpoints)
                    addresses = [endpoint_address(number * endpoints + index) for index in range(first, last)]
                    await _post(client, slice_document(f"s-{number}", f"s-{number}-{part}", addresses))

        with suppress(ApiError):
            await _post(client, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
            await _post(client, service_document(PROBE))
            await _post(client, slice_document(PROBE, PROBE, [PROBE_ENDPOINTS[0]]))
        for start in range(services.start, services.stop, 2000):
            await asyncio.gather(*map(one, range(start, min(start + 2000, services.stop))))
        return (await client.get(Service, PROBE, namespace="default")).spec.cluster_ip


async def _post(client: Client, document: dict[str, object]) -> None:
    slices = document["kind"] == "EndpointSlice"
    nodes = document["kind"] == "Node"
    path = "/api/v1/nodes" if nodes else "/api/v1/namespaces/default/services"
    if slices:
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    await client.request("POST", path, body=json.dumps(document).encode())


async def point_probe(client: Client, address: str) -> None:
    """Give the probe another endpoint; returns when the API server has acknowledged it."""
    await point(client, PROBE, address)


async def point(client: Client, name: str, address: str) -> None:
    """Replace all endpoints of one slice by one."""
    from pilotage.api.discovery_v1 import EndpointSlice

    body = {"endpoints": endpoint_documents([address])}
    await client.patch(EndpointSlice, name, body, namespace="default", patch_type=PatchType.MERGE)
