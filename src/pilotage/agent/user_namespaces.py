"""Users of their own for pods that ask for it (hostUsers: false, KEP-127): a range of ids each, and a user namespace.

Stands apart because ranges outlive the agent and must not be given twice while a pod has them: each is written down
before it is used, and read again by the next agent. Called by `sandbox`; what belongs to the namespace is made by
whoever makes it (`runtime`, `pod_network`). Below the runtime directory: `users/<uid>/{range,namespace}`.
"""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from pilotage.kit.ipam import NumberPool
from pilotage.network import user_namespaces
from pilotage.network.errors import NetworkError
from pilotage.network.namespaces import is_namespace, unmount

IDS = 65_536  # of one pod, as the kubelet gives it


@dataclass(frozen=True, slots=True, kw_only=True)
class PodUsers:
    """Users and groups 0 … `IDS` of one pod are `host_id` … on the node."""

    namespace: Path
    host_id: int


class UserNamespaces:
    """Of all pods of this node: range number n begins with id n · `IDS`; `first` ≥ 1, so that nobody is the node's."""

    def __init__(self, directory: Path, *, first: int, last: int, privileged: bool) -> None:
        self._directory = directory
        self._privileged = privileged
        self._pool = NumberPool(first, last)

    def open(self) -> None:
        """Take up what an earlier agent has given."""
        for number in self.given():
            self._pool.reserve(number)

    async def make(self, uid: str) -> PodUsers:
        """The pod's users; those it has already. Raises `NetworkError`, `OSError`, `PoolExhaustedError`."""
        if not self._privileged:
            raise NetworkError("hostUsers: false needs a node that runs as root: ids of others cannot be given")
        directory = self._directory / uid
        path = directory / "range"
        if not path.exists():
            number = self._pool.take()
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            written = path.with_suffix(".new")
            written.write_text(str(number))
            written.rename(path)
        users = self._read(uid)
        if not is_namespace(users.namespace):
            await asyncio.to_thread(user_namespaces.create, users.namespace, host_id=users.host_id, size=IDS)
        return users

    def find(self, uid: str) -> PodUsers | None:
        """The pod's users, if they stand."""
        try:
            users = self._read(uid)
        except FileNotFoundError:
            return None
        return users if is_namespace(users.namespace) else None

    def given(self) -> frozenset[int]:
        """The numbers of the ranges that pods have."""
        return frozenset(int(path.read_text()) for path in self._directory.glob("*/range"))

    def release(self, uid: str) -> None:
        """Give the range back once no process of the pod is left. No error when there is none."""
        directory = self._directory / uid
        if not directory.is_dir():
            return
        unmount(str(directory / "namespace"))
        if (directory / "range").exists():
            self._pool.release(int((directory / "range").read_text()))
        shutil.rmtree(directory)

    def _read(self, uid: str) -> PodUsers:
        directory = self._directory / uid
        return PodUsers(namespace=directory / "namespace", host_id=int((directory / "range").read_text()) * IDS)
