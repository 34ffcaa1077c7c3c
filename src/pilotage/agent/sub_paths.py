"""Directories and files inside volumes, mounted by themselves (subPath), without being led out of the volume.

So are whole volumes of pods with users of their own: their owners have to be others there.

Stands apart because containers of the pod may change the volume while another one starts: a path that was checked is
not the path that is mounted a moment later. So each part is opened below the one before, no link is followed, and what
was opened, not what its name means by then, is bound to a place of our own, which the runtime is given. As the kubelet
does it since CVE-2017-1002101. Called by `container_setup`.

Below the runtime directory: `subpaths/<uid>/<container>/<index>`.
"""

import os
import stat
from pathlib import Path

from pilotage.agent.errors import MountFailure
from pilotage.agent.mounts import Mounts
from pilotage.network import NetworkError


class SubPaths:
    """Of all pods of this node."""

    def __init__(self, directory: Path, mounts: Mounts) -> None:
        self._directory = directory
        self._mounts = mounts

    def bind(
        self, uid: str, container: str, index: int, volume: Path, relative: str, *, users: Path | None = None
    ) -> Path:
        """Where `relative` inside `volume` is bound to; made if it is missing. Raises `MountFailure`, `OSError`.

        An empty `relative` is all of it. Owners are as the user namespace at `users` has them; None: as they are.

        A place that an earlier attempt of the container was given is bound anew.
        """
        target = self._directory / uid / container / str(index)
        self._clear(target)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = open_beneath(volume, relative) if relative else os.open(volume, os.O_PATH | os.O_CLOEXEC)
        try:
            self._mounts.bind(fd, target, users=users)
        except NetworkError as error:
            raise MountFailure(f"volume {volume} cannot be shown to a pod with users of its own: {error}") from error
        finally:
            os.close(fd)
        return target

    def release(self, uid: str) -> None:
        """Undo what was bound for a pod. Never deletes what a place shows: a busy one stays, empty ones go."""
        top = self._directory / uid
        for directory in sorted(top.iterdir()) if top.is_dir() else ():
            for target in sorted(directory.iterdir()):
                self._clear(target)
            directory.rmdir()
        if top.is_dir():
            top.rmdir()

    def _clear(self, target: Path) -> None:
        self._mounts.unbind(target)
        if target.is_dir():
            target.rmdir()
        else:
            target.unlink(missing_ok=True)


def open_beneath(volume: Path, relative: str) -> int:
    """A descriptor (O_PATH) of what is there; raises `MountFailure` for a way out of the volume.

    Links inside the volume that stay inside are resolved first; what is a link by the time it is opened is refused.
    Directories that are missing get the volume's own mode, so that whoever may write there may write in them too.
    """
    inside = Path(os.path.realpath(volume))
    resolved = Path(os.path.realpath(volume / relative))
    if not resolved.is_relative_to(inside):
        raise MountFailure(f"subPath {relative!r} leads out of its volume")
    fd = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    for part in resolved.relative_to(inside).parts:
        try:
            below = _open_part(fd, part, mode)
            if stat.S_ISLNK(os.fstat(below).st_mode):
                os.close(below)
                raise MountFailure(f"subPath {relative!r} leads out of its volume")
        finally:
            os.close(fd)
        fd = below
    return fd


def _open_part(parent: int, name: str, mode: int) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(name, 0o700, dir_fd=parent)
    made = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=parent)
    try:
        os.fchmod(made, mode)  # mkdir(2) would have heeded the umask
    finally:
        os.close(made)
    return os.open(name, flags, dir_fd=parent)
