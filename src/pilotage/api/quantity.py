"""Quantities: `100m`, `1.5Gi`, `2e3` as exact numbers and back.

Source: Kubernetes API reference, "Quantity": decimal SI (n u m "" k M G T P E), binary (Ki … Ei) and exponents. Exact
decimals, because quota compares sums for equality.
"""

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

from pilotage.kit.errors import PilotageError

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_SUFFIXES: dict[str, Decimal] = {
    **{suffix: Decimal(10) ** power for suffix, power in _DECIMAL.items()},
    **{suffix: Decimal(2**power) for suffix, power in _BINARY.items()},
}
_QUANTITY = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))(?P<suffix>[numkMGTPE]|[KMGTPE]i|[eE][+-]?\d{1,3}|)")


class QuantityError(PilotageError):
    """The text is no quantity."""


def parse(text: str | int | float) -> Decimal:
    """The exact value; raises `QuantityError`."""
    if isinstance(text, str) and len(text) <= _REMEMBERED_LENGTH_MAX:
        return _remembered(text)
    return _parse(text)


def _parse(text: str | int | float) -> Decimal:
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise QuantityError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    number, suffix = Decimal(match["number"]), match["suffix"]
    if suffix in _SUFFIXES:
        return number * _SUFFIXES[suffix]
    return number * Decimal(10) ** int(suffix[1:])


# The same few amounts are in every pod. Only short texts are kept, so the memory is bounded in bytes.
_REMEMBERED_LENGTH_MAX = 32
_remembered = lru_cache(maxsize=4096)(_parse)


def milli(text: str | int | float) -> int:
    """In thousandths, rounded up: CPU as schedulers and cgroups count it."""
    return int((parse(text) * 1000).to_integral_value(ROUND_CEILING))


def whole(text: str | int | float) -> int:
    """In units, rounded up: bytes, pods."""
    return int(parse(text).to_integral_value(ROUND_CEILING))


def render(value: Decimal | int, *, binary: bool = False) -> str:
    """The shortest canonical text: the largest suffix that leaves an integer (`1500m`, `2Gi`)."""
    exact = Decimal(value)
    if exact == 0:
        return "0"
    order = ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki", "") if binary else ("E", "P", "T", "G", "M", "k", "")
    for suffix in (*order, "m", "u", "n"):
        scaled = exact / _SUFFIXES[suffix]
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    return f"{int((exact / _SUFFIXES['n']).to_integral_value(ROUND_CEILING))}n"
