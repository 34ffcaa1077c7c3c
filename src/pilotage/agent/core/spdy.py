"""SPDY/3.1 framing, the server's half: what kubectl multiplexes port-forward and its older exec over.

Stands apart because it is a protocol with a life of its own: bytes in, events out, bytes to send; which connection
carries them (an upgraded one, or the messages of a WebSocket, KEP-4006) is for `agent.spdy_session`. Frames are
delivered as they arrive, a long data frame in pieces, so that what is held is bounded by the header limits alone.

Differs from the draft: windows are neither kept nor announced, because the only peer there is (moby/spdystream in
client-go) does neither; the pace is that of the connection as a whole. Leaves out pushed streams, credentials, and
settings, which are skipped.
Specification: draft-mbelshe-httpbis-spdy-00 (SPDY/3, §2 framing, §2.6.10 header block) and its 3.1 revision.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from pilotage.kit.errors import PilotageError

VERSION = 3
# kubectl sends four short headers; a block this long, compressed or not, is a mistake or an attack.
HEADER_BYTES_MAX = 16 * 1024
HEADERS_MAX = 64
# Two for each connection that goes through a port-forward, five for an exec.
STREAMS_MAX = 1024
FIN = 0x01
_CONTROL = 0x8000
_STREAM_MASK = 0x7FFF_FFFF
_DATA_BYTES_MAX = (1 << 24) - 1  # the length field has 24 bits


class SpdyError(PilotageError):
    """The peer broke the protocol; the connection cannot go on."""


class _Frame(IntEnum):
    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class ResetCode(IntEnum):
    """Why a stream was ended early (§2.6.3)."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The peer began a stream. `headers` have lower-case names."""

    stream: int
    headers: Mapping[str, str]
    ended: bool  # the peer will send nothing on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """Bytes of a stream; `ended` with the last ones, which may be none."""

    stream: int
    data: bytes
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WasReset:
    """The peer wants nothing more of a stream."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoneAway:
    """The peer begins no more streams."""


Event = Opened | Received | WasReset | GoneAway


class _Half(IntEnum):
    """Who has ended a stream; a stream both have ended is forgotten."""

    NOBODY = 0
    PEER = 1
    US = 2


class ServerConnection:
    """One connection's state. Stream numbers are the peer's: odd and rising."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._events: deque[Event] = deque()
        self._output = bytearray()
        self._streams: dict[int, _Half] = {}
        self._last_stream = 0
        self._data_stream = 0  # of the data frame that is arriving
        self._data_left = 0
        self._data_ends = False
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def receive(self, data: bytes) -> None:
        """Bytes from the peer, in pieces of any size. Raises SpdyError; then the connection must be closed."""
        self._buffer += data
        while self._data_left or len(self._buffer) >= 8:
            if self._data_left:
                if not self._buffer:
                    return
                self._take_data()
                continue
            first, flags_length = struct.unpack_from("!II", self._buffer)
            flags, length = flags_length >> 24, flags_length & 0xFF_FFFF
            if not first >> 31:
                del self._buffer[:8]
                self._begin_data(first & _STREAM_MASK, length, ends=bool(flags & FIN))
                continue
            if first >> 16 & 0x7FFF != VERSION:
                raise SpdyError(f"version {first >> 16 & 0x7FFF} of SPDY instead of {VERSION}")
            if length > HEADER_BYTES_MAX:
                raise SpdyError(f"a control frame of {length} bytes")
            if len(self._buffer) < 8 + length:
                return
            body = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            self._control(first & 0xFFFF, flags, body)

    def next_event(self) -> Event | None:
        """The oldest event that was not taken yet."""
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """What must go to the peer, in this order; each byte is handed out once."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def reply(self, stream: int, headers: Mapping[str, str] | None = None) -> None:
        """Accept a stream; the peer waits for this before it sends."""
        if stream in self._streams:
            body = struct.pack("!I", stream) + self._compressed(encode_headers((headers or {}).items()))
            self._output += control_frame(_Frame.SYN_REPLY, body)

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Bytes for a stream; nothing happens if it is over."""
        half = self._streams.get(stream)
        if half is None or half is _Half.US:
            return
        for start in range(0, max(len(data), 1), _DATA_BYTES_MAX):
            piece = data[start : start + _DATA_BYTES_MAX]
            last = end and start + len(piece) >= len(data)
            if piece or last:
                self._output += struct.pack("!II", stream, (FIN if last else 0) << 24 | len(piece)) + piece
        if end:
            self._end(stream, _Half.US)

    def reset(self, stream: int, code: ResetCode = ResetCode.CANCEL) -> None:
        """End a stream at once, both ways."""
        if self._streams.pop(stream, None) is not None:
            self._output += control_frame(_Frame.RST_STREAM, struct.pack("!II", stream, code))

    def go_away(self) -> None:
        """Say that the connection ends."""
        self._output += control_frame(_Frame.GOAWAY, struct.pack("!II", self._last_stream, 0))

    # ── arriving ────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin_data(self, stream: int, length: int, *, ends: bool) -> None:
        self._data_stream, self._data_left, self._data_ends = stream, length, ends
        if not length:
            self._deliver(b"", ended=ends)

    def _take_data(self) -> None:
        piece = bytes(self._buffer[: self._data_left])
        del self._buffer[: len(piece)]
        self._data_left -= len(piece)
        self._deliver(piece, ended=self._data_ends and not self._data_left)

    def _deliver(self, data: bytes, *, ended: bool) -> None:
        stream = self._data_stream
        half = self._streams.get(stream)
        if half is None or half is _Half.PEER:
            return  # we ended it a moment ago and the peer did not know yet
        if data or ended:
            self._events.append(Received(stream=stream, data=data, ended=ended))
        if ended:
            self._end(stream, _Half.PEER)

    def _end(self, stream: int, by: _Half) -> None:
        if self._streams[stream] in (_Half.NOBODY, by):
            self._streams[stream] = by
        else:
            del self._streams[stream]

    def _control(self, kind: int, flags: int, body: bytes) -> None:
        match kind:
            case _Frame.SYN_STREAM:
                self._opened(flags, body)
            case _Frame.SYN_REPLY | _Frame.HEADERS:
                # Nothing in it matters here, but the compressor's state must go along.
                self._headers(_after(body, 4))
            case _Frame.RST_STREAM:
                stream = _number(body, 0) & _STREAM_MASK
                if self._streams.pop(stream, None) is not None:
                    self._events.append(WasReset(stream=stream))
            case _Frame.PING:
                if _number(body, 0) % 2:  # odd ones are the peer's; even ones would answer ours, and we send none
                    self._output += control_frame(_Frame.PING, body[:4])
            case _Frame.GOAWAY:
                self._events.append(GoneAway())
            case _:
                pass  # §2.2.1: unknown types are skipped, and settings and windows mean nothing here

    def _opened(self, flags: int, body: bytes) -> None:
        stream = _number(body, 0) & _STREAM_MASK
        headers = self._headers(_after(body, 10))
        if stream % 2 == 0 or stream <= self._last_stream:
            raise SpdyError(f"stream {stream} after stream {self._last_stream}")
        self._last_stream = stream
        if len(self._streams) >= STREAMS_MAX:
            body = struct.pack("!II", stream, ResetCode.REFUSED_STREAM)
            self._output += control_frame(_Frame.RST_STREAM, body)
            return
        ended = bool(flags & FIN)
        self._streams[stream] = _Half.PEER if ended else _Half.NOBODY
        self._events.append(Opened(stream=stream, headers=headers, ended=ended))

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, HEADER_BYTES_MAX)
        except zlib.error as error:
            raise SpdyError(f"headers cannot be decompressed: {error}") from error
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"headers of more than {HEADER_BYTES_MAX} bytes")
        return decode_headers(plain)

    def _compressed(self, plain: bytes) -> bytes:
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def encode_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """A block of names and values before compression (§2.6.10)."""
    pairs = tuple(headers)
    block = bytearray(struct.pack("!I", len(pairs)))
    for pair in pairs:
        for text in (pair[0].lower(), pair[1]):
            raw = text.encode()
            block += struct.pack("!I", len(raw)) + raw
    return bytes(block)


def decode_headers(block: bytes) -> dict[str, str]:
    """The inverse. Raises SpdyError for a block that does not add up; several values stay joined by NUL."""
    count = _number(block, 0)
    if count > HEADERS_MAX:
        raise SpdyError(f"{count} headers")
    position, headers = 4, {}
    for _ in range(count):
        texts = []
        for _ in range(2):
            length = _number(block, position)
            position += 4
            if length > len(block) - position:
                raise SpdyError("a header is longer than its block")
            texts.append(block[position : position + length].decode("utf-8", "replace"))
            position += length
        if not texts[0] or texts[0].lower() in headers:
            raise SpdyError("a header without a name, or twice")
        headers[texts[0].lower()] = texts[1]
    return headers


def control_frame(kind: int, body: bytes, flags: int = 0) -> bytes:
    """One control frame, for peers in tests too."""
    return struct.pack("!HHI", _CONTROL | VERSION, kind, flags << 24 | len(body)) + body


def _number(body: bytes, position: int) -> int:
    if position + 4 > len(body):
        raise SpdyError("a frame is too short")
    return int.from_bytes(body[position : position + 4], "big")


def _after(body: bytes, position: int) -> bytes:
    if position > len(body):
        raise SpdyError("a frame is too short")
    return body[position:]


_WORDS = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length content-location
content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match
if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range
referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method
get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin
"""
_RUN = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    """Both compressors start from this text (§2.6.10.1): words with their lengths, then one long run of bytes.

    Its Adler-32 checksum, 0xe3c6a7c2, is part of every connection's first header block.
    """
    words = (word.replace("_", " ").encode() for word in _WORDS.split())
    return b"".join(struct.pack("!I", len(word)) + word for word in words) + _RUN.encode()


DICTIONARY = _dictionary()
