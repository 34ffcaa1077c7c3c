"""User namespaces, and others that belong to one, made by processes that end at once.

Apart from `namespaces` because a process of several threads can neither make nor enter a user namespace
(user_namespaces(7)): unshare(1) and nsenter(1) of util-linux do, and wait until their namespaces are bound to files.
Blocking, 3-5 ms a call.
"""

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pilotage.network.errors import NetworkError
from pilotage.network.namespaces import MS_BIND, mount

# Says that it is there, and stays until nobody needs it any more.
_WAIT = ("--", "sh", "-c", "echo; read -r line")


def create(path: Path, *, host_id: int, size: int) -> None:
    """A user namespace, bound to `path`, whose users and groups 0 … `size` are `host_id` … here. Raises `NetworkError`,
    `OSError`."""
    with _waiting(["unshare", "--user", *_WAIT]) as pid:
        for kind in ("uid", "gid"):
            Path(f"/proc/{pid}/{kind}_map").write_text(f"0 {host_id} {size}\n")
        _bind(pid, "user", path)


def create_in(users: Path, places: Mapping[str, Path]) -> None:
    """Namespaces that belong to the user namespace at `users`: kind ("ipc", "net", "uts") → file it is bound to."""
    kinds = (f"--{kind}" for kind in places)
    with _waiting(["nsenter", f"--user={users}", "--", "unshare", *kinds, *_WAIT]) as pid:
        for kind, path in places.items():
            _bind(pid, kind, path)


def _bind(pid: int, kind: str, path: Path) -> None:
    path.touch(mode=0o600)
    mount(f"/proc/{pid}/ns/{kind}", str(path), "", MS_BIND)


@contextlib.contextmanager
def _waiting(command: Sequence[str]) -> Iterator[int]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            if not process.stdout.read(1):
                raise NetworkError(f"{command[0]}: {process.stderr.read(1000).decode(errors='replace').strip()}")
            yield process.pid
        finally:
            process.stdin.close()
