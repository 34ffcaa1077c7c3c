"""A queue of keys in which each key is at most once, waiting or in work, never both.

As client-go's rate-limiting work queue: adding a key in work marks it dirty, and it comes back when `done`. Bounded by
the number of distinct keys, which is the number of objects.
"""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from pilotage.kit.backoff import Backoff

H = TypeVar("H", bound=Hashable)

# 5 ms first, so that a lost optimistic-concurrency race costs nothing; half a minute at most.
DEFAULT_BACKOFF = Backoff(initial_s=0.005, max_s=30.0)


class WorkQueue(Generic[H]):
    """Keys to look at. Single event loop; not thread-safe."""

    def __init__(self, backoff: Backoff = DEFAULT_BACKOFF) -> None:
        self._backoff = backoff
        self._ready: deque[H] = deque()
        self._waiting: set[H] = set()  # in _ready, or to be put there when done
        self._working: set[H] = set()
        self._failures: dict[H, int] = {}
        self._timers: dict[H, asyncio.TimerHandle] = {}
        self._getters: deque[asyncio.Future[None]] = deque()

    def add(self, key: H) -> None:
        """Look at `key` soon; many adds before it is taken are one."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._working:
            self._push(key)

    def add_after(self, key: H, delay_s: float) -> None:
        """Look at `key` after `delay_s`; of several pending delays of a key the earliest wins."""
        if delay_s <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= loop.time() + delay_s:
                return
            pending.cancel()
        self._timers[key] = loop.call_later(delay_s, self._fire, key)

    def retry(self, key: H) -> float:
        """Look at `key` again after its backoff, which grows with every retry; returns the delay in seconds."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay_s = self._backoff.delay_s(self._failures[key])
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: H) -> None:
        """`key` went well: its next retry starts from the beginning."""
        self._failures.pop(key, None)

    async def take(self) -> H:
        """The next key; the caller must say `done(key)` when finished with it."""
        while not self._ready:
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter in self._getters:
                    self._getters.remove(getter)
                elif self._ready:
                    self._wake()  # we were woken and cancelled at once: pass it on
                raise
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: H) -> None:
        """Finished with `key`; if it was added meanwhile it is ready again."""
        self._working.discard(key)
        if key in self._waiting:
            self._push(key)

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing ready and nothing in work; delayed keys do not count."""
        return not self._ready and not self._working

    def close(self) -> None:
        """Drop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _fire(self, key: H) -> None:
        del self._timers[key]
        self.add(key)

    def _push(self, key: H) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
