"""Sets of addresses, asked for every packet."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
KNOWN_MAX = 10_000
"""Addresses whose membership is remembered; when full, all are forgotten."""


def parse_network(text: str) -> Network:
    """`10.0.0.0/8`, `::1`, `any`-free. Raises `ValueError`."""
    return ipaddress.ip_network(text, strict=False)


class ClientSet:
    """Membership, one dict lookup for an address seen before."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, client: str) -> bool:
        known = self._known.get(client)
        if known is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            known = self._known[client] = self._look(client)
        return known

    def _look(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
