"""RFC 3339 as the API writes it, to seconds and back.

Stands apart because state counts in seconds while the API wants text. Pure; leaves out reading the clock.
"""

from datetime import UTC, datetime


def to_text(seconds: float) -> str:
    """Seconds since the epoch → `2026-01-01T00:00:00Z` (meta/v1 Time has whole seconds)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_micro_text(seconds: float) -> str:
    """Seconds since the epoch → meta/v1 MicroTime."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_text(text: str) -> float:
    """RFC 3339 → seconds since the epoch; raises `ValueError`."""
    return datetime.fromisoformat(text).timestamp()
