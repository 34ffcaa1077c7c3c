"""Clusters of the test's own, under a home of its own, and the proof that nothing of them is left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pilotage.up import Layout, make_layout

PILOTAGE = str(Path(sys.executable).with_name("pilotage"))
KUBECTL = str(Path(sys.executable).with_name("kubectl"))
START_TIMEOUT_S = 90


@dataclass
class Home:
    """`pilotage` with PILOTAGE_HOME set."""

    path: Path
    seen: set[str] = field(default_factory=set)  # network namespaces of fabrics that ran

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PILOTAGE_HOME": str(self.path)}

    def layout(self, name: str) -> Layout:
        return make_layout(name, environment=self.environment)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PILOTAGE, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.path,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PILOTAGE, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            cwd=self.path,
            check=False,
        )

    def up(self, name: str, *arguments: str) -> None:
        done = self.run("up", "--detach", "--name", name, *arguments)
        assert done.returncode == 0, done.stderr
        self.seen.add(os.readlink(f"/proc/{self.status(name)['zygote']['pid']}/ns/net"))

    def status(self, name: str) -> dict[str, Any]:
        """What the supervisor wrote last."""
        found: dict[str, Any] = json.loads(self.layout(name).status.read_text())
        return found

    def kubectl(self, name: str, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [KUBECTL, "--kubeconfig", str(self.layout(name).kubeconfig), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            input=stdin,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lags(self, name: str) -> dict[str, int]:
        """How far each consumer of endpoints is behind, as `pilotage status` says it."""
        found: dict[str, int] = json.loads(self.run("status", "--name", name, "-o", "json").stdout)["lags"]
        return found

    def until_programmed(self, name: str, service: str, *, endpoints: int, slices: int = 1) -> None:
        """Wait until a Service has so many endpoints in each of its slices, and every consumer has applied them.

        Neither follows from the readiness of its pods: endpoints are written after it, and consumers hear of it later.
        """

        def written() -> bool:
            selector = f"kubernetes.io/service-name={service}"
            parts = json.loads(self.kubectl(name, "get", "endpointslices", "-l", selector, "-o", "json"))["items"]
            ready = [sum(bool(one["conditions"].get("ready")) for one in part.get("endpoints") or ()) for part in parts]
            return ready == [endpoints] * slices

        eventually(written)
        eventually(lambda: bool(lags := self.lags(name)) and not any(lags.values()))

    def assert_nothing_left(self, *names: str) -> None:
        for name in names:
            layout = self.layout(name)
            assert not layout.run.exists(), list(layout.run.iterdir())
            for hierarchy in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
                assert not (hierarchy / layout.cgroup).exists()
        assert str(self.path) not in Path("/proc/self/mountinfo").read_text()
        assert not self.seen & set(network_namespaces())


def network_namespaces() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield os.readlink(process / "ns" / "net")
        except OSError:
            continue


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait for a condition of the world outside this process, which sends no events."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.run("down", "--all")


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)
