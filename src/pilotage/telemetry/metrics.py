"""The metric registry: every metric is `pilotage_<component>_<what>_<unit|total>`.

A thin naming rule above prometheus-client, so that a wrong name fails at import and not on somebody's dashboard.
"""

import re
from collections.abc import Sequence

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest

_NAME = re.compile(r"pilotage_[a-z]+(?:_[a-z0-9]+)+")
_UNITS = ("_seconds", "_bytes", "_ratio")

# From 100 µs (one table lookup) to a minute (a rollout), a factor of about two and a half each.
DURATION_BUCKETS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    60,
)


def counter(name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only grows; the name ends in `_total`."""
    return Counter(_checked(name, "_total"), documentation, labels)


def gauge(name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that goes up and down; the name ends in its unit, or in what is counted (`…_pending_pods`)."""
    return Gauge(_checked(name), documentation, labels)


def histogram(
    name: str, documentation: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = DURATION_BUCKETS_S
) -> Histogram:
    """A distribution, by default of seconds."""
    return Histogram(_checked(name, *_UNITS), documentation, labels, buckets=buckets)


def exposition() -> bytes:
    """Every metric of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)


def _checked(name: str, *endings: str) -> str:
    if not _NAME.fullmatch(name) or (endings and not name.endswith(endings)):
        raise ValueError(f"metric {name!r} must look like pilotage_<component>_<what>, ending in one of {endings}")
    return name
