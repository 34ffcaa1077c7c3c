"""Keeping upstreams' answers for as long as they allow, negative ones too (RFC 2308), and asking for each only once.

Stands before `forward`. Bounded by entries: when full, the one kept longest goes. Questions that are under way are
shared: a thousand clients that start together cost one upstream query, and give a forger one chance, not a thousand.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from pilotage.dns.chain import Handler
from pilotage.dns.core.upstream import Reply
from pilotage.dns.core.wire import CD, Query
from pilotage.dns.metrics import CACHE
from pilotage.kit.clock import Clock

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    reply: Reply
    stored_at: float
    expires_at: float


class Cache:
    """One step. Replies carry the TTLs they arrived with; `age_s` says how much of them has passed."""

    def __init__(self, clock: Clock, *, entries_max: int) -> None:
        self._clock = clock
        self._entries_max = entries_max
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._under_way: dict[Key, asyncio.Future[Reply]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def resolve(self, query: Query, following: Handler) -> Reply:
        reply = self.get(query)
        if reply is not None:
            CACHE.labels("hit").inc()
            return reply
        key = _key(query)
        shared = self._under_way.get(key)
        if shared is not None:
            CACHE.labels("shared").inc()
            return await asyncio.shield(shared)
        CACHE.labels("miss").inc()
        result: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._under_way[key] = result
        try:
            reply = await following(query)
        except BaseException:
            result.cancel()
            raise
        finally:
            del self._under_way[key]
        result.set_result(reply)
        self._store(key, reply)
        return reply

    def get(self, query: Query) -> Reply | None:
        """The kept answer, already aged; None when there is none."""
        key = _key(query)
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock.monotonic()
        if now >= entry.expires_at:
            del self._entries[key]
            return None
        return entry.reply.aged(int(now - entry.stored_at))

    def _store(self, key: Key, reply: Reply) -> None:
        if reply.lifetime_s <= 0:
            return
        now = self._clock.monotonic()
        self._entries[key] = _Entry(reply, now, now + reply.lifetime_s)
        self._entries.move_to_end(key)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)


def _key(query: Query) -> Key:
    """What an upstream's answer may depend on."""
    return (query.name, query.rtype, query.rclass, query.dnssec_ok, query.flags & CD)
