"""A container's root: an overlay above an image, made before the container and taken away after it.

Stands apart because the host's own file system needs care as a lower layer. With privilege it is one overlay of `/`.
In a user namespace the kernel refuses that (`/` has mounts the namespace may not lift, clone_private_mount()), so every
top-level directory becomes an overlay or a read-only bind of its own, mounted by the runtime inside the container.
Source: kernel documentation filesystems/overlayfs.rst ("userxattr", "overlapping layers").
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pilotage.agent.core.oci import Mount
from pilotage.agent.image_uses import ImageUses
from pilotage.agent.images import Image
from pilotage.agent.mounts import Mounts, mount_points
from pilotage.agent.user_namespaces import PodUsers
from pilotage.network import NetworkError

# Made anew for every container, never taken from the host.
_NOT_SHARED = frozenset({"dev", "proc", "sys", "run", "tmp", "mnt", "media", "lost+found", "boot"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFS:
    """What the OCI document needs."""

    path: Path
    mounts: tuple[Mount, ...] = ()
    hidden_paths: tuple[str, ...] = ()


class RootFSMaker:
    """Roots below `scratch`, which must be on another file system than `/` (overlay layers may not overlap).

    Those of pods with users of their own are mounted in `passable`, which anybody may pass (and nobody may list).
    """

    def __init__(
        self,
        *,
        scratch: Path,
        passable: Path,
        hidden: tuple[Path, ...],
        privileged: bool,
        mounts: Mounts,
        uses: ImageUses,
    ) -> None:
        self._passable = passable
        self._mounts = mounts
        self._uses = uses
        self._scratch = scratch
        self._hidden = hidden  # directories of this cluster that no container may see
        self._privileged = privileged

    def prepare(self) -> None:
        """Make `scratch` a tmpfs of its own unless it is one already."""
        self._scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._mounts.is_mount(self._scratch):
            self._mounts.tmpfs(self._scratch, mode=0o700)

    def make(self, image: Image, container_id: str, *, users: PodUsers | None = None) -> RootFS:
        """The root of one container; an older one of the same id is replaced. 1-2 ms.

        With `users` everything in it belongs to them; only where the process is privileged. Raises `NetworkError` for
        an image on a file system that cannot show other owners.
        """
        self.remove(container_id)
        base = self._scratch / container_id
        if not image.is_host:
            base.mkdir(parents=True)
            self._uses.claim(image, container_id, base)
            return RootFS(path=self._overlay(image.lower, base, users))
        # What is not shared need not be hidden, and must not be: the container has a fresh directory there.
        hidden = tuple(str(path) for path in self._hidden if path.parts[1:2] and path.parts[1] not in _NOT_SHARED)
        if self._privileged:
            root = self._overlay(Path("/"), base, users)
            # The node's runtime files are not for the container, nor are its temporary files.
            for name in ("run", "tmp"):
                shown = base / name
                shown.mkdir()
                if users is not None:
                    os.chown(shown, users.host_id, users.host_id)
            mounts = (*_own_file_systems(), *_fresh_directories(base), *program_mounts(_program_paths()))
            return RootFS(path=root, mounts=mounts, hidden_paths=hidden)
        root = base / "root"
        root.mkdir(parents=True)
        mounts = (*self._parts(root, base), *program_mounts(_program_paths()))
        return RootFS(path=root, mounts=mounts, hidden_paths=hidden)

    def _overlay(self, lower: Path, base: Path, users: PodUsers | None) -> Path:
        """Where it is mounted."""
        upper, work = base / "upper", base / "work"
        if users is None:
            root = base / "root"
            self._mounts.overlay(root, lower=(str(lower),), upper=upper, work=work)
            return root
        self._passable.mkdir(parents=True, exist_ok=True, mode=0o711)
        _check_way(self._passable)
        upper.mkdir(parents=True)
        os.chown(upper, users.host_id, users.host_id)
        root = self._passable / base.name
        # Never below `base`, which is deleted with all that is in it.
        place = self._scratch.with_name("lower") / base.name
        self._mounts.mapped_overlay(root, lower=lower, users=users.namespace, place=place, upper=upper, work=work)
        return root

    def remove(self, container_id: str) -> None:
        """Undo `make`. No error when there is nothing."""
        base = self._scratch / container_id
        if base.exists():
            self._mounts.detach(base / "root")
            shutil.rmtree(base, ignore_errors=True)
        passable = self._passable / container_id
        if passable.is_dir():
            self._mounts.detach(passable)
            passable.rmdir()
        self._uses.release(container_id)

    def list(self) -> list[str]:
        """Whose roots there are, by container id."""
        return [base.name for base in self._scratch.iterdir()]

    def layer(self, container_id: str) -> tuple[Path, ...]:
        """The directories that hold what the container has written."""
        base = self._scratch / container_id
        return base / "upper", base / "run", base / "tmp"

    def _parts(self, root: Path, base: Path) -> tuple[Mount, ...]:
        """One mount per top-level directory of the host; symbolic links are copied."""
        found: list[Mount] = []
        mounted = [point for point in mount_points() if point != "/"]
        for entry in sorted(os.scandir("/"), key=lambda one: one.name):
            target = root / entry.name
            if entry.is_symlink():
                target.symlink_to(os.readlink(entry.path))
            elif entry.is_dir() and entry.name in _NOT_SHARED:
                target.mkdir()
                if entry.name == "tmp":
                    target.chmod(0o1777)
            elif entry.is_dir():
                target.mkdir()
                covered = any(point.startswith(f"{entry.path}/") or point == entry.path for point in mounted)
                if covered or any(path.is_relative_to(entry.path) for path in (self._scratch, *self._hidden)):
                    found.append(Mount(destination=entry.path, source=entry.path, options=("rbind", "ro")))
                    continue
                upper, work = base / "upper" / entry.name, base / "work" / entry.name
                upper.mkdir(parents=True)
                work.mkdir(parents=True)
                options = (f"lowerdir={entry.path}", f"upperdir={upper}", f"workdir={work}", "userxattr")
                found.append(Mount(destination=entry.path, type="overlay", source="overlay", options=options))
        return tuple(found)


def _check_way(place: Path) -> None:
    """The runtime looks for a root as its container's user, who must get there. Raises `NetworkError`."""
    shut = next((one for one in (place, *place.parents) if not one.stat().st_mode & 0o001), None)
    if shut is not None:
        raise NetworkError(f"{shut} lets only the node's own users pass: it needs mode 0711")


def program_mounts(paths: Iterable[str]) -> tuple[Mount, ...]:
    """Those of `paths` that a container would miss because they lie in a directory made anew, read-only.

    Whoever tries Pilotage from a clone in /tmp finds the program in containers all the same, and nothing else of /tmp.
    """
    kept: list[str] = []
    for path in sorted(paths):
        if path.split("/")[1] in _NOT_SHARED and not any(path.startswith(f"{other}/") for other in kept):
            kept.append(path)
    return tuple(Mount(destination=path, source=path, options=("rbind", "ro")) for path in kept)


def _program_paths() -> frozenset[str]:
    """The directories that hold this program and its interpreter."""
    import sys
    import sysconfig

    paths = {sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), str(Path(__file__).parents[2])}
    return frozenset(filter(os.path.exists, paths))


def _own_file_systems() -> tuple[Mount, ...]:
    """An overlay of `/` shows no other file system: those that hold this program are bound in, read-only."""
    root_device = os.stat("/").st_dev
    points = [point for point in mount_points() if point != "/"]
    found: dict[str, Mount] = {}
    for path in sorted(_program_paths()):
        if os.stat(path).st_dev == root_device:
            continue
        above = [point for point in points if (path + "/").startswith(point + "/")]
        if above:
            point = max(above, key=len)
            found[point] = Mount(destination=point, source=point, options=("bind", "ro"))
    return tuple(found.values())


def _fresh_directories(base: Path) -> tuple[Mount, ...]:
    (base / "tmp").chmod(0o1777)
    return tuple(
        Mount(destination=f"/{name}", source=str(base / name), options=("bind", "rw")) for name in ("run", "tmp")
    )
