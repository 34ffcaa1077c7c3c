"""Linux namespaces from Python 3.11, which has neither `os.unshare` nor `os.setns`.

Apart from `kernel` because the fabric needs namespaces of every kind and the node only network ones. Called by
`KernelWiring`, by the fabric (`up`) and by everyone who must open a socket elsewhere. A network namespace belongs to a
*thread*: `run_in` therefore works on a thread of its own, which ends with the call, so that no caller can be left in
the wrong network.

Specification: namespaces(7), setns(2), unshare(2), network_namespaces(7).
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pilotage.kit.threads import on_own_thread
from pilotage.network.errors import NamespaceGone, NetworkError

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

# The same on every architecture (asm-generic/unistd.h); flags of linux/mount.h and linux/fcntl.h.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 0x1, 0x4
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_IDMAP = 0x1, 0x00100000

T = TypeVar("T")

# None: this process. use_errno keeps errno per thread, next to the call that set it.
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise NetworkError(f"{what}: {os.strerror(code)}", code)


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces; CLONE_NEWPID counts for its next child only."""
    _check(_libc.unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind an open file of /proc/PID/ns (or a pidfd)."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2); `data` is the file system's option string."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode() if data else None
    )
    _check(result, f"mount {kind or 'bind'} on {target}")


def bind_mapped(fd: int, target: str, users: int, *, read_only: bool = False, recursive: bool = True) -> None:
    """Show what `fd` was opened on at `target`, its owners as the user namespace behind `users` has them.

    What is mounted below comes along if `recursive`. NetworkError where a file system cannot do it (overlay, proc).
    open_tree(2), mount_setattr(2) MOUNT_ATTR_IDMAP, move_mount(2): since Linux 5.12, and in no C library here.
    """
    below = _AT_RECURSIVE if recursive else 0
    tree = _libc.syscall(_SYS_OPEN_TREE, fd, b"", _AT_EMPTY_PATH | _OPEN_TREE_CLONE | os.O_CLOEXEC | below)
    _check(min(tree, 0), f"open_tree for {target}")
    try:
        attributes = _MOUNT_ATTR_IDMAP | (_MOUNT_ATTR_RDONLY if read_only else 0)
        wanted = struct.pack("=QQQQ", attributes, 0, 0, users)
        size = ctypes.c_size_t(len(wanted))
        _check(
            _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | below, wanted, size),
            f"id-mapped mount on {target}",
        )
        _check(_libc.syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH), target)
    finally:
        os.close(tree)


def unmount(target: str) -> None:
    """Detach whatever is mounted on `target`, at once and even if busy; no error when nothing is."""
    if _libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)) != 0:
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOENT):
            raise NetworkError(f"unmount {target}: {os.strerror(code)}", code)


def enter(path: Path) -> None:
    """Move the calling *thread* into the network namespace at `path`, for good. Meant for a fresh process."""
    fd = open_namespace(path)
    try:
        setns(fd, CLONE_NEWNET)
    finally:
        os.close(fd)


def open_namespace(path: Path) -> int:
    """An open file of the namespace at `path`, to be closed by the caller; NamespaceGone when there is none."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NamespaceGone(f"no network namespace at {path}", errno.ENOENT) from error


def run_in(path: Path, function: Callable[[], T]) -> T:
    """Call `function` on a thread inside the network namespace at `path`, wait, and return what it returns.

    Sockets it opens stay in that namespace wherever they are used later. About 0.1 ms on top of the function.
    """

    def inside() -> T:
        enter(path)
        return function()

    return on_own_thread(inside, name="namespace")


def socket_in(path: Path, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that lives in the network namespace at `path`."""
    return run_in(path, lambda: socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))


def create(path: Path) -> bool:
    """Make a network namespace and bind-mount it on `path`; False when there is one already.

    An empty file without a mount (left by an interrupted run) counts as none.
    """
    if is_namespace(path):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)

    def inside() -> None:
        unshare(CLONE_NEWNET)
        mount("/proc/thread-self/ns/net", str(path), "", MS_BIND)

    path.touch(mode=0o600)
    try:
        on_own_thread(inside, name="namespace")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def delete(path: Path) -> None:
    """Undo `create`; processes inside keep the namespace alive until they end."""
    unmount(str(path))
    path.unlink(missing_ok=True)


def is_namespace(path: Path) -> bool:
    """Whether a namespace is mounted on `path`: all namespaces are files of one file system, nsfs."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except FileNotFoundError:
        return False
