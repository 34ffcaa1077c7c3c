"""What users of external-dns write on their objects: hostnames, TTL, targets, and who shall care.

Apart because every source reads them alike. Source: the annotations page of the external-dns manual.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

HOSTNAME = "external-dns.alpha.kubernetes.io/hostname"
TTL = "external-dns.alpha.kubernetes.io/ttl"
TARGET = "external-dns.alpha.kubernetes.io/target"
CONTROLLER = "external-dns.alpha.kubernetes.io/controller"
TTL_DEFAULT = 300
_TTL_MAX = 86_400
_UNITS = {"h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:\d{1,9}[hms])+")

Claim = tuple[str, str, int, tuple[str, ...]]
"""(hostname, `kind/namespace/name` of the object, TTL in seconds, targets)."""


def concerns_us(annotations: Mapping[str, str]) -> bool:
    """False for an object that is said to be another program's."""
    return annotations.get(CONTROLLER, "dns-controller") == "dns-controller"


def hostnames(annotations: Mapping[str, str]) -> list[str]:
    return _split(annotations.get(HOSTNAME, ""))


def ttl(annotations: Mapping[str, str], default: int = TTL_DEFAULT) -> int:
    """Seconds, from a number or a duration (`90`, `1m30s`), bounded; the default for anything else."""
    text = annotations.get(TTL, "").strip()
    if text.isdecimal() and len(text) <= 9:
        seconds = int(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", text))
    else:
        return default
    return min(max(seconds, 1), _TTL_MAX)


def targets(annotations: Mapping[str, str], found: Iterable[str]) -> tuple[str, ...]:
    """Those written by hand, else what the object's status says."""
    return tuple(_split(annotations.get(TARGET, "")) or (target for target in found if target))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
