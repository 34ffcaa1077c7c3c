"""RFC 3339 times as Kubernetes writes them."""

from datetime import UTC, datetime


def render(moment: datetime) -> str:
    """Whole seconds, `Z`: metadata and condition times (meta/v1 Time)."""
    # `isoformat` takes a tenth of `strftime`'s time, and every write stamps two of these.
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def render_micro(moment: datetime) -> str:
    """Microseconds: Lease and Event times (meta/v1 MicroTime)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(text: str) -> datetime:
    """Aware UTC time; raises ValueError."""
    return datetime.fromisoformat(text).astimezone(UTC)
