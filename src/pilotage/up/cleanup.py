"""Ends a cluster and removes what it left: processes, control groups, the run directory.

Apart from the supervisor because `down` must work when the supervisor was killed. Everything inside the fabric goes
with its PID 1, by the kernel; what is left for us is what a namespace does not hold.

Specification: cgroups(7) for when a group may be removed; pidfd_open(2).
"""

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

from pilotage.kit import PilotageError
from pilotage.up.fabric import wait_gone
from pilotage.up.layout import Layout
from pilotage.up.process import LockFile, lock_holder, start_time

_CGROUP_ROOT = Path("/sys/fs/cgroup")
# Killing takes the kernel some 50 ms, taking namespaces apart as long again; a loaded machine deserves patience.
_END_TIMEOUT_S = 10.0
_CGROUP_TIMEOUT_S = 5.0
_CGROUP_RETRY_S = 0.01


def bring_down(layout: Layout) -> bool:
    """End the cluster, however it is, and remove its run directory. The data directory stays.

    False when there was nothing: neither process nor directory. PilotageError when something would not go.
    """
    if not layout.run.exists():
        return remove_cgroups(layout.cgroup)
    if pid := lock_holder(layout.lock):
        _end(pid, signal.SIGTERM, layout)
    try:
        lock = LockFile.acquire(layout.lock)
    except FileNotFoundError:  # the supervisor removed its directory, as it should
        return True
    if lock is None:
        raise PilotageError(f"cluster {layout.name} is being started by another process; try again")
    try:
        _end_fabric(layout)
        remove_traces(layout)
    finally:
        lock.release()
    return True


def remove_traces(layout: Layout) -> None:
    """Remove control groups and the run directory of a cluster without processes, lock file last."""
    remove_cgroups(layout.cgroup)
    if not layout.run.exists():
        return
    for entry in layout.run.iterdir():
        if entry == layout.lock:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=False)
        else:
            entry.unlink(missing_ok=True)
    layout.lock.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        layout.run.rmdir()
        layout.run_base.rmdir()  # only when no other cluster is there


def _end(pid: int, number: signal.Signals, layout: Layout) -> None:
    """Signal the supervisor and wait for its end; kill it if it does not obey."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if lock_holder(layout.lock) != pid:  # it ended, and the number may be somebody else's by now
            return
        signal.pidfd_send_signal(pidfd, number)
        try:
            wait_gone(pidfd, _END_TIMEOUT_S + _shutdown_s(layout))
        except PilotageError:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            wait_gone(pidfd, _END_TIMEOUT_S)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise PilotageError(
            f"cluster {layout.name} belongs to another user: run `pilotage down` as that user"
        ) from error
    finally:
        os.close(pidfd)


def _shutdown_s(layout: Layout) -> float:
    """How long its pods may take to end, as the supervisor wrote it down; 0 where it did not."""
    try:
        return float(json.loads(layout.status.read_text())["shutdownSeconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _end_fabric(layout: Layout) -> None:
    """Wait for PID 1 of the fabric, which ends after everything else in it; kill it if it is still there."""
    try:
        zygote = json.loads(layout.status.read_text())["zygote"]
        pid, started = int(zygote["pid"]), int(zygote["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # the supervisor ended before there was a fabric
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, OverflowError, OSError):
        return
    try:
        if start_time(pid) != started:
            return
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        wait_gone(pidfd, _END_TIMEOUT_S)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def remove_cgroups(name: str) -> bool:
    """Remove the groups `name` of every hierarchy, and the groups in them; True if there was one.

    Waits for the last processes to leave; PilotageError when they stay. The parent goes too when it is empty.
    """
    if not _CGROUP_ROOT.is_dir():
        return False
    deadline = time.monotonic() + _CGROUP_TIMEOUT_S
    found = False
    for hierarchy in [_CGROUP_ROOT, *_CGROUP_ROOT.iterdir()]:
        top = hierarchy / name
        if hierarchy.is_symlink() or not top.is_dir():
            continue
        found = True
        for group, _, _ in os.walk(top, topdown=False):
            _remove_group(Path(group), deadline)
        with contextlib.suppress(OSError):
            top.parent.rmdir()
    return found


def _remove_group(group: Path, deadline: float) -> None:
    while True:
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise PilotageError(f"cannot remove control group {group}: {error.strerror}") from error
            # There is no event for "the last task has left" on version 1 hierarchies.
            time.sleep(_CGROUP_RETRY_S)
