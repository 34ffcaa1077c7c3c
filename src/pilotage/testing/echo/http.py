"""HTTP/1.1 messages over asyncio streams: just enough for a small server and a small client.

Hand-written because the usual server library takes longer to import than this program may take to start.
Called by `server` (requests) and `upstream` (responses). Leaves out: trailers, upgrades, pipelined writes, compression.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

HEAD_BYTES_MAX = 64 * 1024
"""Envoy's own default limit for request headers is 60 KiB; more than that never gets here."""
BODY_BYTES_MAX = 1024 * 1024
"""An echo needs no more; larger bodies are refused with 413."""
CHUNK_LINE_BYTES_MAX = 1024


class HttpError(Exception):
    """The peer broke the protocol or a bound; `status` is what a server should answer."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, body included."""

    method: str
    path: str
    query: dict[str, str]
    """Last value wins for a repeated name."""
    headers: dict[str, str]
    """Lower-case names; repeated headers joined with ", " (RFC 9110 §5.2)."""
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One response, body included."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_head(data: bytes) -> tuple[list[str], dict[str, str]]:
    """The three words of the start line, and the headers. Raises `HttpError` (400) on anything malformed."""
    try:
        lines = data.decode("latin-1").rstrip("\r\n").split("\r\n")
        start = lines[0].split(" ", 2)
        if len(start) < 2:
            raise ValueError(lines[0])
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, separator, value = line.partition(":")
            # RFC 9112 §5.1: no whitespace between the field name and the colon.
            if not separator or not name or name != name.strip():
                raise ValueError(line)
            key = name.lower()
            value = value.strip()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
    except ValueError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"malformed head: {str(error)[:100]!r}") from error
    return start, headers


async def read_head(reader: asyncio.StreamReader) -> tuple[list[str], dict[str, str]] | None:
    """The next head on the connection; None when the peer closed it between messages."""
    try:
        return parse_head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise HttpError(HTTPStatus.BAD_REQUEST, "connection closed inside a head") from error
    except asyncio.LimitOverrunError as error:
        raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head too large") from error


async def read_body(reader: asyncio.StreamReader, headers: Mapping[str, str], *, until_close: bool) -> bytes:
    """The body that `headers` announce (RFC 9112 §6.3); `until_close` for responses without a length."""
    try:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return await _read_chunks(reader)
        if "content-length" in headers:
            length = headers["content-length"]
            if not length.isdecimal():
                raise HttpError(HTTPStatus.BAD_REQUEST, f"content-length {length[:20]!r}")
            if int(length) > BODY_BYTES_MAX:
                raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body too large")
            return await reader.readexactly(int(length))
    except asyncio.IncompleteReadError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, "connection closed inside a body") from error
    except asyncio.LimitOverrunError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, "chunk line too long") from error
    if not until_close:
        return b""
    body = await reader.read(BODY_BYTES_MAX + 1)
    while len(body) <= BODY_BYTES_MAX and (more := await reader.read(BODY_BYTES_MAX)):
        body += more
    if len(body) > BODY_BYTES_MAX:
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body too large")
    return body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        try:
            size = int(line[:CHUNK_LINE_BYTES_MAX].split(b";")[0].strip(), 16)
        except ValueError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, "chunk size") from error
        if size < 0 or len(body) + size > BODY_BYTES_MAX:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body too large")
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return bytes(body)
        body += await reader.readexactly(size)
        await reader.readexactly(2)


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next request, its body included; None at the end of the connection. Raises `HttpError`."""
    head = await read_head(reader)
    if head is None:
        return None
    start, headers = head
    if len(start) != 3 or not start[2].startswith("HTTP/1."):
        raise HttpError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "not HTTP/1")
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await read_body(reader, headers, until_close=False)
    connection = headers.get("connection", "").lower()
    try:
        url = urlsplit(start[1])
    except ValueError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, "malformed target") from error
    return Request(
        method=start[0],
        path=url.path or "/",
        query=dict(parse_qsl(url.query, keep_blank_values=True)),
        headers=headers,
        body=body,
        keep_alive="close" not in connection if start[2] == "HTTP/1.1" else "keep-alive" in connection,
    )


async def read_response(reader: asyncio.StreamReader, *, method: str) -> Response:
    """The response to a request with `method`; interim (1xx) responses are skipped. Raises `HttpError`."""
    while True:
        head = await read_head(reader)
        if head is None:
            raise HttpError(HTTPStatus.BAD_GATEWAY, "connection closed without an answer")
        start, headers = head
        if not start[0].startswith("HTTP/1.") or not start[1].isdecimal():
            raise HttpError(HTTPStatus.BAD_GATEWAY, "not an HTTP/1 answer")
        status = int(start[1])
        if status >= 200:
            break
    empty = method == "HEAD" or status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    body = b"" if empty else await read_body(reader, headers, until_close=True)
    return Response(status=status, headers=headers, body=body)


def encode_response(status: int, body: bytes, headers: Mapping[str, str], *, head_only: bool = False) -> bytes:
    """A whole response with its length; `head_only` for HEAD."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if head_only else head + body


def encode_request(method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A whole request with its length."""
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
