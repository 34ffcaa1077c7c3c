"""The listening sockets of one process: those that the process before it has given, else bound here.

Apart from `server` because the listeners of every transport open theirs the same way, and `handover` passes all of them
on without knowing what they are for.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from pilotage.dns.chain.exchange import Address

Key = tuple[str, str, int]
"""Transport, host, port."""
RECEIVE_BUFFER_BYTES = 4 << 20
"""Asks the kernel to hold bursts of some ten thousand queries; it may grant less."""


class Sockets:
    """By transport (`udp`, `tcp`, `tls`, `https`, `health`) and address."""

    def __init__(self, given: Mapping[Key, socket.socket], *, reuse_port: bool = False) -> None:
        self._given = dict(given)
        self._reuse_port = reuse_port
        self.held: dict[Key, socket.socket] = {}
        """With the ports really taken."""

    def open(self, transport: str, address: Address) -> socket.socket:
        """Port 0 takes any. Raises `OSError`."""
        opened = self._given.pop((transport, address.host, address.port), None) or self._bind(transport, address)
        self.held[transport, address.host, opened.getsockname()[1]] = opened
        return opened

    def open_pair(self, address: Address) -> tuple[Address, socket.socket, socket.socket]:
        """For UDP and for TCP, on the same port, with the port. Raises `OSError`."""
        attempts = 1 if address.port else 20  # a free UDP port may be taken for TCP
        while True:
            attempts -= 1
            datagrams = self.open("udp", address)
            found = Address(address.host, datagrams.getsockname()[1])
            try:
                return found, datagrams, self.open("tcp", found)
            except OSError:
                self.held.pop(("udp", found.host, found.port)).close()
                if not attempts:
                    raise

    def close(self) -> None:
        """What was given and not opened, too."""
        for each in (*self.held.values(), *self._given.values()):
            each.close()

    def _bind(self, transport: str, address: Address) -> socket.socket:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM)
        try:
            bound.setblocking(False)
            if self._reuse_port:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family is socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if transport == "udp":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            else:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((address.host, address.port))
        except OSError:
            bound.close()
            raise
        return bound
