"""Which images a node gives up when its disk fills.

Stands apart because the choice is pure: usage of the file system and last uses in, digests out. Source: "Garbage
Collection" in the Kubernetes documentation (image lifecycle). `collector` reads and removes.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUse:
    """One image that is on the node. Times are seconds since the epoch."""

    digest: str
    size_bytes: int
    in_use: bool  # by some container of some node of this store
    last_used: float
    detected: float  # when it came


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The kubelet's defaults."""

    high_percent: int = 85  # of the file system: above, images go
    low_percent: int = 80  # down to this
    age_s_min: float = 120.0  # an image that has just come is about to be used
    age_s_max: float = 0.0  # unused for so long, it goes however much room there is; 0: never


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What goes, the least recently used first, and how much was to be freed."""

    digests: tuple[str, ...]
    wanted_bytes: int = 0
    found_bytes: int = 0

    @property
    def failure(self) -> str:
        """What the node says when too little can go; empty when it is enough."""
        if self.found_bytes >= self.wanted_bytes:
            return ""
        return (
            f"Failed to garbage collect required amount of images. Attempted to free {self.wanted_bytes} bytes, "
            f"but only found {self.found_bytes} bytes eligible to free."
        )


def choose(images: Iterable[ImageUse], policy: Policy, *, available: int, capacity: int, now: float) -> Collection:
    """Images to remove: those that are too old, then by last use until the low threshold is reached."""
    free = sorted((one for one in images if not one.in_use), key=lambda one: (one.last_used, one.detected))
    old = [one for one in free if policy.age_s_max and now - max(one.last_used, one.detected) > policy.age_s_max]
    used_percent = 100 - available * 100 // capacity if capacity else 0
    wanted = 0
    if used_percent >= policy.high_percent:
        wanted = capacity * (100 - policy.low_percent) // 100 - available
    chosen, found = list(old), sum(one.size_bytes for one in old)
    for image in free:
        if found >= wanted:
            break
        if image not in old and now - image.detected >= policy.age_s_min:
            chosen.append(image)
            found += image.size_bytes
    return Collection(digests=tuple(one.digest for one in chosen), wanted_bytes=max(wanted, 0), found_bytes=found)


def all_unused(images: Iterable[ImageUse]) -> tuple[str, ...]:
    """Under disk pressure age does not count."""
    return tuple(one.digest for one in sorted(images, key=lambda one: one.last_used) if not one.in_use)
