"""What a process may ask of Linux about itself: its name, its death with its parent, its log.

Apart from fabric and zygote, which both need it. Python has no call for any of these.

Specification: prctl(2), fcntl(2) F_GETLK, pidfd_open(2).
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import struct
from collections.abc import Collection
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
# struct flock on 64-bit Linux: type, whence, start, length, pid, with the compiler's padding.
_FLOCK = struct.Struct("=hhxxxxqqixxxx")

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that forked it ends, however it ends."""
    if _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def set_name(name: str) -> None:
    """The name `ps` and `top` show; the kernel keeps 15 bytes."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def redirect_output(path: Path) -> None:
    """Append standard output and error to `path` from now on, and read nothing from standard input."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(nothing)


def close_others(kept: Collection[int]) -> None:
    """Close every descriptor but standard input, output, error and those of `kept`.

    For a forked child: what it inherited keeps pipes and sockets of others open.
    """
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):  # the descriptor the listing itself used
                os.close(fd)


class LockFile:
    """A file locked by this process alone, for as long as it lives.

    A POSIX record lock, not flock(2): it is not inherited by the children that a supervisor forks, and the kernel says
    who holds it, so no PID file can be stale.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def acquire(cls, path: Path) -> "LockFile | None":
        """Lock `path`, creating it; None: somebody else holds it."""
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            # Whoever held it may have removed the file between our open and our lock: then we hold nothing.
            try:
                if os.stat(path).st_ino == os.fstat(fd).st_ino:
                    return cls(fd)
            except FileNotFoundError:
                pass
            os.close(fd)

    def release(self) -> None:
        """Give it up; the file stays."""
        os.close(self._fd)


def lock_holder(path: Path) -> int:
    """The process that holds `path` locked; 0: nobody."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    kind, _whence, _start, _length, pid = _FLOCK.unpack(answer)
    return 0 if kind == fcntl.F_UNLCK else pid


def start_time(pid: int) -> int:
    """When `pid` was started, in clock ticks since boot: both together identify a process. 0: there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The second field, the name, may contain spaces and brackets; everything after the last bracket is numbers.
    return int(text.rpartition(")")[2].split()[19])
