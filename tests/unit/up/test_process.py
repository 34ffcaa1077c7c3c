"""The lock that says whether a supervisor lives, and who a process is."""

import os
import subprocess
import sys
from pathlib import Path

from pilotage.up.process import LockFile, lock_holder, start_time

_HOLD = """
import sys
from pathlib import Path
from pilotage.up.process import LockFile
lock = LockFile.acquire(Path(sys.argv[1]))
print("held" if lock else "taken", flush=True)
sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert lock_holder(path) == 0
    with hold(path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert lock_holder(path) == holder.pid
        assert LockFile.acquire(path) is None
        holder.kill()
    assert lock_holder(path) == 0
    lock = LockFile.acquire(path)
    assert lock is not None
    lock.release()


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = LockFile.acquire(path)
    assert lock is not None
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        lock.release()
        again = LockFile.acquire(path)
        assert again is not None
        again.release()
    finally:
        child.kill()
        child.wait()


def test_a_process_is_known_by_its_start() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid()) > 0
    assert start_time(2**22 + 1) == 0
