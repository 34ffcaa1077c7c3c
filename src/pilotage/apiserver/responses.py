"""Bytes back to the client: JSON bodies, Status errors, compression, streams.

Stands apart so that every answer looks alike. Large answers are compressed only for clients that are not on this
machine: on loopback a gzip of ten megabytes costs more than sending them.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from pilotage.api.status import ApiError
from pilotage.apiserver.core.forms import Collection

JSON = "application/json"
# kube-apiserver's own threshold.
GZIP_BYTES_MIN = 128 * 1024
STREAM_BYTES_MIN = 512 * 1024
# Well below every transport's high-water mark: with nothing before it, it is taken at once.
PROMPT_BYTES_MAX = 16 * 1024
_encode = msgspec.json.Encoder().encode


def json(
    data: bytes, *, status: int = 200, content_type: str = JSON, warnings: Iterable[str] = (), headers: Any = ()
) -> web.Response:
    """A complete JSON answer."""
    fields: CIMultiDict[str] = CIMultiDict(headers)
    fields["Content-Type"] = content_type
    fields["Cache-Control"] = "no-cache, private"
    for warning in warnings:
        fields.add("Warning", f"299 - {_quoted(warning)}")
    return web.Response(body=data, status=status, headers=fields)


def document(value: Mapping[str, Any], *, status: int = 200, warnings: Iterable[str] = ()) -> web.Response:
    """A document that is encoded here."""
    return json(_encode(value), status=status, warnings=warnings)


def text(value: str, *, status: int = 200) -> web.Response:
    """A plain text answer."""
    return web.Response(text=value, status=status)


def error(failure: ApiError) -> web.Response:
    """A Status."""
    headers = {}
    if failure.details.retry_after_seconds:
        headers["Retry-After"] = str(failure.details.retry_after_seconds)
    if failure.code == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="kubernetes-master"'
    return json(_encode(failure.to_wire()), status=failure.code, headers=headers)


async def compress(request: web.BaseRequest, response: web.Response) -> web.Response:
    """Compress a large body if the client takes gzip and is not local; off the event loop's thread."""
    body = response.body
    if isinstance(body, bytes) and len(body) >= GZIP_BYTES_MIN and _wants_gzip(request):
        response.body = await asyncio.to_thread(_gzip, body)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
    return response


async def collection(request: web.BaseRequest, found: Collection) -> web.StreamResponse:
    """A list: whole if it is small or to be compressed, else chunk by chunk, at the pace of the client."""
    if found.size < STREAM_BYTES_MIN or _wants_gzip(request):
        return await compress(request, json(found.whole()))
    response = web.StreamResponse(headers={"Content-Type": JSON, "Cache-Control": "no-cache, private"})
    response.content_length = found.size
    await response.prepare(request)
    for chunk in found.chunks:
        await response.write(chunk)
    await response.write_eof()
    return response


async def send(request: web.BaseRequest, response: web.StreamResponse, data: bytes, timeout_s: float) -> None:
    """Write a piece of a stream. Raises TimeoutError when the client has not made room for it in time."""
    transport = request.transport
    # A timer costs more than the write. It is needed only where the write can wait: behind what is not yet sent.
    if len(data) <= PROMPT_BYTES_MAX and transport is not None and not transport.get_write_buffer_size():
        await response.write(data)
        return
    async with asyncio.timeout(timeout_s):
        await response.write(data)


def send_at_once(request: web.BaseRequest, data: bytes) -> bool:
    """Write a piece of a stream that has begun, in chunks, if the connection takes it without waiting; say whether.

    A chunk of its own (RFC 9112, section 7.1), past aiohttp's writer, which cannot write without a task.
    """
    transport = request.transport
    if (
        transport is None
        or len(data) > PROMPT_BYTES_MAX
        or request.version < HttpVersion11
        or transport.is_closing()
        or transport.get_write_buffer_size()
    ):
        return False
    transport.write(b"%x\r\n%b\r\n" % (len(data), data))
    return True


def _wants_gzip(request: web.BaseRequest) -> bool:
    return "gzip" in request.headers.get("Accept-Encoding", "") and not _is_loopback(request.remote)


def _gzip(data: bytes) -> bytes:
    compressor = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def _is_loopback(address: str | None) -> bool:
    return address is None or address.startswith("127.") or address == "::1"


def _quoted(message: str) -> str:
    # RFC 9110 §5.6.4 quoted-string; a header carries no line breaks and no more than it must.
    bounded = "".join(letter if letter.isprintable() else " " for letter in message[:1_000])
    return '"' + bounded.replace("\\", "\\\\").replace('"', '\\"') + '"'
