"""Starting, idling, running pods and stopping: whole clusters through the command line, as a user has them."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figure import Figure, Peer, progress, timed
from pilotage.api.core_v1 import Container, Pod, PodSpec
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import Client

STARTS = 5
PODS = 40
IDLE_S = 5.0  # what a cluster allocates while starting is given back or used by then
# Stated by the tool's own users for an app and DNS to answer on two cores; it does not run without its images.
REFERENCE_APP_AND_DNS_S = 19.9

PILOTAGE = str(Path(sys.executable).with_name("pilotage"))
POLL = """
import http.client, sys, time
while True:
    try:
        connection = http.client.HTTPConnection("hello.default.svc.cluster.local", 80, timeout=1)
        connection.request("GET", "/")
        if connection.getresponse().status == 200:
            sys.exit(0)
    except OSError:
        time.sleep(0.01)
"""
MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 1
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
        - {name: hello, image: localhost/host, command: [pilotage-echo, --http, "8080", --quiet]}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {selector: {app: hello}, ports: [{port: 80, targetPort: 8080}]}
"""


def figures() -> Iterator[Figure]:
    """Start, app and DNS, idle memory, pod start, stop."""
    ready: list[float] = []
    starts: list[float] = []
    answers: list[float] = []
    stops: list[float] = []
    memory: list[float] = []
    envoy: list[float] = []
    pods: list[float] = []
    for number in range(STARTS):
        progress(f"cluster {number + 1} of {STARTS}")
        with tempfile.TemporaryDirectory(prefix="pilotage-bench-") as home, _home(home) as environment:
            started = time.perf_counter()
            try:
                ready.append(_up(environment, started))
                starts.append(time.perf_counter() - started)
                kubeconfig = _run(environment, "kubeconfig", "--name", "bench").strip()
                kubectl = ["kubectl", "--kubeconfig", kubeconfig, "apply", "--filename", "-"]
                subprocess.run(kubectl, input=MANIFEST, text=True, check=True, capture_output=True)
                _run(environment, "shell", "--name", "bench", "--", sys.executable, "-c", POLL)
                answers.append(time.perf_counter() - started)
                if number == 0:
                    subprocess.run(
                        [*kubectl[:3], "delete", "deployment/hello", "--wait"], check=True, capture_output=True
                    )
                    time.sleep(IDLE_S)
                    status = json.loads(_run(environment, "status", "--name", "bench", "-o", "json"))
                    whole, of_envoy = _memory_mb(int(status["supervisor"]["pid"]))
                    memory.append(whole)
                    envoy.append(of_envoy)
                    pods.extend(asyncio.run(_pod_starts(kubeconfig)))
            finally:
                stops.append(timed(lambda: _run(environment, "down", "--name", "bench")))
    interpreters = Peer(name="twelve interpreters that import the same modules, two at a time", values=_interpreters())
    yield Figure(name="up, until API ready and 2 nodes Ready", unit="s", values=ready, bound=3.0, peer=interpreters)
    yield Figure(
        name="up, until it returns: every component ready, Envoy too", unit="s", values=starts, peer=interpreters
    )
    yield Figure(
        name="up, until an app answers by its DNS name",
        unit="s",
        values=answers,
        bound=6.0,
        note=f"best local cluster tool, as published: {REFERENCE_APP_AND_DNS_S} s",
    )
    yield Figure(
        name="idle memory of the whole cluster (PSS)",
        unit="MB",
        values=memory,
        bound=400.0,
        peer=Peer(name="its Envoy alone", values=envoy),
    )
    yield Figure(
        name="pod start, from the acknowledged create to Ready",
        unit="s",
        values=pods,
        peer=Peer(
            name="a bare runc container on the same root, created, started and deleted", values=_bare_containers()
        ),
    )
    yield Figure(
        name="down, everything gone",
        unit="s",
        values=stops,
        bound=2.0,
        peer=Peer(name="ending a PID namespace of twenty sleeping processes", values=_bare_stops()),
    )


@contextmanager
def _home(path: str) -> Iterator[dict[str, str]]:
    yield {**os.environ, "PILOTAGE_HOME": path}


def _up(environment: dict[str, str], started: float) -> float:
    """Start the cluster and wait for the command; returns the seconds until both nodes and the API were ready."""
    words = [PILOTAGE, "up", "--name", "bench", "--nodes", "2", "--detach"]
    waiting = {"API ready", "node n1 Ready", "node n2 Ready"}
    ready_s = float("nan")
    with subprocess.Popen(
        words, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            waiting -= {step for step in waiting if step in line}
            if not waiting and ready_s != ready_s:
                ready_s = time.perf_counter() - started
    if process.returncode or waiting:
        raise SystemExit(f"pilotage up: exit code {process.returncode}, still waiting for {sorted(waiting)}")
    return ready_s


def _run(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run([PILOTAGE, *words], env=environment, text=True, capture_output=True, timeout=60)
    if done.returncode:
        raise SystemExit(f"pilotage {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _memory_mb(supervisor: int) -> tuple[float, float]:
    """Proportional set size of the supervisor's process tree, and of Envoy in it: shared pages are counted once."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    total = envoy = 0.0
    waiting = [supervisor]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
        pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024 / 1e6
        total += pss
        envoy += pss if name == "envoy" else 0.0
    return total, envoy


async def _pod_starts(kubeconfig: str) -> list[float]:
    """Seconds from the create's answer to the Ready condition on a watch, one pod after another."""
    took = []
    async with Client.from_kubeconfig(kubeconfig) as client:
        for number in range(PODS):
            container = Container(name="c", image="localhost/host", command=("sleep", "600"))
            pod = Pod(
                metadata=ObjectMeta(name=f"p{number}", namespace="default"),
                spec=PodSpec(containers=(container,), termination_grace_period_seconds=0),
            )
            created = await client.create(pod)
            started = time.perf_counter()
            async for event in client.watch(
                Pod, namespace="default", resource_version=created.metadata.resource_version, timeout_s=30
            ):
                if event.object.metadata.name == pod.metadata.name and event.object.status.is_ready:
                    break
            took.append(time.perf_counter() - started)
        for number in range(PODS):
            await client.delete(Pod, f"p{number}", namespace="default", grace_period_s=0)
    return took


def _interpreters() -> list[float]:
    """What starting every component as a program of its own would cost."""
    word = [sys.executable, "-c", "import pilotage.agent, pilotage.proxy, pilotage.dns, pilotage.controllers, uvloop"]

    def start_twelve() -> None:
        for _ in range(6):
            pair = [subprocess.Popen(word), subprocess.Popen(word)]
            for one in pair:
                one.wait()

    return [timed(start_twelve) for _ in range(3)]


def _bare_stops() -> list[float]:
    took = []
    for _ in range(STARTS):
        words = [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            "for i in $(seq 20); do sleep 600 & done; echo up; wait",
        ]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        took.append(timed(lambda process=process: (process.kill(), process.wait(), process.stdout.read())))  # type: ignore[misc]
    return took


def _bare_containers() -> list[float]:
    """runc on an overlay of the host's root, in a mount namespace that goes with it."""
    script = Path(__file__).with_name("bare_container.py")
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", sys.executable, str(script), "10"],
        text=True,
        capture_output=True,
        timeout=120,
    )
    if done.returncode:
        progress(f"no peer for pod start: {done.stderr.strip()[-300:]}")
        return [float("nan")]
    return [float(line) for line in done.stdout.split()]
