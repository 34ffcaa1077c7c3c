"""A directory that behaves like the control groups of version 2, for machines that have only version 1.

Ships with the seam, `ControlGroups(make=make_group)`: a new group finds the files of those controllers that the group
above has handed down, as the kernel would have it, and of no others. It counts nothing and bounds nobody.
"""

from pathlib import Path

_FILES = {
    "cpu": ("cpu.weight", "cpu.max"),
    "memory": ("memory.min", "memory.high", "memory.max", "memory.current", "memory.stat", "memory.events"),
    "pids": ("pids.max", "pids.current"),
}
_USUAL = ("cgroup.procs", "cgroup.subtree_control")


def unified_root(path: Path, controllers: str = "cpu memory pids") -> Path:
    """Make `path` look like the root of a machine with `controllers`."""
    path.mkdir()
    (path / "cgroup.controllers").write_text(f"{controllers}\n")
    for name in _USUAL:
        (path / name).touch()
    return path


def make_group(path: Path) -> None:
    """What mkdir(2) does there; cgroup-v2.rst "Enabling and Disabling"."""
    path.mkdir()
    given = [word.lstrip("+") for word in (path.parent / "cgroup.subtree_control").read_text().split()]
    (path / "cgroup.controllers").write_text(" ".join(given) + "\n")
    for name in (*_USUAL, *(file for controller in given for file in _FILES.get(controller, ()))):
        (path / name).touch()
