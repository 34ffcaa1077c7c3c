"""The socket to nf_tables for elements: atomic batches out, dumps in.

Apart from `network`'s netlink because packages of this layer do not know each other, and because a batch differs from
a request: one send, one acknowledgement, nothing half done. Fed by the pure `core.wire`; called by `KernelNft` alone.
Belongs to the network namespace in which it was opened.

Specification: netlink(7); nfnetlink batches.
"""

import errno as codes
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence

from pilotage.nft.core import rulewire, wire
from pilotage.nft.core.objects import AddElements, Chain, DeleteElements, ElementValue, Set, Table, Transaction
from pilotage.nft.errors import NftError

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
# 5,000 Services with 250,000 endpoints make a batch of 20 MB; a netlink message is charged with its own size and slack.
_SEND_BYTES_MAX = 256 << 20
_RECEIVE_BYTES = 256 << 10
_SEQUENCE_MAX = 0x7FFFFFFF
_LOOKUPS_AT_ONCE = 100  # so that the answers fit into the host's default receive buffer (208 KiB)
_DUMPS_MAX = 20  # listings of one set before giving up because others keep changing it
# The kernel answers while sendmsg runs; a silence this long is a broken kernel.
_REPLY_TIMEOUT_S = 60


class ElementSocket:
    """Not safe for two threads at once."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        # Not `settimeout`: with that, Python waits before a MSG_DONTWAIT too.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", _REPLY_TIMEOUT_S, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._grow(_SO_SNDBUFFORCE, socket.SO_SNDBUF)
        self._grow(_SO_RCVBUFFORCE, socket.SO_RCVBUF)
        self._sequence = 0

    def _grow(self, forced: int, polite: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, forced, _SEND_BYTES_MAX)
        except PermissionError:
            # Inside a user namespace only the host's limit (net.core.wmem_max) is available.
            self._socket.setsockopt(socket.SOL_SOCKET, polite, _SEND_BYTES_MAX)

    def close(self) -> None:
        self._socket.close()

    def apply(self, transaction: Transaction) -> None:
        """Raises `NftError` with the first refusal; EMSGSIZE when the batch exceeds the send buffer."""
        commands = [c for c in transaction.commands if isinstance(c, AddElements | DeleteElements)]
        self._commit(wire.batch(commands, self._next()), "elements")

    def put_rules(self, table: Table, chain: Chain) -> None:
        """Append the chain's rules to it, as one transaction."""
        self._commit(rulewire.rule_batch(table, chain, self._next()), "rules")

    def _commit(self, batch: bytes, what: str) -> None:
        self._drain()
        self._send(batch)
        # The kernel carries a batch out before sendmsg returns, so its refusals, if any, are queued by now.
        if refusal := self._drain():
            raise NftError(f"nf_tables refused {what}: {os.strerror(refusal)}", refusal)

    def elements(self, table: Table, target: Set, *, steady: bool) -> dict[bytes, ElementValue]:
        """Every element of a set now in the kernel. Raises `NftError` (ENOENT) if there is no such set.

        Unless `steady`, a listing during which somebody committed is good enough.
        """
        found: dict[bytes, ElementValue] = {}
        for message in self._dump(lambda sequence: wire.list_elements(table, target, sequence), steady=steady):
            found.update(wire.read_elements(message, target))
        return found

    def lookup(self, table: Table, target: Set, keys: Sequence[bytes]) -> dict[bytes, ElementValue]:
        """Those of `keys` that are in a set. Raises `NftError` for anything but their absence."""
        found: dict[bytes, ElementValue] = {}
        for start in range(0, len(keys), _LOOKUPS_AT_ONCE):
            part = keys[start : start + _LOOKUPS_AT_ONCE]
            sequences = [self._next() for _ in part]
            self._send(wire.get_elements(table, target, part, sequences[0]))
            unanswered = set(sequences)
            while unanswered:
                for message in self._receive():
                    if message.sequence not in unanswered:
                        continue
                    unanswered.remove(message.sequence)
                    if message.kind != wire.NLMSG_ERROR:
                        found.update(wire.read_elements(message.payload, target))
                    elif (refusal := wire.read_error(message.payload)) != codes.ENOENT:
                        raise NftError(f"nf_tables cannot look up: {os.strerror(refusal)}", refusal)
        return found

    def objects(self, kind: int, table: Table) -> list[tuple[str, bytes]]:
        """(name, meaning) of tables, chains, rules or sets, in the kernel's order; see `wire.read_object`."""
        dump = self._dump(lambda sequence: wire.list_objects(kind, table, sequence))
        return [found for payload in dump if (found := wire.read_object(payload, kind, table)) is not None]

    def generation(self) -> int:
        """The counter that every committed transaction increases, whoever made it."""
        sequence = self._next()
        self._send(wire.get_generation(sequence))
        for message in self._receive():
            if message.sequence == sequence and message.kind == wire.NEWGEN:
                return wire.read_generation(message.payload)
        raise NftError("nf_tables did not state its generation")

    def _dump(self, request: Callable[[int], bytes], *, steady: bool = True) -> list[bytes]:
        for _ in range(_DUMPS_MAX):
            sequence = self._next()
            self._send(request(sequence))
            payloads, interrupted = self._answers(sequence)
            if not (interrupted and steady):
                return payloads
        raise NftError(f"nf_tables changed during each of {_DUMPS_MAX} listings", codes.EINTR)

    def _answers(self, sequence: int) -> tuple[list[bytes], bool]:
        payloads: list[bytes] = []
        interrupted = False
        while True:
            for message in self._receive():
                if message.sequence != sequence:
                    continue
                interrupted |= message.interrupted
                if message.kind == wire.NLMSG_ERROR:
                    refusal = wire.read_error(message.payload)
                    raise NftError(f"nf_tables cannot list: {os.strerror(refusal)}", refusal)
                if message.kind == wire.NLMSG_DONE:
                    return payloads, interrupted
                payloads.append(message.payload)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise NftError(f"cannot send {len(data)} bytes to nf_tables: {error}", error.errno or 0) from error

    def _receive(self) -> Iterator[wire.Message]:
        try:
            return wire.messages(self._socket.recv(_RECEIVE_BYTES))
        except BlockingIOError as error:
            raise NftError("nf_tables is silent", codes.ETIMEDOUT) from error
        except OSError as error:
            raise NftError(f"cannot read from nf_tables: {error}", error.errno or 0) from error

    def _drain(self) -> int:
        """Read what is queued; the first refusal in it, or 0."""
        refusal = 0
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return refusal
            except OSError as error:  # ENOBUFS: so many refusals that some were lost
                refusal = refusal or error.errno or codes.EIO
                continue
            for message in wire.messages(data):
                if message.kind == wire.NLMSG_ERROR:
                    refusal = refusal or wire.read_error(message.payload)

    def _next(self) -> int:
        self._sequence = self._sequence + 1 if self._sequence < _SEQUENCE_MAX else 1
        return self._sequence
