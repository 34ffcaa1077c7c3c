"""Kubernetes Events: what a component wants a person to see with `kubectl describe`.

Fire and forget: an event that cannot be written is dropped, since no component may wait or fail for it. Repetitions of
one message about one object are counted in one Event instead of piling up (bounded memory of recent ones).
"""

import asyncio
import secrets
from collections import OrderedDict

from pilotage.api import timestamp
from pilotage.api.core_v1 import Event, EventSource, ObjectReference
from pilotage.api.meta_v1 import Object, ObjectMeta
from pilotage.api.status import ApiError, is_not_found
from pilotage.client.client import Client
from pilotage.client.errors import ConnectionFailed
from pilotage.kit.clock import SYSTEM_CLOCK, Clock

QUEUE_MAX = 1000  # beyond this many unwritten events new ones are dropped
REMEMBERED_MAX = 4096  # distinct recent events whose repetitions are counted
MESSAGE_LENGTH_MAX = 1024  # the API's own bound


class EventRecorder:
    """Writes Events in the background while `run` does."""

    def __init__(self, client: Client, component: str, *, host: str = "", clock: Clock = SYSTEM_CLOCK) -> None:
        self._client = client
        self._source = EventSource(component=component, host=host)
        self._clock = clock
        self._queue: asyncio.Queue[tuple[ObjectReference, str, str, str]] = asyncio.Queue(QUEUE_MAX)
        self._recent: OrderedDict[tuple[ObjectReference, str, str, str], tuple[str, int]] = OrderedDict()

    def normal(self, about: Object | ObjectReference, reason: str, message: str) -> None:
        """Something happened as it should. Never blocks, never raises."""
        self._record(about, "Normal", reason, message)

    def warning(self, about: Object | ObjectReference, reason: str, message: str) -> None:
        """Something needs attention. Never blocks, never raises."""
        self._record(about, "Warning", reason, message)

    def _record(self, about: Object | ObjectReference, type: str, reason: str, message: str) -> None:
        reference = about if isinstance(about, ObjectReference) else reference_to(about)
        if not self._queue.full():
            self._queue.put_nowait((reference, type, reason, message[:MESSAGE_LENGTH_MAX]))

    async def run(self) -> None:
        """Write recorded events until cancelled."""
        while True:
            await self._write(await self._queue.get())

    async def _write(self, entry: tuple[ObjectReference, str, str, str]) -> None:
        reference, type, reason, message = entry
        now = timestamp.render(self._clock.wall())
        namespace = reference.namespace or "default"
        name, count = self._recent.pop(entry, ("", 0))
        try:
            if name:
                try:
                    body = {"count": count + 1, "lastTimestamp": now}
                    await self._client.patch(Event, name, body, namespace=namespace)
                except ApiError as error:
                    if not is_not_found(error):
                        raise
                    name, count = "", 0
            if not name:
                # Unique without asking the server; the first part keeps `kubectl get events` readable.
                name = f"{reference.name[:200]}.{secrets.token_hex(8)}"
                await self._client.create(
                    Event(
                        metadata=ObjectMeta(name=name, namespace=namespace),
                        involved_object=reference,
                        type=type,
                        reason=reason,
                        message=message,
                        source=self._source,
                        reporting_component=self._source.component,
                        reporting_instance=self._source.host,
                        first_timestamp=now,
                        last_timestamp=now,
                        count=1,
                    )
                )
        except (ApiError, ConnectionFailed):
            return
        self._recent[entry] = (name, count + 1)
        while len(self._recent) > REMEMBERED_MAX:
            self._recent.popitem(last=False)


def reference_to(obj: Object) -> ObjectReference:
    """An ObjectReference that names `obj`."""
    return ObjectReference(
        api_version=obj.api_version,
        kind=type(obj).kind,
        namespace=obj.metadata.namespace,
        name=obj.metadata.name,
        uid=obj.metadata.uid,
        resource_version=obj.metadata.resource_version,
    )
