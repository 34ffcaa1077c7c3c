"""Who uses which image: one mark for each root that stands on it, in a directory that all nodes of the store share.

Stands apart from `images` because marks are made in the middle of a start, which must not wait for the lock of a pull
that takes minutes. A mark is made before the root is mounted and goes after it was unmounted; one whose root is gone
(the machine was restarted) counts for nothing. Called by `rootfs` and by `collector`.

Below the store's directory: `uses/<digest>/<container id>`, which holds the path of the root; a directory's time of
change is the image's last use.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from pilotage.agent.errors import StartRefused
from pilotage.agent.images import Image, plain


class ImageUses:
    """The marks of one store. Safe for several processes; every lock is held for a moment only."""

    def __init__(self, directory: Path) -> None:
        self._uses = directory / "uses"

    def claim(self, image: Image, container_id: str, base: Path) -> None:
        """The image stays until `release`. Raises `StartRefused` if it has just been removed."""
        if image.is_host:
            return
        with self.locked():
            if not image.lower.is_dir():
                raise StartRefused("CreateContainerError", f"image {image.name} was removed while it was being used")
            directory = self._uses / plain(image.digest)
            directory.mkdir(exist_ok=True, mode=0o700)
            (directory / container_id).write_text(str(base))

    def release(self, container_id: str) -> None:
        """The root is gone. No error when there is no mark."""
        if self._uses.is_dir():
            for mark in self._uses.glob(f"*/{container_id}"):
                mark.unlink(missing_ok=True)

    def last_use(self, digest: str) -> float:
        """When an image was last taken up or given back; 0 if it never was."""
        try:
            return (self._uses / plain(digest)).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def in_use(self, digest: str) -> bool:
        """Whether a root of some node stands on it."""
        directory = self._uses / plain(digest)
        for mark in directory.iterdir() if directory.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                if Path(mark.read_text()).is_dir():
                    return True
        return False

    def forget(self, digest: str) -> None:
        """The image was removed."""
        directory = self._uses / plain(digest)
        for mark in directory.iterdir() if directory.is_dir() else ():
            mark.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            directory.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """No mark is made while this holds."""
        self._uses.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self._uses / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
