"""Addresses and network namespaces of this node's pods, and routes to other nodes' pods.

Stands apart because it is all the agent knows of networking; `pilotage.network` does the kernel's part. The pool is
rebuilt from the pods' own memory when the agent restarts, so a pod keeps its address.
"""

import asyncio
import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from pilotage.agent.pod_addresses import PodAddresses
from pilotage.api.core_v1 import Node
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.ipam import PoolExhaustedError
from pilotage.network import NetworkError, Route, Wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNetwork:
    """What the node's network looks like."""

    bridge: str
    pod_cidr: str
    second_pod_cidr: str = ""  # of the other family; empty: pods have one address


class _Range:
    """The pods' addresses of one family."""

    def __init__(self, cidr: str, memory: Path, clock: Clock) -> None:
        network = ipaddress.ip_network(cidr)
        self.version = network.version
        self.gateway = str(next(network.hosts()))  # the bridge's own address: the first of the range
        self.prefix_length = network.prefixlen
        self.pool = PodAddresses(cidr, memory, clock)

    def on_link(self, address: str) -> str:
        return f"{address}/{self.prefix_length}"


class PodNetwork:
    """Namespaces below `directory`, one per pod uid."""

    def __init__(self, wiring: Wiring, network: NodeNetwork, directory: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        self._wiring = wiring
        self._network = network
        self._directory = directory
        first = _Range(network.pod_cidr, directory.with_name("free-addresses"), clock)
        self._ranges = {first.version: first}
        if network.second_pod_cidr:
            second = _Range(network.second_pod_cidr, directory.with_name("free-addresses-second"), clock)
            self._ranges[second.version] = second
        self._addresses: dict[str, tuple[str, ...]] = {}

    def open(self) -> None:
        """Make the bridge and let the node forward."""
        gateways = [part.on_link(part.gateway) for part in self._ranges.values()]
        self._wiring.ensure_bridge(self._network.bridge, addresses=gateways)
        sysctls = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
        self._wiring.set_sysctls({sysctls[version]: "1" for version in self._ranges})

    def path(self, uid: str) -> Path:
        """The pod's network namespace."""
        return self._directory / uid

    def addresses(self, uid: str) -> tuple[str, ...]:
        """Of an attached pod: one of each family, in the order of the ranges."""
        return self._addresses[uid]

    def restore(self, uid: str, *addresses: str) -> bool:
        """A restarted agent's pod keeps its addresses; False if its namespace is gone."""
        stands = self.path(uid) in self._wiring.attachments(self._network.bridge)
        for address in addresses:
            part = self._range_of(address)
            if part is not None and stands:
                part.pool.reserve(address)
            elif part is not None:
                part.pool.retire(address)
        if stands:
            self._addresses[uid] = addresses
        return stands

    async def attach(self, uid: str, *, users: Path | None = None) -> str:
        """Make the namespace and connect it; its first address. Repeatable. Raises `NetworkError`,
        `PoolExhaustedError`. It belongs to the user namespace at `users`; None: to the node's."""
        addresses = self._addresses.get(uid) or self._take()
        self._addresses[uid] = addresses
        self._wiring.create_namespace(self.path(uid), users=users)
        ends = [(part.on_link(address), part.gateway) for address in addresses if (part := self._range_of(address))]
        (address, gateway), *further = ends
        self._wiring.attach(
            self.path(uid), bridge=self._network.bridge, address=address, gateway=gateway, further=further
        )
        return addresses[0]

    async def detach(self, uid: str) -> None:
        """Undo `attach`; the addresses become free. No error when there is nothing."""
        path = self.path(uid)
        try:
            # About 20 ms of waiting in the kernel.
            await asyncio.to_thread(self._wiring.detach, path)
        finally:
            self._wiring.delete_namespace(path)
            self._release(self._addresses.pop(uid, ()))

    def _take(self) -> tuple[str, ...]:
        taken: list[str] = []
        try:
            for part in self._ranges.values():
                taken.append(part.pool.take())
        except PoolExhaustedError:
            self._release(taken)
            raise
        return tuple(taken)

    def _release(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            if part := self._range_of(address):
                part.pool.release(address)

    def _range_of(self, address: str) -> _Range | None:
        """The range of its family; None when pods have no address of it any more."""
        return self._ranges.get(ipaddress.ip_address(address).version)

    def route_to(self, nodes: Collection[Node], own: str) -> None:
        """Routes to every other node's pods; a range without an address of its family to go by is left out."""
        routes: list[Route] = []
        for node in nodes:
            if node.metadata.name == own:
                continue
            addresses = [one.address for one in node.status.addresses if one.type == "InternalIP"]
            by_version = {ipaddress.ip_address(address).version: address for address in reversed(addresses)}
            routes.extend(
                Route(destination=cidr, via=(by_version[version],))
                for cidr in (node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ()))
                if (version := ipaddress.ip_network(cidr).version) in by_version
            )
        self._wiring.ensure_routes(routes)


__all__ = ["NetworkError", "NodeNetwork", "PodNetwork"]
