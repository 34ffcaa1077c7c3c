"""What the node has left, and what each pod uses of it.

Stands apart as a seam: `Meter` is what eviction needs to know, `KernelMeter` reads it from /proc, control groups and
file systems, `FakeMeter` says what it was told, so that pressure can be tried out without filling a machine; one suite
runs on both. The signals' definitions are the kubelet's ("Node-pressure Eviction").
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pilotage.agent.core import eviction
from pilotage.agent.core.eviction import Observation, Usage
from pilotage.agent.runtime.cgroup import ControlGroups
from pilotage.api.core_v1 import Pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One pod's use of its node."""

    whole: Usage = field(default_factory=Usage)
    containers: Mapping[str, Usage] = field(default_factory=dict)  # by name; `disk_bytes`: writable layer and logs
    volumes: Mapping[str, int] = field(default_factory=dict)  # bytes of each emptyDir on disk


class Meter(Protocol):
    """Blocking; call from a thread."""

    def signals(self) -> Mapping[str, Observation]:
        """Every signal of `core.eviction` that can be read here."""
        ...

    def pod(self, pod: Pod, containers: Mapping[str, str]) -> Measured:
        """`containers`: name → id. Zeros for what is not there."""
        ...


class KernelMeter:
    """`Meter` on this machine."""

    def __init__(
        self,
        *,
        pods_dir: Path,
        images_dir: Path,
        groups: ControlGroups,
        layer: Callable[[str], tuple[Path, ...]],
        allocatable_memory: int,
    ) -> None:
        self._pods_dir = pods_dir
        self._images_dir = images_dir
        self._groups = groups
        self._layer = layer
        self._allocatable_memory = allocatable_memory

    def signals(self) -> Mapping[str, Observation]:
        memory = _meminfo()
        found = {
            # Not MemAvailable: the published formula counts everything but untouched file pages as used.
            eviction.MEMORY: Observation(
                available=memory["MemFree"] + memory["Inactive(file)"], capacity=memory["MemTotal"]
            ),
            eviction.ALLOCATABLE_MEMORY: Observation(
                available=max(self._allocatable_memory - self._groups.usage().memory_bytes, 0),
                capacity=self._allocatable_memory,
            ),
            eviction.PIDS: _pids(),
        }
        for path, space, inodes in (
            (self._pods_dir, eviction.NODEFS, eviction.NODEFS_INODES),
            (self._images_dir, eviction.IMAGEFS, eviction.IMAGEFS_INODES),
        ):
            status = os.statvfs(_existing(path))
            found[space] = Observation(
                available=status.f_bavail * status.f_frsize, capacity=status.f_blocks * status.f_frsize
            )
            found[inodes] = Observation(available=status.f_favail, capacity=status.f_files)
        return found

    def pod(self, pod: Pod, containers: Mapping[str, str]) -> Measured:
        uid, directory = pod.metadata.uid, self._pods_dir / pod.metadata.uid
        found, disk, inodes = {}, 0, 0
        for name, container_id in containers.items():
            used = self._groups.container_usage(uid, container_id)
            size, files = disk_usage(directory / "logs" / name)
            disk, inodes = disk + size, inodes + files
            written = sum(disk_usage(path)[0] for path in self._layer(container_id))
            found[name] = Usage(memory_bytes=used.memory_bytes, disk_bytes=size + written, processes=used.processes)
        volumes = {}
        for volume in pod.spec.volumes:
            if volume.empty_dir is not None and volume.empty_dir.medium != "Memory":
                volumes[volume.name], files = disk_usage(directory / "volumes" / volume.name)
                disk, inodes = disk + volumes[volume.name], inodes + files
        used = self._groups.usage(uid)
        # Writable layers are in memory here and give no disk back, so that they do not count for the whole.
        whole = Usage(memory_bytes=used.memory_bytes, disk_bytes=disk, inodes=inodes, processes=used.processes)
        return Measured(whole=whole, containers=found, volumes=volumes)


class FakeMeter:
    """`Meter` that says what a test wants."""

    def __init__(self) -> None:
        plenty = Observation(available=1 << 40, capacity=1 << 41)
        self.observed: dict[str, Observation] = dict.fromkeys(eviction.SIGNALS, plenty)
        self.pods: dict[str, Measured] = {}  # by the pod's name

    def press(self, signal: str, available: int) -> None:
        """So much is left from now on."""
        self.observed[signal] = Observation(available=available, capacity=self.observed[signal].capacity)

    def signals(self) -> Mapping[str, Observation]:
        return dict(self.observed)

    def pod(self, pod: Pod, containers: Mapping[str, str]) -> Measured:
        return self.pods.get(pod.metadata.name, Measured())


def disk_usage(path: Path) -> tuple[int, int]:
    """(bytes on disk, files and directories) below `path`, which need not exist; other file systems are left out."""
    size = count = 0
    try:
        device = os.lstat(path).st_dev
    except OSError:
        return 0, 0
    for parent, names, files in os.walk(path):
        for name in (*names, *files):
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(parent, name))
                if status.st_dev == device:
                    size, count = size + status.st_blocks * 512, count + 1
    return size, count


def _existing(path: Path) -> Path:
    """The path, or what will hold it."""
    while not path.exists():
        path = path.parent
    return path


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}


def _pids() -> Observation:
    """Tasks of the whole machine (proc_loadavg(5)) against the lesser of the kernel's two limits."""
    running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])
    limits = [int(Path("/proc/sys/kernel", name).read_text()) for name in ("pid_max", "threads-max")]
    return Observation(available=max(min(limits) - running, 0), capacity=min(limits))
