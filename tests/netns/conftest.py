"""Puts the whole pytest process into a network and mount namespace of its own before any test is collected.

Nothing a test does to links, routes, nftables or mounts is then visible to the machine, and everything is gone when
the process ends. Needs root or unprivileged user namespaces.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("PILOTAGE_TEST_NAMESPACE") == str(os.getpid()):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWNET | (CLONE_NEWUSER if uid else 0)
    if libc.unshare(flags) != 0:
        reason = os.strerror(ctypes.get_errno())
        pytest.exit(f"cannot create namespaces: {reason}; run as root or allow user namespaces", 1)
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        pytest.exit("cannot make mounts private", 1)
    # `ip netns add` keeps its namespaces in /run/netns; a tmpfs of our own keeps them off the machine.
    if libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, None) != 0:
        pytest.exit("cannot mount a private /run", 1)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.environ["PILOTAGE_TEST_NAMESPACE"] = str(os.getpid())


@contextmanager
def own_address(address: str) -> Iterator[None]:
    """`address` is this namespace's own, and gone again for the tests that come after."""
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    yield
    subprocess.run(["ip", "address", "delete", f"{address}/32", "dev", "lo"], check=True)
