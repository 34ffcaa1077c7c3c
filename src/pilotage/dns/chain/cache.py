"""Keeping upstreams' answers for as long as they allow, negative ones too (RFC 2308), and asking for each only once.

Stands before `forward`. Bounded by entries: when full, the one not asked for longest goes. Questions that are under way
are shared: a thousand clients that start together cost one upstream query, and give a forger one chance, not a
thousand. What many ask for is fetched again before it lapses (prefetch); when nobody upstream answers, what has lapsed
is better than nothing for a while (serve-stale, RFC 8767).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from pilotage.dns.chain import Handler, Request, Step
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.record import Rcode
from pilotage.dns.core.upstream import Reply
from pilotage.dns.core.wire import CD, Query
from pilotage.dns.document import Section
from pilotage.dns.metrics import CACHE, CACHE_ENTRIES, CACHE_PREFETCH, CACHE_STALE
from pilotage.kit.clock import Clock
from pilotage.kit.tasks import TaskSet, task_set

Key = tuple[object, ...]
STALE_TTL_S = 5
"""What a lapsed answer says about itself: short, so that the fresh one is soon asked for (RFC 8767 §4 allows 30)."""
REFRESHES_MAX = 200
"""Prefetches and refreshes of lapsed answers under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How long, how many."""

    entries_max: int = 10_000
    """About 1 kB each."""
    ttl_max_s: int = 3600
    ttl_min_s: int = 0
    negative_ttl_max_s: int = 300
    stale_s: int = 3600
    """How long after its end an answer may still be given while nobody upstream answers; 0: never."""
    stale_immediately: bool = False
    """Give the lapsed answer at once and ask meanwhile, instead of waiting for the upstreams to fail."""
    prefetch_hits: int = 3
    """Asked so often in its life, an answer is fetched again before it lapses; 0: never."""
    prefetch_percent: int = 10
    """… when this much of its life is left."""


@dataclass(slots=True)
class _Entry:
    reply: Reply
    stored_at: float
    expires_at: float
    hits: int = 0
    refreshing: bool = False


class Cache(Step):
    """One step. Replies carry the TTLs they arrived with; `age_s` says how much of them has passed."""

    def __init__(self, clock: Clock, options: Options) -> None:
        self._clock = clock
        self.options = options
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._under_way: dict[Key, asyncio.Future[Reply]] = {}
        self._tasks: TaskSet | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def adopt(self, before: Cache) -> None:
        """Go on with what another one kept; called before the first question."""
        self._entries = OrderedDict(list(before._entries.items())[-self.options.entries_max :])

    async def run(self) -> None:
        """Refreshes belong to the step's life: they end with it."""
        try:
            async with task_set() as self._tasks:
                await self._tasks.wait()
        finally:
            self._tasks = None

    async def resolve(self, request: Request, following: Handler) -> Reply:
        key = _key(request.query)
        entry = self._entries.get(key)
        now = self._clock.monotonic()
        if entry is not None and now < entry.expires_at:
            CACHE.labels("hit").inc()
            self._entries.move_to_end(key)
            self._prefetch(key, entry, request, following, now)
            return entry.reply.aged(int(now - entry.stored_at))
        usable = entry is not None and now < entry.expires_at + self.options.stale_s
        if entry is not None and usable and self.options.stale_immediately:
            self._refresh(key, entry, request, following)
            return _stale(entry)
        reply = await self._fetch(key, request, following)
        if entry is not None and usable and reply.rcode == Rcode.SERVFAIL:
            return _stale(entry)
        return reply

    def get(self, query: Query) -> Reply | None:
        """The kept answer, already aged; None when there is none, or it has lapsed."""
        entry = self._entries.get(_key(query))
        now = self._clock.monotonic()
        if entry is None or now >= entry.expires_at:
            return None
        return entry.reply.aged(int(now - entry.stored_at))

    async def _fetch(self, key: Key, request: Request, following: Handler) -> Reply:
        """Ask, once for all who want the same."""
        shared = self._under_way.get(key)
        if shared is not None:
            CACHE.labels("shared").inc()
            try:
                return await asyncio.shield(shared)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not shared.cancelled() or (task is not None and task.cancelling()):
                    raise
                return await self._fetch(key, request, following)  # who asked first is gone, we are not
        CACHE.labels("miss").inc()
        result: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._under_way[key] = result
        try:
            reply = await following(request)
        except BaseException:
            result.cancel()
            raise
        finally:
            del self._under_way[key]
        reply = self._store(key, reply)
        result.set_result(reply)
        return reply

    def _prefetch(self, key: Key, entry: _Entry, request: Request, following: Handler, now: float) -> None:
        entry.hits += 1
        options = self.options
        if not options.prefetch_hits or entry.hits < options.prefetch_hits:
            return
        if (entry.expires_at - now) * 100 < (entry.expires_at - entry.stored_at) * options.prefetch_percent:
            CACHE_PREFETCH.inc()
            self._refresh(key, entry, request, following)

    def _refresh(self, key: Key, entry: _Entry, request: Request, following: Handler) -> None:
        if self._tasks is None or entry.refreshing or len(self._tasks) >= REFRESHES_MAX:
            return
        entry.refreshing = True

        async def refresh() -> None:
            try:
                await self._fetch(key, request, following)
            finally:
                entry.refreshing = False

        self._tasks.start(refresh())

    def _store(self, key: Key, reply: Reply) -> Reply:
        """Keep within the bounds; the reply as it will be told, whose TTLs respect them too."""
        if reply.lifetime_s <= 0 or reply.private:
            return reply
        options = self.options
        negative = reply.rcode == Rcode.NXDOMAIN or reply.message[6:8] == b"\0\0"
        lifetime = min(max(reply.lifetime_s, options.ttl_min_s), options.ttl_max_s)
        if negative:
            lifetime = min(lifetime, options.negative_ttl_max_s)
        if not lifetime:
            return reply
        reply = replace(
            reply.with_ttls(options.ttl_min_s, lifetime if negative else options.ttl_max_s), lifetime_s=lifetime
        )
        now = self._clock.monotonic()
        self._entries[key] = _Entry(reply, now, now + lifetime)
        self._entries.move_to_end(key)
        if len(self._entries) > options.entries_max:
            self._entries.popitem(last=False)
        CACHE_ENTRIES.set(len(self._entries))
        return reply


def _stale(entry: _Entry) -> Reply:
    """With a short TTL, and not to be repeated without asking again."""
    CACHE_STALE.inc()
    return replace(entry.reply.with_ttls(STALE_TTL_S, STALE_TTL_S), age_s=0, private=True)


def _key(query: Query) -> Key:
    """What an upstream's answer may depend on."""
    return (query.name, query.rtype, query.rclass, query.dnssec_ok, query.flags & CD)


def configure(section: Section) -> Callable[[Environment], Cache]:
    """`cache: {entries, ttl_min_s, ttl_max_s, negative_ttl_max_s, stale_s, prefetch_hits, …}`"""
    options = Options(
        entries_max=section.integer("entries", 10_000, least=1, most=1_000_000),
        ttl_max_s=section.integer("ttl_max_s", 3600, most=86_400),
        ttl_min_s=section.integer("ttl_min_s", 0, most=3600),
        negative_ttl_max_s=section.integer("negative_ttl_max_s", 300, most=86_400),
        stale_s=section.integer("stale_s", 3600, most=7 * 86_400),
        stale_immediately=section.flag("stale_immediately"),
        prefetch_hits=section.integer("prefetch_hits", 3, most=1_000_000),
        prefetch_percent=section.integer("prefetch_percent", 10, least=1, most=90),
    )
    section.end()
    place = section.what

    def make(environment: Environment) -> Cache:
        cache = Cache(environment.clock, options)
        before = environment.kept.get(place)
        if before is not None:
            cache.adopt(before)
        environment.kept[place] = cache
        return cache

    return make
