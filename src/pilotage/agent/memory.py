"""What the agent must not forget about its pods: one directory a pod, state and specification in it.

Stands apart so that `kill -9` at any moment leaves either the old or the new state, never a torn one (written beside,
then renamed). A pod's directory also holds its volumes, logs and files; it goes when the pod is gone from the API.
"""

import shutil
from pathlib import Path

import msgspec

from pilotage.agent.core.state import PodState
from pilotage.api.codec import decode, encode
from pilotage.api.core_v1 import Pod


class PodMemory:
    """The directories below `<data>/pods`."""

    def __init__(self, pods_dir: Path) -> None:
        self._pods_dir = pods_dir

    def directory(self, uid: str) -> Path:
        """Everything of one pod."""
        return self._pods_dir / uid

    def save(self, uid: str, state: PodState) -> None:
        """Remember the state, durable against the end of this process (not of the machine)."""
        _replace(self.directory(uid) / "state.json", encode(state))

    def save_pod(self, pod: Pod) -> None:
        """Remember the object, for the case that it is gone from the API when the agent comes back."""
        directory = self.directory(pod.metadata.uid)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace(directory / "pod.json", encode(pod))

    def load(self, uid: str) -> tuple[Pod, PodState] | None:
        """What was saved; None if nothing usable is there."""
        directory = self.directory(uid)
        try:
            return (
                decode(Pod, (directory / "pod.json").read_bytes()),
                decode(PodState, (directory / "state.json").read_bytes()),
            )
        except (OSError, msgspec.DecodeError):
            return None

    def uids(self) -> list[str]:
        """Pods that left something here."""
        return sorted(path.name for path in self._pods_dir.iterdir()) if self._pods_dir.is_dir() else []

    def forget(self, uid: str) -> None:
        """Remove all of a pod. Blocking."""
        shutil.rmtree(self.directory(uid), ignore_errors=True)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "wb", opener=_private) as file:
        file.write(data)
    temporary.rename(path)


def _private(path: str, flags: int) -> int:
    import os

    return os.open(path, flags, 0o600)
