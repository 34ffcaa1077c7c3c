"""DNS over HTTPS between the HTTP request and the DNS message (RFC 8484). No connection, no HTTP version.

Apart from `doh`, which speaks HTTP/1.1 and HTTP/2: both ask here what a request means and what its response says.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from struct import Struct
from urllib.parse import parse_qs, urlsplit

from pilotage.dns.core.record import OPT, SOA
from pilotage.dns.core.wire import HEADER_BYTES, Malformed, skip_name

PATH = "/dns-query"
MEDIA_TYPE = "application/dns-message"
MESSAGE_BYTES_MAX = 4_096
"""A query is a question and a few options."""
URL_BYTES_MAX = 6_144
"""Holds such a query in base64."""
_COUNTS = Struct("!HHHH")
_RECORD = Struct("!HHIH")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that holds no query: the status to answer with."""

    status: int


def read_request(method: str, target: str, content_type: str, body: bytes) -> bytes | Refusal:
    """The DNS message of a request (RFC 8484 §4.1)."""
    if len(target) > URL_BYTES_MAX:
        return Refusal(414)
    try:
        url = urlsplit(target)
        parameters = parse_qs(url.query, max_num_fields=8)
    except ValueError:
        return Refusal(400)
    if url.path != PATH:
        return Refusal(404)
    if method == "POST":
        if content_type.partition(";")[0].strip().lower() != MEDIA_TYPE:
            return Refusal(415)
        return body if HEADER_BYTES <= len(body) <= MESSAGE_BYTES_MAX else Refusal(413 if body else 400)
    if method != "GET":
        return Refusal(405)
    values = parameters.get("dns", [])
    if len(values) != 1:
        return Refusal(400)
    try:
        text = values[0].encode("ascii")
        message = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return Refusal(400)
    return message if len(message) >= HEADER_BYTES else Refusal(400)


def response_fields(reply: bytes) -> list[tuple[str, str]]:
    """The header fields of a response that carries `reply`."""
    return [
        ("content-type", MEDIA_TYPE),
        ("content-length", str(len(reply))),
        ("cache-control", f"max-age={smallest_ttl(reply)}"),
    ]


def smallest_ttl(reply: bytes) -> int:
    """How long an HTTP cache may keep a reply (RFC 8484 §5.1): 0 for one without records."""
    questions, *counts = _COUNTS.unpack_from(reply, 4)
    position, found = HEADER_BYTES, []
    try:
        for _ in range(questions):
            position = skip_name(reply, position) + 4
        for _ in range(sum(counts)):
            position = skip_name(reply, position)
            rtype, _, ttl, length = _RECORD.unpack_from(reply, position)
            position += _RECORD.size + length
            if rtype == SOA and not counts[0]:
                ttl = min(ttl, int.from_bytes(reply[position - 4 : position], "big"))  # RFC 2308 §5
            if rtype != OPT:
                found.append(ttl)
    except (Malformed, ValueError, IndexError):
        return 0
    return min(found, default=0)
