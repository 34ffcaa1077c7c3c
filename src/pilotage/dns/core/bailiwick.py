"""Which records of an upstream's answer belong to its question.

Apart from `upstream` because it reads names inside foreign records, which nothing else of the core does. The table of
compiled answers and the cache never use an answer for another question, so what a stranger's record could poison is the
cache of whoever asked us; it must not get that far (RFC 5452 §6, RFC 2181 §5.4.1).
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError

from pilotage.dns.core.name import NAME_BYTES_MAX, Name, is_within
from pilotage.dns.core.record import CNAME
from pilotage.dns.core.wire import HEADER_BYTES

_RECORD = Struct("!HHIH")
DNAME = 39
RRSIG = 46


def read_name(message: bytes, position: int) -> tuple[Name, int]:
    """The name at `position` in lower case, and where the next field starts. Raises `ValueError`.

    Pointers may only lead backwards (RFC 1035 §4.1.4 says "prior occurrence"), which is why this ends.
    """
    labels: list[bytes] = []
    end = 0
    size = 1
    try:
        while True:
            length = message[position]
            if length >= 0xC0:
                target = int.from_bytes(message[position : position + 2], "big") & 0x3FFF
                end = end or position + 2
                if target >= position:
                    raise ValueError("a pointer that leads forward")
                position = target
                continue
            position += 1
            if length == 0:
                return tuple(labels), end or position
            size += length + 1
            if length > 63 or size > NAME_BYTES_MAX or position + length > len(message):
                raise ValueError("not a name")
            labels.append(message[position : position + length].lower())
            position += length
    except IndexError as error:
        raise ValueError("a name beyond the message") from error


def check_answer(message: bytes, question_end: int) -> int:
    """Where the answer section ends. Raises `ValueError` if one of its records is about another name.

    The names it may be about are that of the question and whatever the CNAMEs among the answers lead to, in any order.
    """
    name, _ = read_name(message, HEADER_BYTES)
    count = int.from_bytes(message[6:8], "big")
    position = question_end
    owners: set[Name] = set()
    aliases: dict[Name, Name] = {}
    try:
        for _ in range(count):
            owner, position = read_name(message, position)
            rtype, _, _, length = _RECORD.unpack_from(message, position)
            position += 10
            if rtype == CNAME:
                aliases[owner] = read_name(message, position)[0]
            if rtype not in (DNAME, RRSIG) or not any(is_within(n, owner) for n in (name, *aliases)):
                owners.add(owner)  # a DNAME stands above the names that it renames (RFC 6672)
            position += length
    except StructError as error:
        raise ValueError("cut short") from error
    known = {name}
    while name in aliases and aliases[name] not in known:
        name = aliases[name]
        known.add(name)
    if not owners <= known:
        raise ValueError("the answer is about other names, too")
    return position
