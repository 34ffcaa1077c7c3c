"""What the machine must offer before a start is tried, each lack named with the command that mends it.

Apart from the fabric so that a user hears of everything missing at once, in a few milliseconds. Called by `up`. Leaves
out what only trying can tell (whether namespaces are permitted): the fabric explains those errors itself.
"""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pilotage.kit import PilotageError

# Commands the components spawn → the package that has them (Debian and Ubuntu names).
_COMMANDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("runc", "crun"), "runc"),
    (("conmon",), "conmon"),
    (("nft",), "nftables"),
)
_NAMESPACES = ("net", "mnt", "pid", "ipc", "user")


def preflight(*, find: Callable[[str], str | None] = shutil.which) -> None:
    """PilotageError with everything that is missing and how to get it; None: a start may be tried."""
    if complaints := [*_system(), *_commands(find), *_privilege()]:
        raise PilotageError("; ".join(complaints))


def _system() -> Iterator[str]:
    if platform.system() != "Linux":
        yield f"Pilotage needs Linux, this is {platform.system()}: use a virtual machine"
        return
    lacking = [name for name in _NAMESPACES if not Path("/proc/self/ns", name).exists()]
    if lacking:
        yield f"the kernel has no {', '.join(lacking)} namespaces: boot one with CONFIG_NAMESPACES"
    try:
        if "overlay" not in Path("/proc/filesystems").read_text() and not _module_exists("overlay"):
            yield "the kernel has no overlay file system: as root run `modprobe overlay`"
    except OSError:
        yield "/proc is not mounted: as root run `mount -t proc proc /proc`"


def _module_exists(name: str) -> bool:
    directory = Path("/lib/modules", platform.release(), "modules.dep")
    try:
        return f"/{name}.ko" in directory.read_text()
    except OSError:
        return False


def _commands(find: Callable[[str], str | None]) -> Iterator[str]:
    missing = [(names, package) for names, package in _COMMANDS if not any(map(find, names))]
    if missing:
        names = ", ".join(" or ".join(names) for names, _ in missing)
        yield f"missing {names}: as root run `apt-get install {' '.join(package for _, package in missing)}`"


def _privilege() -> Iterator[str]:
    if os.geteuid() == 0:
        return
    for path, hint in (
        ("/proc/sys/user/max_user_namespaces", "sysctl user.max_user_namespaces=10000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "sysctl kernel.unprivileged_userns_clone=1"),
    ):
        try:
            allowed = Path(path).read_text().strip() != "0"
        except OSError:
            continue  # this kernel has no such switch
        if not allowed:
            yield f"this user may not create namespaces: run as root, or as root run `{hint}`"
            return
