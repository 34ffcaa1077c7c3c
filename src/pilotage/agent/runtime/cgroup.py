"""Control groups around containers: where they are, what they say after an OOM kill, and their removal.

Stands apart because versions 1, 2 and the hybrid of both differ only here; the runtime itself creates the groups and
sets the limits from the OCI document. cgroups(7), kernel documentation cgroup-v1/memory.rst and cgroup-v2.rst.
"""

import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class ControlGroups:
    """The groups below `parent` ("/pilotage/<cluster>"): one per pod, in it one per container."""

    def __init__(self, parent: str, *, root: Path = ROOT) -> None:
        self.parent = parent.rstrip("/")
        self.unified = (root / "cgroup.controllers").exists()
        if self.unified:
            self._hierarchies = [root]
        else:
            # Controllers mounted together appear once under their joint name and again as symbolic links.
            found = sorted(root.iterdir()) if root.is_dir() else []
            self._hierarchies = [path for path in found if path.is_dir() and not path.is_symlink()]
        self._memory = root if self.unified else root / "memory"

    @property
    def writable(self) -> bool:
        """Whether this process may make groups at all (not in an ordinary user namespace)."""
        hierarchies = self._hierarchies
        return bool(hierarchies) and all(os.access(path / "cgroup.procs", os.W_OK) for path in hierarchies)

    def path(self, uid: str, container_id: str) -> str:
        """cgroupsPath of one container."""
        return f"{self.parent}/{uid}/{container_id}"

    def was_oom_killed(self, uid: str, container_id: str) -> bool:
        """Whether the kernel killed a process of this (still existing) group for want of memory."""
        group = self._memory / self.path(uid, container_id).lstrip("/")
        name = "memory.events" if self.unified else "memory.oom_control"
        try:
            lines = (group / name).read_text().splitlines()
        except OSError:
            return False
        counts = dict(line.split(" ", 1) for line in lines if " " in line)
        return counts.get("oom_kill", "0") != "0"

    def remove_pod(self, uid: str) -> None:
        """Remove a pod's (empty) groups, and the parent's when it was the last one."""
        for hierarchy in self._hierarchies:
            group = hierarchy / self.parent.lstrip("/")
            remove_tree(group / uid)


def remove_all(parent: str, *, root: Path = ROOT) -> None:
    """Remove every (empty) group below `parent` and `parent` itself: for the end of a cluster."""
    for hierarchy in ControlGroups(parent, root=root)._hierarchies:
        group = hierarchy / parent.strip("/")
        remove_tree(group)
        # The level above is shared by clusters: the last one out takes it along.
        _remove(group.parent) if group.parent != hierarchy else None


def remove_tree(group: Path) -> None:
    """rmdir(2) from the leaves up; groups that still hold processes are left alone."""
    for directory, _, _ in os.walk(group, topdown=False):
        _remove(Path(directory))


def _remove(group: Path) -> None:
    try:
        group.rmdir()
    except OSError:
        return
