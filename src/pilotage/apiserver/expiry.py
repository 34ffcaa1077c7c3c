"""Events do not live for ever: an hour after their last change they are deleted.

Stands apart because it is the only clock-driven deletion. Not run where the store has leases, as etcd does: there
keys go by themselves. The others have none, and one look a minute over a bounded number of events is cheap.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from pilotage.api.timestamp import parse
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.core.stored_form import EVENT_LIFETIME_S
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.subresources import builtin
from pilotage.kit.clock import Clock
from pilotage.storage import StorageError
from pilotage.telemetry import get_logger

log = get_logger()

EVENT_LIFETIME = timedelta(seconds=EVENT_LIFETIME_S)
# Whatever their age, not more than this: events are diagnostics and must not fill the store.
EVENTS_MAX = 20_000
INTERVAL_S = 60.0
_MOMENTS = ("lastTimestamp", "eventTime", "firstTimestamp")


def last_change(event: Document) -> str:
    """When an event was last seen or written, as RFC 3339: one that reports of long ago has its hour, too."""
    metadata = event["metadata"]
    moments = [
        metadata.get("creationTimestamp"),
        *(entry.get("time") for entry in metadata.get("managedFields") or ()),
        (event.get("series") or {}).get("lastObservedTime"),
        *(event.get(field) for field in _MOMENTS),
    ]
    return max((moment for moment in moments if moment), default="")


def expired(events: list[tuple[str, str]], now: datetime) -> list[str]:
    """Keys of (key, last change) pairs that have had their time, and of the oldest beyond the limit."""
    oldest = sorted((moment, key) for key, moment in events)
    surplus = {key for _, key in oldest[: max(len(oldest) - EVENTS_MAX, 0)]}
    return [key for moment, key in oldest if key in surplus or not moment or now - parse(moment) > EVENT_LIFETIME]


async def expire_events(registry: Registry, clock: Clock) -> None:
    """Look once a minute until cancelled."""
    resource = builtin("", "v1", "events")
    while True:
        await asyncio.sleep(INTERVAL_S)
        cache = registry.cache(resource)
        events = [(record.key, last_change(record.document)) for record in cache.scan("")]
        for key in expired(events, clock.wall()):
            record = cache.get(key)
            if record is None:
                continue
            try:
                await registry.store.delete(resource, record)
            except StorageError as error:
                log.warning("event not deleted", error=str(error))
                break
