"""mount(2) and umount2(2) for the agent: overlays and tmpfs.

Stands apart as a seam: `Mounts` is what roots, volumes and pods need of the mount table, `KernelMounts` changes the
agent's mount namespace, `FakeMounts` makes directories and remembers. The system call itself is
`pilotage.network.namespaces`'.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pilotage.network.namespaces import MS_BIND, MS_NODEV, MS_NOSUID, MS_REC, bind_mapped, mount, unmount


class Mounts(Protocol):
    """Changes to the mount table; all targets are made if they are missing."""

    def overlay(self, target: Path, *, lower: tuple[str, ...], upper: Path, work: Path) -> None:
        """Mount a writable view of `lower` (topmost first) on `target`; overlayfs.rst."""
        ...

    def mapped_overlay(self, target: Path, *, lower: Path, users: Path, place: Path, upper: Path, work: Path) -> None:
        """As `overlay`, with the owners of `lower` as the user namespace at `users` has them (overlayfs.rst).

        `place` is an empty directory for the time of the call. Raises `NetworkError` where that cannot be.
        """
        ...

    def tmpfs(self, target: Path, *, mode: int = 0o755, size_bytes: int = 0) -> None:
        """A fresh tmpfs on `target`; `size_bytes` 0 means the kernel's default, half of the memory."""
        ...

    def bind(self, fd: int, target: Path, *, users: Path | None = None) -> None:
        """Show what `fd` was opened on, and what is mounted below it, at `target`.

        Its owners are as the user namespace at `users` has them. Raises `NetworkError` where that cannot be.
        """
        ...

    def unbind(self, target: Path) -> None:
        """Undo `bind`; no error when nothing is bound."""
        ...

    def detach(self, target: Path) -> None:
        """Unmount everything stacked on `target`; no error when nothing is."""
        ...

    def is_mount(self, path: Path) -> bool:
        """Whether a file system of its own is mounted on this very directory."""
        ...


class KernelMounts:
    """`Mounts` in the mount namespace of this process."""

    def mapped_overlay(self, target: Path, *, lower: Path, users: Path, place: Path, upper: Path, work: Path) -> None:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        unmount(str(place))  # of an agent that was killed in here
        try:
            with _opened(lower) as fd, _opened(users) as namespace:
                bind_mapped(fd, str(place), namespace, read_only=True, recursive=False)
            self.overlay(target, lower=(str(place),), upper=upper, work=work)
        finally:  # the overlay holds its own
            unmount(str(place))
            place.rmdir()

    def overlay(self, target: Path, *, lower: tuple[str, ...], upper: Path, work: Path) -> None:
        for path in (target, upper, work):
            path.mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={':'.join(_escaped(one) for one in lower)},upperdir={_escaped(str(upper))}"
        mount("overlay", str(target), "overlay", 0, f"{options},workdir={_escaped(str(work))}")

    def tmpfs(self, target: Path, *, mode: int = 0o755, size_bytes: int = 0) -> None:
        target.mkdir(parents=True, exist_ok=True)
        size = f",size={size_bytes}" if size_bytes else ""
        mount("tmpfs", str(target), "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode:o}{size}")

    def bind(self, fd: int, target: Path, *, users: Path | None = None) -> None:
        _make_like(fd, target)
        if users is None:
            mount(f"/proc/self/fd/{fd}", str(target), "", MS_BIND | MS_REC)
            return
        with _opened(users) as namespace:
            bind_mapped(fd, str(target), namespace)

    def unbind(self, target: Path) -> None:
        unmount(str(target))

    def detach(self, target: Path) -> None:
        while self.is_mount(target):
            unmount(str(target))

    def is_mount(self, path: Path) -> bool:
        try:
            here, parent = os.stat(path), os.stat(path.parent)
        except FileNotFoundError:
            return False
        return here.st_dev != parent.st_dev


class FakeMounts:
    """`Mounts` as directories and a set."""

    def __init__(self) -> None:
        self.targets: set[Path] = set()

    def mapped_overlay(self, target: Path, *, lower: Path, users: Path, place: Path, upper: Path, work: Path) -> None:
        self.overlay(target, lower=(str(lower),), upper=upper, work=work)

    def overlay(self, target: Path, *, lower: tuple[str, ...], upper: Path, work: Path) -> None:
        for path in (target, upper, work):
            path.mkdir(parents=True, exist_ok=True)
        self.targets.add(target)

    def tmpfs(self, target: Path, *, mode: int = 0o755, size_bytes: int = 0) -> None:
        target.mkdir(parents=True, exist_ok=True)
        self.targets.add(target)

    def bind(self, fd: int, target: Path, *, users: Path | None = None) -> None:
        _make_like(fd, target)
        self.targets.add(target)

    def unbind(self, target: Path) -> None:
        self.targets.discard(target)

    def detach(self, target: Path) -> None:
        self.targets.discard(target)

    def is_mount(self, path: Path) -> bool:
        return path in self.targets


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _make_like(fd: int, target: Path) -> None:
    """A place for a directory to be bound to, or for anything else."""
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        target.mkdir(exist_ok=True, mode=0o700)
    else:
        target.touch(mode=0o600)


def _escaped(path: str) -> str:
    """Colons and commas separate options."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def mount_points(below: str = "/") -> list[str]:
    """Mount points at or below a path, in the order they were mounted (proc_pid_mountinfo(5))."""
    prefix = below.rstrip("/") + "/"
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4].encode().decode("unicode_escape")
        if (point + "/").startswith(prefix):
            points.append(point)
    return points
