"""mount(2) and umount2(2) for the agent: overlays, tmpfs, binds.

Stands apart so that the flags are spelt once. The system call itself is `pilotage.network.namespaces`'; everything
here happens in the mount namespace of the agent. Called by `rootfs`, `volumes` and the runtime.
"""

import os
from pathlib import Path

from pilotage.network.namespaces import MS_BIND, MS_NODEV, MS_NOSUID, mount, unmount


def overlay(target: Path, *, lower: tuple[str, ...], upper: Path, work: Path) -> None:
    """Mount a writable view of `lower` (topmost first) on `target`; overlayfs.rst."""
    for path in (target, upper, work):
        path.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={':'.join(_escaped(one) for one in lower)},upperdir={_escaped(str(upper))}"
    mount("overlay", str(target), "overlay", 0, f"{options},workdir={_escaped(str(work))}")


def _escaped(path: str) -> str:
    """Colons and commas separate options."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def tmpfs(target: Path, *, mode: int = 0o755, size_bytes: int = 0) -> None:
    """A fresh tmpfs on `target`; `size_bytes` 0 means the kernel's default, half of the memory."""
    target.mkdir(parents=True, exist_ok=True)
    size = f",size={size_bytes}" if size_bytes else ""
    mount("tmpfs", str(target), "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode:o}{size}")


def bind(source: str, target: Path) -> None:
    """Make `source` visible at `target` (which must exist)."""
    mount(source, str(target), "", MS_BIND)


def detach(target: Path) -> None:
    """Unmount everything stacked on `target`; no error when nothing is."""
    while is_mount(target):
        unmount(str(target))


def is_mount(path: Path) -> bool:
    """Whether something is mounted on this very directory or file."""
    try:
        here, parent = os.stat(path), os.stat(path.parent)
    except FileNotFoundError:
        return False
    return here.st_dev != parent.st_dev


def mount_points(below: str = "/") -> list[str]:
    """Mount points at or below a path, in the order they were mounted (proc_pid_mountinfo(5))."""
    prefix = below.rstrip("/") + "/"
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4].encode().decode("unicode_escape")
        if (point + "/").startswith(prefix):
            points.append(point)
    return points
