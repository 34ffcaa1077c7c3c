"""Gives back the disk: images that nobody uses, when the file system fills or the node asks for it.

Stands apart because the store is shared by the nodes of a machine, so that an image goes only if no node uses it.
`core.garbage` chooses; called by the agent every few minutes and by the evictor under disk pressure. Ended containers
need no collector: their roots and bundles go with them, and of their logs the last attempt's is kept.
"""

import contextlib
from collections.abc import Callable, Iterator

from pilotage.agent.core import garbage
from pilotage.agent.core.eviction import Observation
from pilotage.agent.core.garbage import ImageUse, Policy
from pilotage.agent.image_uses import ImageUses
from pilotage.agent.images import ImageError, ImageStore
from pilotage.kit.clock import Clock
from pilotage.telemetry import get_logger

_log = get_logger()


class ImageCollector:
    """Of one node. Blocking; call from a thread."""

    def __init__(self, *, images: ImageStore, uses: ImageUses, policy: Policy, clock: Clock) -> None:
        self._images = images
        self._uses = uses
        self._policy = policy
        self._clock = clock
        self._detected: dict[str, float] = {}  # digest → when it was first seen

    def collect(self, imagefs: Observation | None) -> str:
        """Keep to the thresholds; what went wrong, in the words of an event, or nothing."""
        now = self._clock.wall().timestamp()
        available, capacity = (imagefs.available, imagefs.capacity) if imagefs is not None else (0, 0)
        full = capacity and 100 - available * 100 // capacity >= self._policy.high_percent
        # Sizes are measured only when they matter: that walks every file.
        found = self._survey(now, sizes=bool(full))
        chosen = garbage.choose(found, self._policy, available=available, capacity=capacity, now=now)
        self._remove(chosen.digests)
        return chosen.failure

    def remove_unused(self) -> None:
        """Under disk pressure: everything that nobody uses."""
        now = self._clock.wall().timestamp()
        self._remove(garbage.all_unused(self._survey(now, sizes=False)))

    def _survey(self, now: float, *, sizes: bool) -> list[ImageUse]:
        try:
            digests = self._images.digests()
        except ImageError as error:
            _log.warning("cannot list images", error=str(error))
            return []
        self._detected = {digest: self._detected.get(digest, now) for digest in digests}
        return [
            ImageUse(
                digest=digest,
                size_bytes=self._images.size(digest) if sizes else 0,
                in_use=self._uses.in_use(digest),
                last_used=self._uses.last_use(digest),
                detected=self._detected[digest],
            )
            for digest in digests
        ]

    def _remove(self, digests: tuple[str, ...]) -> None:
        for digest in digests:
            try:
                if self._images.discard(digest, self._guard(digest)):
                    self._uses.forget(digest)
                    _log.info("removed an image that nobody uses", digest=digest)
            except ImageError as error:
                _log.warning("cannot remove an image", digest=digest, error=str(error))

    def _guard(self, digest: str) -> Callable[[], contextlib.AbstractContextManager[bool]]:
        @contextlib.contextmanager
        def guard() -> Iterator[bool]:
            with self._uses.locked():
                yield not self._uses.in_use(digest)

        return guard
