"""The node's devices, for privileged containers.

Stands apart because it walks /dev. Terminals, shared memory and message queues are left out: every container has its
own.
"""

import os
import stat
from typing import Any

DEVICES_MAX = 1000  # far above what a machine has; a document must stay small
_OWN = frozenset({"pts", "shm", "mqueue", "fd", ".udev", ".lxc"})
# Every container has these already (OCI runtime specification, "Default Devices").
_USUAL = frozenset({"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"})


def of_the_node() -> tuple[dict[str, Any], ...]:
    """`linux.devices` of everything below /dev."""
    found: list[dict[str, Any]] = []
    for directory, names, files in os.walk("/dev"):
        if directory == "/dev":
            names[:] = [name for name in names if name not in _OWN]
            files = [name for name in files if name not in _USUAL]
        for name in sorted(files):
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
            if kind and len(found) < DEVICES_MAX:
                found.append(
                    {
                        "path": path,
                        "type": kind,
                        "major": os.major(status.st_rdev),
                        "minor": os.minor(status.st_rdev),
                        "fileMode": stat.S_IMODE(status.st_mode),
                        "uid": status.st_uid,
                        "gid": status.st_gid,
                    }
                )
    return tuple(found)
