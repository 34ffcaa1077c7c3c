"""Hears what others commit to nf_tables: in which tables and sets, and who.

Apart from the element socket because it only listens. While nobody listens the kernel makes no notifications at all,
and ours would be most of them (one an element), so `deaf` leaves the group for the time of an own transaction; what
others commit meanwhile is noticed by `core.generations`. Belongs to the network namespace in which it was opened.

Specification: netlink(7), NFNLGRP_NFTABLES.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from pilotage.nft.core import wire
from pilotage.nft.core.generations import Foreign, Place

_NETLINK_NETFILTER, _GROUP = 12, 7
_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 270, 1, 2
_RECEIVE_BYTES = 256 << 10
# Datagrams read in one go; whoever commits faster is treated as if some had been lost.
_READS_MAX = 2000


class Monitor:
    """Listens from the first `heard` on."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._joined = False

    def heard(self) -> Foreign:
        """What was notified since the last call."""
        if not self._joined:
            self._join()
            return Foreign(complete=False)
        generations, places, by = set[int](), set[Place](), dict[str, None]()
        complete = True
        for _ in range(_READS_MAX):
            try:
                data = self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: the queue was full; what is in it may still say where
                complete = False
                continue
            for message in wire.messages(data):
                if message.kind == wire.NEWGEN:
                    commit = wire.read_commit(message.payload)
                    generations.add(commit.generation)
                    by[commit.by] = None
                elif (place := wire.read_change(message.kind, message.payload)) is not None:
                    places.add(place)
        else:
            complete = False
        return Foreign(generations=frozenset(generations), places=frozenset(places), by=tuple(by), complete=complete)

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Nothing is heard inside."""
        if not self._joined:
            yield
            return
        self._socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, _GROUP)
        try:
            yield
        finally:
            self._join()

    def _join(self) -> None:
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        self._joined = True

    def close(self) -> None:
        self._socket.close()
