"""Control groups around containers: made for nodes, classes of service and pods, read for usage and OOM kills, removed.

Stands apart because versions 1, 2 and the hybrid of both differ only here; what the groups are given is `core.groups`',
and containers' own groups are made by the runtime from the OCI document. Version 1 counts wherever its controllers are
mounted: in hybrid mode the unified hierarchy has none. cgroups(7), kernel documentation cgroup-v1/memory.rst and
cgroup-v2.rst. A group that is made under version 2 hands its controllers down (cgroup.subtree_control); nothing but
containers' groups holds processes, so none of them breaks the rule of no inner processes.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pilotage.agent.core import groups
from pilotage.agent.core.groups import GroupLimits
from pilotage.api.core_v1 import Pod

ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpu", "memory", "pids")  # those that `core.groups` sets; the runtime makes groups in the others


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupUsage:
    """What the processes of a group have now. 0 where nobody counts."""

    memory_bytes: int = 0  # the working set: without file pages that nobody has touched lately
    processes: int = 0


class ControlGroups:
    """The groups below `parent` ("/pilotage/<cluster>/<node>"); `core.groups` says how they nest."""

    def __init__(self, parent: str, *, root: Path = ROOT, make: Callable[[Path], None] = Path.mkdir) -> None:
        self.parent = parent.rstrip("/")
        self._root = root
        self._make_directory = make  # the kernel fills a new group's directory with its files
        self.unified = (root / "cgroup.controllers").exists()
        if self.unified:
            self._hierarchies = [root]
        else:
            # Controllers mounted together appear once under their joint name and again as symbolic links.
            found = sorted(root.iterdir()) if root.is_dir() else []
            self._hierarchies = [path for path in found if path.is_dir() and not path.is_symlink()]

    @property
    def writable(self) -> bool:
        """Whether this process may make groups at all (not in an ordinary user namespace)."""
        hierarchies = self._hierarchies
        return bool(hierarchies) and all(os.access(path / "cgroup.procs", os.W_OK) for path in hierarchies)

    # ── what the agent makes ────────────────────────────────────────────────────────────────────────────────────

    def open_node(self, pods: Iterable[Pod], *, milli_cpu: int, memory_bytes: int) -> None:
        """Make or correct the groups of the node and of its classes. Raises `OSError`."""
        known = tuple(pods)
        self._set("", groups.of_node(known, milli_cpu=milli_cpu, memory_bytes=memory_bytes))
        for name, limits in groups.of_classes(known).items():
            self._set(name, limits)

    def open_pod(self, pod: Pod) -> None:
        """Make the pod's group, or correct it after its resources changed. Raises `OSError`.

        A memory limit below what is in use is refused under either version: version 2 would take it and kill.
        """
        limits = groups.of_pod(pod)
        used = self.usage(pod.metadata.uid).memory_bytes
        if limits.memory_max is not None and used > limits.memory_max:
            told = f"attempting to set pod memory limit ({limits.memory_max}) below current usage ({used})"
            raise OSError(errno.EBUSY, told)
        self._set(groups.directory(pod), limits)

    def _set(self, name: str, limits: GroupLimits) -> None:
        settings = groups.version_2(limits) if self.unified else groups.version_1(limits)
        relative = f"{self.parent}/{name}".strip("/")
        for controller in _CONTROLLERS:
            hierarchy = self._root if self.unified else self._root / controller
            if hierarchy.is_dir():
                self._make(hierarchy, relative)
                for setting in settings:
                    if setting.controller == controller:
                        _write(hierarchy / relative / setting.file, setting.value)

    def _make(self, hierarchy: Path, relative: str) -> None:
        group = hierarchy
        for part in relative.split("/"):
            if self.unified:
                _hand_down(group)
            group /= part
            with contextlib.suppress(FileExistsError):
                self._make_directory(group)
        if self.unified:
            _hand_down(group)

    # ── what others ask ─────────────────────────────────────────────────────────────────────────────────────────

    def path(self, uid: str, container_id: str) -> str:
        """cgroupsPath of one container: in its pod's group, wherever that was made."""
        return f"{self.parent}/{self._directory(uid)}/{container_id}"

    def was_oom_killed(self, uid: str, container_id: str) -> bool:
        """Whether the kernel killed a process of this (still existing) group for want of memory."""
        group = self._memory(self.path(uid, container_id))
        name = "memory.events" if self.unified else "memory.oom_control"
        return _fields(group / name).get("oom_kill", 0) != 0

    def usage(self, uid: str = "") -> GroupUsage:
        """Of one pod, or of all of them."""
        relative = f"{self.parent}/{self._directory(uid)}" if uid else self.parent
        return self._usage(relative)

    def container_usage(self, uid: str, container_id: str) -> GroupUsage:
        """Of one container."""
        return self._usage(self.path(uid, container_id))

    def _usage(self, relative: str) -> GroupUsage:
        group = self._memory(relative)
        stat = _fields(group / "memory.stat")
        used = _number(group / ("memory.current" if self.unified else "memory.usage_in_bytes"))
        inactive = stat.get("inactive_file" if self.unified else "total_inactive_file", 0)
        pids = self._root if self.unified else self._root / "pids"
        return GroupUsage(
            memory_bytes=max(used - inactive, 0), processes=_number(pids / relative.strip("/") / "pids.current")
        )

    def _memory(self, relative: str) -> Path:
        return (self._root if self.unified else self._root / "memory") / relative.strip("/")

    def _directory(self, uid: str) -> str:
        """A pod's class never changes, so that its group is where it was made."""
        name = f"pod{uid}"
        places = (f"{prefix}{name}" for prefix in ("", "burstable/", "besteffort/"))
        return next((place for place in places if self._memory(f"{self.parent}/{place}").is_dir()), name)

    # ── and their end ───────────────────────────────────────────────────────────────────────────────────────────

    def remove_pod(self, uid: str) -> None:
        """Remove a pod's (empty) groups."""
        for hierarchy in self._hierarchies:
            node = hierarchy / self.parent.lstrip("/")
            for group in (node, node / "burstable", node / "besteffort"):
                remove_tree(group / f"pod{uid}")


def remove_all(parent: str, *, root: Path = ROOT) -> None:
    """Remove every (empty) group below `parent` and `parent` itself: for the end of a cluster."""
    for hierarchy in ControlGroups(parent, root=root)._hierarchies:
        group = hierarchy / parent.strip("/")
        remove_tree(group)
        # The level above is shared by clusters: the last one out takes it along.
        _remove(group.parent) if group.parent != hierarchy else None


def remove_tree(group: Path) -> None:
    """rmdir(2) from the leaves up; groups that still hold processes are left alone."""
    if not group.is_dir():
        return
    for directory, _, _ in os.walk(group, topdown=False):
        _remove(Path(directory))


def _hand_down(group: Path) -> None:
    """Let the groups in `group` have its controllers; those that it lacks are nobody's to give."""
    there = _words(group / "cgroup.controllers")
    missing = [one for one in _CONTROLLERS if one in there and one not in _words(group / "cgroup.subtree_control")]
    if missing:
        _write(group / "cgroup.subtree_control", " ".join(f"+{one}" for one in missing))


def _write(path: Path, value: str) -> None:
    # Without O_CREAT: a controller that the kernel lacks has no file, which is an error to report and not to hide.
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _number(path: Path) -> int:
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else 0


def _fields(path: Path) -> dict[str, int]:
    """Lines `name number`."""
    words = _words(path)
    return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=False) if value.isdigit()}


def _remove(group: Path) -> None:
    try:
        group.rmdir()
    except OSError:
        return
