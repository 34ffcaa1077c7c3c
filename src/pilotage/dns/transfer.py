"""Who may copy whole zones, and the table's view for them.

The shell's half of `core.transfer`: knows peers and takes the view. Asked by the stream listeners for every message; by
UDP a transfer is refused (RFC 5936 §4.2), which also keeps whole zones from being sent to forged addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator, Iterator, Sequence

from pilotage.dns.core.record import Rcode
from pilotage.dns.core.table import Table
from pilotage.dns.core.transfer import is_transfer, transfer_messages
from pilotage.dns.core.wire import Malformed, parse_query, rcode_reply

UNDER_WAY_MAX = 4
"""Transfers at a time, each with its own view of the cluster; further ones are refused and come again."""


class Transfers:
    """Answers AXFR and IXFR of allowed peers."""

    def __init__(self, table: Table, allowed: Sequence[str]) -> None:
        """`allowed` are addresses and CIDR ranges. Raises `ValueError`."""
        self._table = table
        self._allowed = [ipaddress.ip_network(text, strict=False) for text in allowed]
        self._under_way = 0

    def answer(self, data: bytes, peer: str) -> Generator[bytes, None, None] | None:
        """The messages to send, each made when asked for; None for any other question. Close it when done."""
        try:
            query = parse_query(data)
        except Malformed:
            return None
        if not is_transfer(query):
            return None
        if not self._may(peer) or not self._table.synced or self._under_way >= UNDER_WAY_MAX:
            return _one(rcode_reply(query, Rcode.REFUSED))
        return self._counted(transfer_messages(data, query, self._table.view()))

    def _may(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._allowed)

    def _counted(self, messages: Iterator[bytes]) -> Generator[bytes, None, None]:
        self._under_way += 1
        try:
            yield from messages
        finally:
            self._under_way -= 1


def _one(reply: bytes) -> Generator[bytes, None, None]:
    yield reply
