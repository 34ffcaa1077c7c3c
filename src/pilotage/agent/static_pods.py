"""The directory of static pods: which pods its files hold now.

Stands apart because it works without an API. Files are looked at when one changes and every now and then besides, since
a file that goes away may leave no event; a file that cannot be read or understood keeps nobody else's pod from running.
Names that begin with a dot are ignored, as the kubelet ignores them: editors write such files first.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from pilotage.agent.core import static_pod, timestamps
from pilotage.agent.core.static_pod import StaticPod, StaticPodError
from pilotage.agent.inotify import DirectoryWatch
from pilotage.kit.clock import Clock
from pilotage.telemetry import get_logger

LOOK_EVERY_S = 20.0  # the kubelet's fileCheckFrequency
FILE_BYTES_MAX = 10 * 1024 * 1024  # no pod is as large; anything larger is no pod
# Written, moved here, moved away, removed: inotify(7).
_CHANGES = 0x8 | 0x80 | 0x40 | 0x200
_log = get_logger()


class StaticPods:
    """By uid, what the files say. `changed` is called after they said something else."""

    def __init__(self, directory: Path, node: str, clock: Clock, changed: Callable[[], None]) -> None:
        self._directory = directory
        self._node = node
        self._clock = clock
        self._changed = changed
        self._touched = asyncio.Event()
        self._told: dict[str, str] = {}  # path → complaint, each told once
        self.pods: dict[str, StaticPod] = {}

    def load(self) -> None:
        """Read every file. Of two pods of one name the one in the first file counts."""
        found: dict[str, StaticPod] = {}
        names: set[str] = set()
        told: dict[str, str] = {}
        for path in sorted(self._directory.iterdir()) if self._directory.is_dir() else ():
            if path.name.startswith(".") or not path.is_file():
                continue
            try:
                one = self._read(path)
                if one.pod.metadata.key in names:
                    raise StaticPodError(f"another file holds pod {one.pod.metadata.key}")
            except (StaticPodError, OSError) as error:
                told[str(path)] = str(error)
                if self._told.get(str(path)) != str(error):
                    _log.warning("cannot use a static pod", file=str(path), error=str(error)[:500])
                continue
            names.add(one.pod.metadata.key)
            uid = one.pod.metadata.uid
            found[uid] = self.pods.get(uid, one)  # as it was seen first
        self._told = told
        self.pods = found

    def _read(self, path: Path) -> StaticPod:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise StaticPodError(f"larger than {FILE_BYTES_MAX} bytes")
        seen = timestamps.to_text(self._clock.wall().timestamp())
        return static_pod.read(path.read_bytes(), path=str(path), node=self._node, seen=seen)

    async def run(self) -> None:
        """Follow the directory until cancelled."""
        watch = DirectoryWatch(self._directory, lambda _name: self._touched.set(), mask=_CHANGES)
        try:
            while True:
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._touched.wait()
                except TimeoutError:
                    pass
                self._touched.clear()
                before = self.pods.keys()
                self.load()
                if self.pods.keys() != before:
                    self._changed()
        finally:
            watch.close()
