"""Domain names as tuples of lower-case labels, and the names that Kubernetes makes of addresses.

Apart because every other module of the core speaks in them. A `Name` never holds the empty root label; the case of the
question is not kept here but restored by the wire format, whose owner names point into the question (RFC 1035 §4.1.4).
"""

from __future__ import annotations

import ipaddress

Name = tuple[bytes, ...]
"""Labels from the left, lower-case, without the root: `web.default.` is (b"web", b"default")."""

LABEL_BYTES_MAX = 63  # RFC 1035 §2.3.4
NAME_BYTES_MAX = 255
IN_ADDR_ARPA: Name = (b"in-addr", b"arpa")
IP6_ARPA: Name = (b"ip6", b"arpa")


def from_text(text: str) -> Name:
    """A name from dotted text, with or without the final dot. Raises `ValueError` for what cannot be a name."""
    stripped = text.removesuffix(".")
    if not stripped:
        return ()
    labels = tuple(stripped.lower().encode("ascii").split(b"."))  # UnicodeEncodeError is a ValueError
    if any(not 1 <= len(label) <= LABEL_BYTES_MAX for label in labels) or wire_length(labels) > NAME_BYTES_MAX:
        raise ValueError(f"not a domain name: {text[:80]!r}")
    return labels


def to_text(name: Name) -> str:
    """Dotted text with the final dot; bytes beyond printable ASCII as `\\DDD` (RFC 1035 §5.1)."""
    return "".join(_label_text(label) + "." for label in name) or "."


def _label_text(label: bytes) -> str:
    return "".join(chr(c) if 0x21 <= c <= 0x7E and c not in b'.\\"' else f"\\{c:03d}" for c in label)


def to_wire(name: Name) -> bytes:
    """The uncompressed form, root label included."""
    return b"".join(bytes((len(label),)) + label for label in name) + b"\0"


def wire_length(name: Name) -> int:
    """Bytes of the uncompressed form."""
    return sum(map(len, name)) + len(name) + 1


def is_within(name: Name, zone: Name) -> bool:
    """Whether `name` is `zone` or below it."""
    return name[len(name) - len(zone) :] == zone if len(name) >= len(zone) else False


def pack_address(text: str) -> bytes | None:
    """4 or 16 bytes of an address literal; None for anything else.

    Dotted quads are read by hand: a cluster has a hundred thousand of them and `ipaddress` takes four times as long.
    """
    parts = text.split(".")
    if len(parts) == 4:
        try:
            packed = bytes(map(int, parts))
        except ValueError:
            return None
        return packed if all(part.isdecimal() and (part == "0" or part[0] != "0") for part in parts) else None
    try:
        return ipaddress.IPv6Address(text).packed if ":" in text else None
    except ValueError:
        return None


def dashed(address: str) -> bytes:
    """The label that stands for an address: dots and colons become dashes.

    A label may not end in a dash (RFC 1123 §2.1), so `fd00::` becomes `fd00--0`, which reads back as the same address.
    """
    label = address.lower().replace(".", "-").replace(":", "-")
    return (label + "0" if label.endswith("-") else label).encode("ascii")


def undashed(label: bytes) -> bytes | None:
    """The address a dashed label stands for, packed; None if it stands for none."""
    text = label.decode("latin-1")
    if text.count("-") == 3 and (packed := pack_address(text.replace("-", "."))) is not None:
        return packed
    return pack_address(text.replace("-", ":"))


def reverse_name(packed: bytes) -> Name:
    """The name under which an address has its PTR (RFC 1035 §3.5, RFC 3596 §2.5)."""
    if len(packed) == 4:
        return tuple(b"%d" % octet for octet in reversed(packed)) + IN_ADDR_ARPA
    nibbles = packed.hex().encode()
    return tuple(nibbles[i : i + 1] for i in range(31, -1, -1)) + IP6_ARPA


def reversed_address(name: Name) -> bytes | None:
    """The packed address a reverse name stands for; None for incomplete or malformed ones."""
    try:
        if len(name) == 6 and name[4:] == IN_ADDR_ARPA:
            packed = bytes(int(label) for label in reversed(name[:4]))
            return packed if reverse_name(packed) == name else None
        if len(name) == 34 and name[32:] == IP6_ARPA:
            packed = bytes.fromhex(b"".join(reversed(name[:32])).decode("latin-1"))
            return packed if reverse_name(packed) == name else None
    except ValueError:
        pass
    return None


def is_partial_reverse(name: Name) -> bool:
    """Whether `name` is the upper part of some address's reverse name."""
    if name[-2:] == IN_ADDR_ARPA:
        return len(name) < 6 and reversed_address((b"0",) * (6 - len(name)) + name) is not None
    return len(name) < 34 and reversed_address((b"0",) * (34 - len(name)) + name) is not None


def reverse_zones(cidr: str) -> tuple[Name, ...]:
    """The reverse zones that cover a range, cut at whole labels. Raises `ValueError` for no CIDR.

    A prefix between two labels needs several zones (10.96.0.0/12 → 96.10 … 111.10), at most 128.
    """
    network = ipaddress.ip_network(cidr, strict=False)
    bits_per_label = 8 if network.version == 4 else 4
    labels = -(-network.prefixlen // bits_per_label)
    address_labels = 4 if network.version == 4 else 32
    skip = address_labels - labels
    subnets = network.subnets(new_prefix=labels * bits_per_label)
    return tuple(reverse_name(subnet.network_address.packed)[skip:] for subnet in subnets)
