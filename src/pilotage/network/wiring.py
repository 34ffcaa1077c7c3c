"""The seam: what a node asks of its network, and the fake that keeps the same promises in memory.

Apart from the kernel so that whoever wires pods can be tested without privilege: `Wiring` is the promise,
`KernelWiring` (module `kernel`) keeps it with netlink, `FakeWiring` keeps it in dicts. One suite runs on both. Fed by
the agent, which decides names and addresses. Leaves out address assignment (`kit.ipam`) and filtering (`nft`).

All calls are synchronous, repeatable, and safe from any thread. Making takes 1-2 ms a call; `detach` takes about 20 ms
of waiting in the kernel, so an event loop should hand it to a thread.
"""

import errno
import hashlib
import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pilotage.network.core.rtnetlink import Route
from pilotage.network.errors import NamespaceGone, NetworkError

# Ethernet's customary size: nothing here is tunnelled, so nothing needs room for a second header.
MTU_BYTES = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One namespace's connection to a bridge."""

    namespace: Path
    interface: str  # the name inside the namespace
    host_interface: str  # the port of the bridge; unique on the node, ≤ 15 characters (IFNAMSIZ)
    address: str  # as it is on the interface, with prefix length: "10.244.1.5/32"
    mac: str  # of the interface inside
    further: tuple[str, ...] = ()  # more addresses, of the other family


class Wiring(Protocol):
    """Namespaces joined to bridges by veth pairs, and routes between nodes, in the network namespace of the caller."""

    def create_namespace(self, path: Path, *, users: Path | None = None) -> None:
        """Make a network namespace, loopback up, and keep it alive by a bind mount on `path`.

        It belongs to the user namespace at `users`, whose root may then bind low ports in it; None: to the caller's.
        No error when it exists. The parent directory is made. Costs about a millisecond.
        """
        ...

    def delete_namespace(self, path: Path) -> None:
        """Let go of the namespace; the kernel frees it when no process is inside. No error when it is gone."""
        ...

    def ensure_bridge(self, name: str, *, addresses: Collection[str] = (), mtu_bytes: int = MTU_BYTES) -> None:
        """A bridge that is up and carries `addresses` ("10.244.1.1/24"); other addresses on it are left alone."""
        ...

    def attach(
        self,
        namespace: Path,
        *,
        bridge: str,
        address: str,
        gateway: str = "",
        interface: str = "eth0",
        mac: str = "",
        hairpin: bool = True,
        routed: bool = True,
        further: Collection[tuple[str, str]] = (),
    ) -> Attachment:
        """Join `namespace` to `bridge` with `address` ("10.244.1.5/24") and a default route through `gateway`.

        With a `gateway` there is a default route, and unless `routed` is false the interface gets the address alone
        ("10.244.1.5/32"), so that everything it sends passes the gateway: there Services are translated, and an
        answer that went straight to a neighbour on the bridge would never be translated back.
        Empty `mac`: derived from the address, so that an address that moves to a new namespace keeps its neighbours'
        ARP entries right. `hairpin`: frames may return through the port they came from. `further`: address and gateway
        of the other family, treated alike.
        Repeating it with the same arguments is no error and repairs what is missing; with another address the
        connection is made anew. Raises NamespaceGone when there is no namespace at the path, NetworkError else.
        """
        ...

    def detach(self, namespace: Path, *, interface: str = "eth0") -> None:
        """Undo `attach`; the namespace may be gone already. No error when there is nothing to undo."""
        ...

    def attachments(self, bridge: str) -> tuple[Path, ...]:
        """Namespaces with a port on `bridge`, sorted: what a restarted agent compares with its pods."""
        ...

    def ensure_routes(self, routes: Collection[Route]) -> None:
        """Exactly these routes (beside those nobody made through this call): missing added, surplus removed."""
        ...

    def set_sysctls(self, values: Mapping[str, str], *, namespace: Path | None = None) -> None:
        """Set network sysctls ("net.ipv4.ip_forward": "1") in `namespace` (None: the caller's)."""
        ...


def host_interface_name(namespace: Path, interface: str) -> str:
    """The bridge port's name for one interface of one namespace: stable, 15 characters, unique in practice.

    48 bits of a digest: with 10,000 namespaces on a node two collide with a chance of 2 in 10 million, and then the
    second `attach` fails with EEXIST rather than taking the first one's port.
    """
    digest = hashlib.sha256(f"{namespace}\0{interface}".encode()).hexdigest()[:12]
    return f"pv-{digest}"


def interface_address(address: str, *, routed: bool) -> str:
    """The address in canonical form; the host alone ("/32", "/128") when everything is to pass a gateway."""
    parsed = ipaddress.ip_interface(address)
    return f"{parsed.ip}/{parsed.ip.max_prefixlen}" if routed else str(parsed)


def mac_for(address: str) -> str:
    """A locally administered MAC derived from an address: one address, one MAC (IEEE 802 §8.4 bit 1)."""
    packed = ipaddress.ip_interface(address).ip.packed
    return (b"\x02\x50" + packed[-4:]).hex(":")


class FakeWiring:
    """`Wiring` in memory. Public attributes are the state of the pretended world, for tests to assert on."""

    def __init__(self) -> None:
        self.namespaces: set[Path] = set()
        self.bridges: dict[str, set[str]] = {}  # name → addresses
        self.connections: dict[tuple[Path, str], tuple[str, str, Attachment]] = {}  # → (bridge, gateway, attachment)
        self.routes: frozenset[Route] = frozenset()
        self.sysctls: dict[tuple[Path | None, str], str] = {}

    def create_namespace(self, path: Path, *, users: Path | None = None) -> None:
        self.namespaces.add(path)

    def delete_namespace(self, path: Path) -> None:
        self.namespaces.discard(path)
        for key in [key for key in self.connections if key[0] == path]:
            del self.connections[key]

    def ensure_bridge(self, name: str, *, addresses: Collection[str] = (), mtu_bytes: int = MTU_BYTES) -> None:
        self.bridges.setdefault(name, set()).update(addresses)

    def attach(
        self,
        namespace: Path,
        *,
        bridge: str,
        address: str,
        gateway: str = "",
        interface: str = "eth0",
        mac: str = "",
        hairpin: bool = True,
        routed: bool = True,
        further: Collection[tuple[str, str]] = (),
    ) -> Attachment:
        if namespace not in self.namespaces:
            raise NamespaceGone(f"no network namespace at {namespace}", errno.ENOENT)
        if bridge not in self.bridges:
            raise NetworkError(f"no bridge {bridge}", errno.ENODEV)
        attachment = Attachment(
            namespace=namespace,
            interface=interface,
            host_interface=host_interface_name(namespace, interface),
            address=interface_address(address, routed=routed and bool(gateway)),
            mac=mac or mac_for(address),
            further=tuple(interface_address(one, routed=routed and bool(via)) for one, via in further),
        )
        self.connections[namespace, interface] = (bridge, gateway, attachment)
        return attachment

    def detach(self, namespace: Path, *, interface: str = "eth0") -> None:
        self.connections.pop((namespace, interface), None)

    def attachments(self, bridge: str) -> tuple[Path, ...]:
        return tuple(sorted({path for (path, _), (on, _, _) in self.connections.items() if on == bridge}))

    def ensure_routes(self, routes: Collection[Route]) -> None:
        self.routes = frozenset(routes)

    def set_sysctls(self, values: Mapping[str, str], *, namespace: Path | None = None) -> None:
        if namespace is not None and namespace not in self.namespaces:
            raise NamespaceGone(f"no network namespace at {namespace}", errno.ENOENT)
        for name, value in values.items():
            self.sysctls[namespace, name] = value
