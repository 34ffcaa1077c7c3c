"""The authoritative server: reading its zone, changing it (RFC 5936, RFC 2136), all signed.

By TCP throughout: a zone does not fit a datagram, and an update that got lost would be asked for again later anyway.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.tsigkeyring
import dns.update
import dns.xfr
import dns.zone

from pilotage.dns.chain.exchange import Address
from pilotage.dns.core.name import Name
from pilotage.dns.external.core.plan import TYPES, Change
from pilotage.dns.external.core.plan import Zone as ZoneContent
from pilotage.kit.errors import UsageError

T = TypeVar("T")

TIMEOUT_S = 10.0
OWNER_TTL_S = 300
_FORBIDDEN = (dns.rcode.REFUSED, dns.rcode.NOTAUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A TSIG key."""

    name: str
    algorithm: str
    secret: str
    """Base64."""


def parse_key(text: str) -> Key:
    """`ALGORITHM:NAME:SECRET`, lines of comments aside. Raises `UsageError`, without the secret in it."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    parts = lines[0].split(":") if len(lines) == 1 else []
    if len(parts) != 3:
        raise UsageError("a TSIG key is one line ALGORITHM:NAME:SECRET")
    algorithm, name, secret = parts
    try:
        base64.b64decode(secret, validate=True)
        if dns.name.from_text(algorithm) not in dns.tsig.mac_sizes:
            raise ValueError(algorithm)
    except ValueError as error:
        raise UsageError(f"the TSIG key {name!r} has an unknown algorithm or a secret that is not base64") from error
    return Key(name=name, algorithm=algorithm, secret=secret)


class ServerRefused(Exception):
    """What the server said."""


class ServerAway(ServerRefused):
    """It said nothing, or nothing that can be believed: asking for the next name is of no use."""


class AuthoritativeServer:
    """One zone on one server."""

    def __init__(self, address: Address, zone: Name, key: Key | None) -> None:
        self._address = address
        self._zone = dns.name.Name((*zone, b""))
        self._key_name = key.name if key is not None else ""
        self._keyring = dns.tsigkeyring.from_text({key.name: (key.algorithm, key.secret)}) if key is not None else None

    async def read(self) -> ZoneContent:
        """The whole zone. Raises `ServerRefused`."""
        zone = dns.zone.Zone(self._zone, relativize=False)
        query, _ = dns.xfr.make_query(zone, keyring=self._keyring)
        try:
            await _cancellable(
                dns.asyncquery.inbound_xfr(
                    self._address.host, zone, query, port=self._address.port, timeout=TIMEOUT_S, lifetime=TIMEOUT_S
                )
            )
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise ServerAway(f"transfer of {self._zone} by {self._address}: {self._explain(error)}") from error
        content: dict[Name, dict[str, tuple[int, frozenset[str]]]] = {}
        for owner, rdataset in zone.iterate_rdatasets():
            name = tuple(label.lower() for label in owner.labels if label)
            values = frozenset(_text(rdata.to_text()) for rdata in rdataset)
            content.setdefault(name, {})[dns.rdatatype.to_text(rdataset.rdtype)] = (rdataset.ttl, values)
        return content

    async def apply(self, change: Change) -> bool:
        """Whether the server took it; False when its prerequisites did not hold. Raises `ServerRefused`."""
        update = dns.update.UpdateMessage(self._zone, keyring=self._keyring)
        name, beside = dns.name.Name((*change.name, b"")), dns.name.Name((*change.owner_name, b""))
        if change.must_have:
            update.present(beside, "TXT", f'"{change.must_have}"')
        else:
            update.absent(beside, "TXT")
            for kind in TYPES:
                update.absent(name, kind)
        for kind in TYPES:
            update.delete(name, kind)
        update.delete(beside, "TXT")
        for ttl, kind, value in change.add:
            update.add(name, ttl, kind, value)
        if change.owner_text:
            update.add(beside, OWNER_TTL_S, "TXT", f'"{change.owner_text}"')
        try:
            response = await _cancellable(
                dns.asyncquery.tcp(update, self._address.host, port=self._address.port, timeout=TIMEOUT_S)
            )
        except (dns.exception.DNSException, OSError, EOFError) as error:
            failure = ServerRefused if isinstance(error, dns.tsig.PeerError) else ServerAway
            raise failure(f"update of {name} at {self._address}: {self._explain(error)}") from error
        if response.rcode() in (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.YXDOMAIN, dns.rcode.NXDOMAIN):
            return False
        if response.rcode() != dns.rcode.NOERROR:
            said = dns.rcode.to_text(response.rcode())
            hint = "; its rules must allow updates" if response.rcode() in _FORBIDDEN else ""
            raise ServerRefused(f"update of {name} at {self._address}: {said}{hint}{self._by_whom(hint)}")
        return True

    def _explain(self, error: BaseException) -> str:
        """For people, who can tell a wrong key from a wrong rule."""
        match error:
            case dns.tsig.PeerBadKey():
                return f"the server does not know the key {self._key_name!r}, or not for this (BADKEY)"
            case dns.tsig.PeerBadSignature():
                return f"the server has another secret or algorithm for the key {self._key_name!r} (BADSIG)"
            case dns.tsig.PeerBadTime():
                return "this machine's clock and the server's differ too much (BADTIME)"
            case dns.tsig.BadSignature() | dns.tsig.PeerError():
                return f"the answer is not signed with the key {self._key_name!r}: {error}"
            case dns.xfr.TransferError() if error.rcode in _FORBIDDEN:
                hint = "; its rules must allow transfers"
                return f"{dns.rcode.to_text(error.rcode)}{hint}{self._by_whom(hint)}"
            case OSError():
                return error.strerror or "no answer"
        return str(error) or type(error).__name__

    def _by_whom(self, hint: str) -> str:
        if not hint:
            return ""
        return f" by the key {self._key_name!r}" if self._key_name else " by this machine, or a key must be given"


async def _cancellable(exchange: Awaitable[T]) -> T:
    """What dnspython answers, by way of `asyncio.wait_for`.

    Before Python 3.12 that forgets a cancellation which comes together with what it waits for: whoever was told to end
    would go on for ever.
    """
    result = await exchange
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return result


def _text(value: str) -> str:
    return value[1:-1] if value.startswith('"') else value
