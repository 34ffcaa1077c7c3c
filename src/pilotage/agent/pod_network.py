"""Addresses and network namespaces of this node's pods, and routes to other nodes' pods.

Stands apart because it is all the agent knows of networking; `pilotage.network` does the kernel's part. The pool is
rebuilt from the pods' own memory when the agent restarts, so a pod keeps its address.
"""

import asyncio
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pilotage.agent.pod_addresses import PodAddresses
from pilotage.api.core_v1 import Node
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.network import NetworkError, Route, Wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNetwork:
    """What the node's network looks like."""

    bridge: str
    pod_cidr: str

    @property
    def gateway(self) -> str:
        """The bridge's own address: the first of the range."""
        return str(next(ipaddress.ip_network(self.pod_cidr).hosts()))

    @property
    def prefix_length(self) -> int:
        return ipaddress.ip_network(self.pod_cidr).prefixlen


class PodNetwork:
    """Namespaces below `directory`, one per pod uid."""

    def __init__(self, wiring: Wiring, network: NodeNetwork, directory: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        self._wiring = wiring
        self._network = network
        self._directory = directory
        self._pool = PodAddresses(network.pod_cidr, directory.with_name("free-addresses"), clock)
        self._addresses: dict[str, str] = {}

    def open(self) -> None:
        """Make the bridge and let the node forward."""
        gateway = f"{self._network.gateway}/{self._network.prefix_length}"
        self._wiring.ensure_bridge(self._network.bridge, addresses=[gateway])
        self._wiring.set_sysctls({"net.ipv4.ip_forward": "1"})

    def path(self, uid: str) -> Path:
        """The pod's network namespace."""
        return self._directory / uid

    def restore(self, uid: str, address: str) -> bool:
        """A restarted agent's pod keeps its address; False if its namespace is gone."""
        if self.path(uid) not in self._wiring.attachments(self._network.bridge):
            self._pool.retire(address)
            return False
        self._pool.reserve(address)
        self._addresses[uid] = address
        return True

    async def attach(self, uid: str) -> str:
        """Make the namespace and connect it; its address. Repeatable. Raises `NetworkError`, `PoolExhaustedError`."""
        address = self._addresses.get(uid) or self._pool.take()
        self._addresses[uid] = address
        self._wiring.create_namespace(self.path(uid))
        self._wiring.attach(
            self.path(uid),
            bridge=self._network.bridge,
            address=f"{address}/{self._network.prefix_length}",
            gateway=self._network.gateway,
        )
        return address

    async def detach(self, uid: str) -> None:
        """Undo `attach`; the address becomes free. No error when there is nothing."""
        path = self.path(uid)
        try:
            # About 20 ms of waiting in the kernel.
            await asyncio.to_thread(self._wiring.detach, path)
        finally:
            self._wiring.delete_namespace(path)
            address = self._addresses.pop(uid, None)
            if address is not None:
                self._pool.release(address)

    def route_to(self, nodes: Collection[Node], own: str) -> None:
        """Routes to every other node's pods; a node without an address or a range is left out."""
        routes: list[Route] = []
        for node in nodes:
            address = next((one.address for one in node.status.addresses if one.type == "InternalIP"), "")
            if node.metadata.name == own or not address:
                continue
            routes.extend(
                Route(destination=cidr, via=(address,))
                for cidr in (node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ()))
            )
        self._wiring.ensure_routes(routes)


__all__ = ["NetworkError", "NodeNetwork", "PodNetwork"]
