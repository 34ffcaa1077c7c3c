"""`Wiring` on the Linux kernel: bridges, veth pairs, addresses and routes by netlink, no process spawned.

Apart from the seam so that only this module needs privilege. Fed by the agent and by the fabric; leaves the meaning of
a namespace (a pod, a node) to them. Sockets are opened for the length of a call: a namespace must not be kept alive by
a forgotten descriptor.
"""

import errno
import ipaddress
import socket
from collections.abc import Collection, Mapping
from pathlib import Path

from pilotage.network import namespaces, user_namespaces
from pilotage.network.core import rtnetlink
from pilotage.network.core.rtnetlink import RTPROT_STATIC, Link, Route, VethPair
from pilotage.network.errors import NetworkError
from pilotage.network.netlink import NETLINK_ROUTE, NetlinkSocket
from pilotage.network.wiring import MTU_BYTES, Attachment, host_interface_name, interface_address, mac_for

_LOOPBACK_INDEX = 1  # the kernel gives it the first index in every namespace


class KernelWiring:
    """`Wiring` in the network namespace of the calling thread."""

    def create_namespace(self, path: Path, *, users: Path | None = None) -> None:
        if users is None:
            namespaces.create(path)
        elif not namespaces.is_namespace(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            user_namespaces.create_in(users, {"net": path})
        with _socket_in(path) as inside:
            inside.execute(f"bring up loopback in {path}", [rtnetlink.set_up(_LOOPBACK_INDEX)])

    def delete_namespace(self, path: Path) -> None:
        namespaces.delete(path)

    def ensure_bridge(self, name: str, *, addresses: Collection[str] = (), mtu_bytes: int = MTU_BYTES) -> None:
        with NetlinkSocket.open() as here:
            # Without a MAC of its own a bridge takes the lowest of its ports' and so changes it as they come and go.
            mac = mac_for(next(iter(addresses))) if addresses else ""
            here.execute(
                f"add bridge {name}", [rtnetlink.add_bridge(name, mtu=mtu_bytes, mac=mac)], tolerate=(errno.EEXIST,)
            )
            bridge = _require(here, name)
            here.execute(
                f"configure bridge {name}",
                [rtnetlink.set_up(bridge.index), *(rtnetlink.add_address(bridge.index, one) for one in addresses)],
            )

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
        attachment = Attachment(
            namespace=namespace,
            interface=interface,
            host_interface=host_interface_name(namespace, interface),
            address=interface_address(address, routed=routed and bool(gateway)),
            mac=mac or mac_for(address),
            further=tuple(interface_address(one, routed=routed and bool(via)) for one, via in further),
        )
        with NetlinkSocket.open() as here, _socket_in(namespace) as inside:
            port = self._connect(here, inside, attachment, _require(here, bridge))
            marks = [rtnetlink.set_alias(port.index, str(namespace))]
            if hairpin:
                marks.append(rtnetlink.set_hairpin(port.index))
            here.execute(f"mark {port.name}", marks)
            end = _require(inside, interface)
            addresses = (attachment.address, *attachment.further)
            steps = [rtnetlink.set_up(end.index), *(rtnetlink.add_address(end.index, one) for one in addresses)]
            for via in (gateway, *(via for _, via in further)):
                if via:
                    default = "0.0.0.0/0" if ipaddress.ip_address(via).version == 4 else "::/0"
                    route = Route(destination=default, via=(via,))
                    steps.append(rtnetlink.replace_route(route, end.index, on_link=True, owner=RTPROT_STATIC))
            inside.execute(f"configure {interface} in {namespace}", steps)
        return attachment

    def _connect(self, here: NetlinkSocket, inside: NetlinkSocket, wanted: Attachment, bridge: Link) -> Link:
        """The bridge port, made anew unless the one that is there leads to the wanted interface and address."""
        port = find_link(here, wanted.host_interface)
        end = find_link(inside, wanted.interface)
        if port is not None and (end is None or end.mac != wanted.mac or not _has_address(inside, end, wanted.address)):
            here.execute(f"delete {port.name}", [rtnetlink.delete_link(port.index)], tolerate=(errno.ENODEV,))
            port = None
        if port is None:
            fd = namespaces.open_namespace(wanted.namespace)
            with open(fd, closefd=True):
                pair = VethPair(
                    name=wanted.host_interface,
                    peer=wanted.interface,
                    peer_namespace_fd=fd,
                    master=bridge.index,
                    peer_mac=wanted.mac,
                    mtu=bridge.mtu,
                )
                here.execute(f"attach {wanted.namespace} to {bridge.name}", [rtnetlink.add_veth(pair)])
            return _require(here, wanted.host_interface)
        if port.master != bridge.index:
            here.execute(f"move {port.name} to {bridge.name}", [rtnetlink.set_master(port.index, bridge.index)])
        return port

    def detach(self, namespace: Path, *, interface: str = "eth0") -> None:
        with NetlinkSocket.open() as here:
            port = find_link(here, host_interface_name(namespace, interface))
            if port is not None:
                here.execute(f"detach {namespace}", [rtnetlink.delete_link(port.index)], tolerate=(errno.ENODEV,))

    def attachments(self, bridge: str) -> tuple[Path, ...]:
        with NetlinkSocket.open() as here:
            on = find_link(here, bridge)
            if on is None:
                return ()
            return tuple(sorted({Path(link.alias) for link in links(here) if link.master == on.index and link.alias}))

    def ensure_routes(self, routes: Collection[Route]) -> None:
        with NetlinkSocket.open() as here:
            index = {link.name: link.index for link in links(here)}
            name = {value: key for key, value in index.items()}
            present: dict[str, Route] = {}
            for family in (rtnetlink.AF_INET, rtnetlink.AF_INET6):
                for message in here.query("list routes", rtnetlink.get_routes(family)):
                    if (found := rtnetlink.read_route(message)) is not None:
                        route, output = found
                        present[route.destination] = Route(
                            destination=route.destination,
                            via=route.via,
                            interface="" if route.via else name.get(output, ""),
                        )
            wanted = {route.destination: route for route in routes}
            here.execute(
                "remove routes",
                [
                    rtnetlink.delete_route(route, index.get(route.interface, 0))
                    for destination, route in present.items()
                    if destination not in wanted
                ],
                tolerate=(errno.ESRCH,),
            )
            changed = [route for destination, route in wanted.items() if not _same(present.get(destination), route)]
            here.execute("add routes", [rtnetlink.replace_route(one, index.get(one.interface, 0)) for one in changed])

    def set_sysctls(self, values: Mapping[str, str], *, namespace: Path | None = None) -> None:
        if namespace is None:
            _write_sysctls(values)
        else:
            # The files under /proc/sys/net show the network namespace of the thread that opens them.
            namespaces.run_in(namespace, lambda: _write_sysctls(values))


def links(sock: NetlinkSocket) -> list[Link]:
    """Every link of the socket's namespace."""
    return [rtnetlink.read_link(message) for message in sock.query("list links", rtnetlink.get_links())]


def find_link(sock: NetlinkSocket, name: str) -> Link | None:
    """One link by name; None when there is none."""
    try:
        answer = sock.query(f"find link {name}", rtnetlink.get_link(name))
    except NetworkError as error:
        if error.code == errno.ENODEV:
            return None
        raise
    return rtnetlink.read_link(answer[0]) if answer else None


def _require(sock: NetlinkSocket, name: str) -> Link:
    link = find_link(sock, name)
    if link is None:
        raise NetworkError(f"no link {name}", errno.ENODEV)
    return link


def _has_address(sock: NetlinkSocket, link: Link, address: str) -> bool:
    found = (rtnetlink.read_address(message) for message in sock.query("list addresses", rtnetlink.get_addresses()))
    return any(one.index == link.index and one.address == address for one in found)


def _same(present: Route | None, wanted: Route) -> bool:
    if present is None:
        return False
    return set(present.via) == set(wanted.via) and (bool(wanted.via) or present.interface == wanted.interface)


def _socket_in(path: Path) -> NetlinkSocket:
    return NetlinkSocket(namespaces.socket_in(path, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))


def _write_sysctls(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        try:
            Path("/proc/sys", *name.split(".")).write_text(value)
        except OSError as error:
            raise NetworkError(f"set sysctl {name}={value}: {error.strerror}", error.errno or 0) from error
