"""The client's half of SPDY/3.1, for tests: what kubectl would send, and what it would read.

Stands apart from `agent.core.spdy`, which is only a server; it shares that module's dictionary and header encoding,
whose agreement with the rest of the world the tests with a real kubectl show. Pure: bytes in, frames out.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from pilotage.agent.core.spdy import DICTIONARY, FIN, control_frame, decode_headers, encode_headers

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of the server. `kind` 0 is data; `number` is the stream, or the ping."""

    kind: int
    number: int
    ended: bool = False
    data: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class SpdyClient:
    """Makes frames and reads them."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._next = 1
        self._buffer = b""

    def block(self, plain: bytes) -> bytes:
        """A header block as it is sent, valid or not."""
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def open(self, stream: int = 0, /, **headers: str) -> bytes:
        """A new stream; its number is the next odd one unless given."""
        stream = stream or self._next
        self._next = stream + 2
        body = struct.pack("!IIBB", stream, 0, 0, 0) + self.block(encode_headers(headers.items()))
        return control_frame(SYN_STREAM, body)

    @staticmethod
    def data(stream: int, data: bytes, *, end: bool = False) -> bytes:
        """Bytes of a stream."""
        return struct.pack("!II", stream, (FIN if end else 0) << 24 | len(data)) + data

    @staticmethod
    def reset(stream: int, code: int = 5) -> bytes:
        """An early end."""
        return control_frame(RST_STREAM, struct.pack("!II", stream, code))

    @staticmethod
    def ping(number: int) -> bytes:
        """Are you there?"""
        return control_frame(PING, struct.pack("!I", number))

    def read(self, data: bytes) -> list[Frame]:
        """The frames that are complete now."""
        self._buffer += data
        found = []
        while len(self._buffer) >= 8:
            first, rest = struct.unpack_from("!II", self._buffer)
            length = rest & 0xFF_FFFF
            if len(self._buffer) < 8 + length:
                break
            body, self._buffer = self._buffer[8 : 8 + length], self._buffer[8 + length :]
            ended = bool(rest >> 24 & FIN)
            if not first >> 31:
                found.append(Frame(0, first, ended, body))
                continue
            kind, number = first & 0xFFFF, int.from_bytes(body[:4], "big")
            headers = self._inflate.decompress(body[4:]) if kind == SYN_REPLY else b""
            decoded = tuple(decode_headers(headers).items()) if headers else ()
            found.append(Frame(kind, number, ended, body[4:] if kind == RST_STREAM else b"", decoded))
        return found
