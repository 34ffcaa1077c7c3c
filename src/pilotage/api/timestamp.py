"""RFC 3339 times as Kubernetes writes them."""

from datetime import UTC, datetime


def render(moment: datetime) -> str:
    """Whole seconds, `Z`: metadata and condition times (meta/v1 Time)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def render_micro(moment: datetime) -> str:
    """Microseconds: Lease and Event times (meta/v1 MicroTime)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(text: str) -> datetime:
    """Aware UTC time; raises ValueError."""
    return datetime.fromisoformat(text).astimezone(UTC)
