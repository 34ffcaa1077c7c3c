"""Data types of nft and the bytes they have in the kernel.

Stands apart because three readers must agree to the bit: the netlink encoder, the text renderer and whoever computes
map keys (the proxy's plan). Keys are kept as packed bytes, not as text: 100,000 of them cost a third of the memory and
compare directly with what the kernel returns. Leaves out every type the project does not use.

Specification: nft(8) "DATA TYPES"; a concatenation pads each part to a 32-bit register (nf_tables.h, NFT_REG32_SIZE).
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import cached_property

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58}
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


@dataclass(frozen=True, slots=True)
class DataType:
    """One nft data type."""

    name: str
    size: int  # bytes before padding

    def encode(self, text: str | int) -> bytes:
        """The register bytes of `text`, padded to 32 bits; raises ValueError for what is not of this type."""
        if self.name in ("ipv4_addr", "ipv6_addr"):
            return encode_address(str(text), self.size)
        if self.name == "inet_proto":
            return bytes((PROTOCOLS[text] if isinstance(text, str) else text,)) + b"\0\0\0"
        if self.name == "inet_service":
            return int(text).to_bytes(2, "big") + b"\0\0"
        # A classid lives in host byte order; every machine this runs on is little-endian.
        return int(text).to_bytes(4, "little")

    def decode(self, raw: bytes) -> str:
        """How nft prints `raw` (padding included)."""
        if self.name in ("ipv4_addr", "ipv6_addr"):
            return str(ipaddress.ip_address(raw[: self.size]))
        if self.name == "inet_proto":
            return _PROTOCOL_NAMES.get(raw[0], str(raw[0]))
        if self.name == "inet_service":
            return str(int.from_bytes(raw[:2], "big"))
        number = int.from_bytes(raw[:4], "little")
        return f"{number >> 16:x}:{number & 0xFFFF:x}"


IPV4 = DataType("ipv4_addr", 4)
IPV6 = DataType("ipv6_addr", 16)
PROTOCOL = DataType("inet_proto", 1)
PORT = DataType("inet_service", 2)
CLASS_ID = DataType("classid", 4)


_DOTTED = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", re.ASCII).fullmatch


def encode_address(text: str, size: int) -> bytes:
    """Network-order bytes of an address of exactly `size` bytes; raises ValueError."""
    if size == 4:
        # A quarter of the time of ipaddress, on a path that runs once per endpoint.
        if _DOTTED(text):
            return bytes(map(int, text.split(".")))
        raise ValueError(f"not an IPv4 address: {text[:64]!r}")
    return ipaddress.IPv6Address(text).packed


@dataclass(frozen=True)
class Layout:
    """The parts of a concatenated key or value, in order."""

    parts: tuple[DataType, ...]

    @cached_property
    def size(self) -> int:
        """Bytes, padding included."""
        return sum(_padded(part.size) for part in self.parts)

    def encode(self, *values: str | int) -> bytes:
        """One value a part."""
        return b"".join(part.encode(value) for part, value in zip(self.parts, values, strict=True))

    def split(self, raw: bytes) -> tuple[bytes, ...]:
        """The padded bytes of each part."""
        pieces, at = [], 0
        for part in self.parts:
            pieces.append(raw[at : at + _padded(part.size)])
            at += _padded(part.size)
        return tuple(pieces)

    def decode(self, raw: bytes) -> tuple[str, ...]:
        return tuple(part.decode(piece) for part, piece in zip(self.parts, self.split(raw), strict=True))

    def text(self, raw: bytes) -> str:
        return " . ".join(self.decode(raw))

    def declaration(self) -> str:
        return " . ".join(part.name for part in self.parts)


def _padded(size: int) -> int:
    return (size + 3) & ~3
