"""Leader election on a Lease, for components of which one may act at a time.

As client-go's leaderelection: the holder renews, others take over when `renewTime` has not moved for the lease duration
as measured by their own monotonic clock, so clocks of different machines need not agree.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from pilotage.api import timestamp
from pilotage.api.coordination_v1 import Lease, LeaseSpec
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.status import ApiError, is_already_exists, is_conflict, is_not_found
from pilotage.client.client import Client
from pilotage.client.errors import ConnectionFailed
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.tasks import wait_any

LEASE_DURATION_S = 15
RENEW_DEADLINE_S = 10.0  # a leader that could not renew for this long stops before another may start
RETRY_PERIOD_S = 2.0


async def lead(
    client: Client, name: str, identity: str, work: Coroutine[Any, Any, None], *, clock: Clock = SYSTEM_CLOCK
) -> None:
    """Wait to be leader of Lease kube-system/`name`, then run `work`; returns when leadership is lost or it ends."""
    election = Election(client, name, identity, clock)
    while not await election.try_acquire():  # noqa: ASYNC110 - another process releases it, no event to wait for
        await asyncio.sleep(RETRY_PERIOD_S)
    await wait_any(work, election.renew())


class Election:
    """One candidate's view of the lease."""

    def __init__(self, client: Client, name: str, identity: str, clock: Clock) -> None:
        self._client, self._name, self._identity, self._clock = client, name, identity, clock
        self._seen = ("", 0.0)  # the renewTime last observed and when we observed it

    async def try_acquire(self) -> bool:
        """Take or renew the lease if it is free, ours or lapsed."""
        try:
            try:
                lease = await self._client.get(Lease, self._name, namespace="kube-system")
            except ApiError as error:
                if not is_not_found(error):
                    raise
                meta = ObjectMeta(name=self._name, namespace="kube-system")
                await self._client.create(Lease(metadata=meta, spec=self._spec(transitions=0)))
                return True
            now = self._clock.monotonic()
            if lease.spec.renew_time != self._seen[0]:
                self._seen = (lease.spec.renew_time, now)
            held = lease.spec.holder_identity
            if held and held != self._identity and now - self._seen[1] < lease.spec.lease_duration_seconds:
                return False
            transitions = lease.spec.lease_transitions + (held != self._identity)
            await self._client.update(Lease(metadata=lease.metadata, spec=self._spec(transitions=transitions)))
            return True
        except ApiError as error:
            if is_conflict(error) or is_already_exists(error):
                return False
            raise
        except ConnectionFailed:
            return False

    async def renew(self) -> None:
        """Returns when the lease could not be renewed in time."""
        renewed = self._clock.monotonic()
        while self._clock.monotonic() - renewed < RENEW_DEADLINE_S:
            await asyncio.sleep(RETRY_PERIOD_S)
            if await self.try_acquire():
                renewed = self._clock.monotonic()

    def _spec(self, *, transitions: int) -> LeaseSpec:
        now = timestamp.render_micro(self._clock.wall())
        return LeaseSpec(
            holder_identity=self._identity,
            lease_duration_seconds=LEASE_DURATION_S,
            acquire_time=now,
            renew_time=now,
            lease_transitions=transitions,
        )
