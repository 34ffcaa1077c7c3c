"""Rules in nf_tables' netlink form, for those that libnftables cannot take as text.

Stands apart from `wire`, which is the hot path of elements: this exists because nft 1.0.6 ends the process on an
`update` of a map whose key or value exceeds 16 bytes, which clients remembered by IPv6 address need. Only the
statements of such rules are here; registers are given out in order, 32 bits each.

Specification: linux/netfilter/nf_tables.h.
"""

import struct

from pilotage.nft.core import wire
from pilotage.nft.core.expressions import (
    DADDR,
    DPORT,
    L4PROTO,
    ORIGINAL_DADDR,
    ORIGINAL_DPORT,
    SADDR,
    Concat,
    Field,
    HasPort,
    Rule,
    Update,
)
from pilotage.nft.core.objects import Chain, Table
from pilotage.nft.core.types import PROTOCOLS

NEWRULE = 10 << 8 | 6
_CREATE_APPEND = 0x400 | 0x800
_FIRST_REGISTER = 8  # NFT_REG32_00
_TEXT_BYTES_MAX = 16  # of the key or value of an `update` as text
_NETWORK, _TRANSPORT = 1, 2
_L4PROTO, _CT_PROTO_DST, _CT_DST_IP, _CT_DST_IP6 = 16, 12, 20, 22
_ORIGINAL = b"\0"
_EQUAL, _UNEQUAL = 0, 1


def needs_wire(chain: Chain) -> bool:
    """Whether text cannot say what is in this chain."""
    return any(
        isinstance(statement, Update) and max(statement.key.layout.size, statement.value.layout.size) > _TEXT_BYTES_MAX
        for rule in chain.rules
        for statement in rule.statements
    )


def rule_batch(table: Table, chain: Chain, sequence: int) -> bytes:
    """One atomic batch that appends the chain's rules to it."""
    return wire.framed([_rule_message(table, chain.name, rule, sequence) for rule in chain.rules], sequence)


def _rule_message(table: Table, chain: str, rule: Rule, sequence: int) -> bytes:
    expressions: list[bytes] = []
    for statement in rule.statements:
        if isinstance(statement, HasPort):
            expressions += _has_port(statement)
        elif isinstance(statement, Update):
            expressions += _update(statement)
        else:
            raise ValueError(f"{statement.text()!r} is not among the statements that are sent as messages")
    body = wire.text_attribute(1, table.name) + wire.text_attribute(2, chain)
    body += wire.attribute(4 | wire.NESTED, b"".join(expressions))
    return wire.message(NEWRULE, _CREATE_APPEND, table.family, body, sequence)


def _has_port(statement: HasPort) -> list[bytes]:
    register = _FIRST_REGISTER
    return [
        _meta(_L4PROTO, register),
        _compare(register, _EQUAL, bytes((PROTOCOLS[statement.protocol],))),
        _payload(_TRANSPORT, 2, 2, register),
        _compare(register, _UNEQUAL, b"\0\0"),
    ]


def _update(statement: Update) -> list[bytes]:
    key, after = _load(statement.key, _FIRST_REGISTER)
    value, _ = _load(statement.value, after)
    fields = wire.text_attribute(1, statement.map) + _be32(3, 1) + _be32(4, _FIRST_REGISTER) + _be32(5, after)
    fields += wire.attribute(6, struct.pack(">Q", statement.timeout_s * 1000))
    return [*key, *value, _expression("dynset", fields)]


def _load(concat: Concat, register: int) -> tuple[list[bytes], int]:
    """Expressions that load the parts side by side, and the register after them."""
    loads = []
    for part in concat.parts:
        loads.append(_load_field(part, register))
        register += (part.type.size + 3) // 4
    return loads, register


def _load_field(field: Field, register: int) -> bytes:
    fixed = {
        SADDR["ip"]: _payload(_NETWORK, 12, 4, register),
        DADDR["ip"]: _payload(_NETWORK, 16, 4, register),
        SADDR["ip6"]: _payload(_NETWORK, 8, 16, register),
        DADDR["ip6"]: _payload(_NETWORK, 24, 16, register),
        DPORT: _payload(_TRANSPORT, 2, 2, register),
        L4PROTO: _meta(_L4PROTO, register),
        ORIGINAL_DADDR["ip"]: _original(_CT_DST_IP, register),
        ORIGINAL_DADDR["ip6"]: _original(_CT_DST_IP6, register),
        ORIGINAL_DPORT: _original(_CT_PROTO_DST, register),
    }
    return fixed[field]


def _meta(key: int, register: int) -> bytes:
    return _expression("meta", _be32(1, register) + _be32(2, key))


def _payload(base: int, offset: int, length: int, register: int) -> bytes:
    return _expression("payload", _be32(1, register) + _be32(2, base) + _be32(3, offset) + _be32(4, length))


def _original(key: int, register: int) -> bytes:
    return _expression("ct", _be32(1, register) + _be32(2, key) + wire.attribute(3, _ORIGINAL))


def _compare(register: int, operator: int, value: bytes) -> bytes:
    data = wire.attribute(3 | wire.NESTED, wire.attribute(1, value))
    return _expression("cmp", _be32(1, register) + _be32(2, operator) + data)


def _expression(name: str, fields: bytes) -> bytes:
    return wire.attribute(1 | wire.NESTED, wire.text_attribute(1, name) + wire.attribute(2 | wire.NESTED, fields))


def _be32(kind: int, number: int) -> bytes:
    return wire.attribute(kind, struct.pack(">I", number))
