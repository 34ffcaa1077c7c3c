"""A container that crashes again and again behind a Service of a whole cluster: what is read, written and connected to.

Connections are proven, not slept upon: once the node's proxy has published the version of the write that took the pod
away, no connection begun later may meet it, until a later write gives it back.
"""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.e2e.up.conftest import PILOTAGE, Home

from pilotage.api.coordination_v1 import Lease
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.client import Client
from pilotage.client.watermark import read_watermark
from pilotage.kit.tasks import task_set

pytestmark = pytest.mark.timeout(240)

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8000}]}
"""
# Serves its name; the flapping one ends after three seconds, from its fourth life on after six.
PROGRAM = """
import contextlib, os, pathlib, socket, sys, threading
name, ends = sys.argv[1:]
lives = pathlib.Path("/lives/count")
count = int(lives.read_text()) + 1 if lives.exists() else 1
lives.write_text(str(count))
if ends:
    threading.Timer(3 if count < 4 else 6, os._exit, (1,)).start()
server = socket.create_server(("", 8000), backlog=256)
while True:
    with server.accept()[0] as connection, contextlib.suppress(OSError):
        connection.sendall(name.encode())
"""
# One connection after the other: when it began, when it ended, who answered. So few source ports that each comes round
# in two seconds or three: what the kernel remembers of a connection shows in a later one. Ports are free at once, since
# the server is heard out.
CLIENT = """
import itertools, socket, sys, time
for port in itertools.cycle(range(20_000, 20_200)):
    began = time.time()
    try:
        with socket.socket() as connection:
            connection.settimeout(3)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind(("", port))
            connection.connect((sys.argv[1], 80))
            answer = "".join(iter(lambda: connection.recv(100).decode(), ""))
    except OSError as error:
        answer = repr(error)
    print(began, time.time(), port, answer, flush=True)
    time.sleep(0.01)
"""
WRITES_A_LIFE = 2  # one gives the endpoint, waiting or not, one takes it away
WRITES_MORE = 4  # two pods that come up, and the end of a wait


def pod(name: str, ends: str) -> dict[str, object]:
    container = {
        "name": "c",
        "image": "localhost/host",
        "command": ["python3", "-c", PROGRAM, name, ends],
        "volumeMounts": [{"name": "lives", "mountPath": "/lives"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [container], "volumes": [{"name": "lives", "emptyDir": {}}]},
    }


@dataclass
class Observed:
    """What was seen of the API, with the moments it was seen at."""

    writes: list[tuple[float, EndpointSlice]] = field(default_factory=list)
    applied: list[tuple[float, int]] = field(default_factory=list)  # by the proxy of n1
    looks: list[tuple[float, int]] = field(default_factory=list)  # when each was begun, and the version it found

    def given(self, address: str) -> list[bool]:
        """Whether each write gave the address traffic."""
        return [any(address in one.addresses and one.is_ready for one in slice.endpoints) for _, slice in self.writes]

    def without(self, address: str) -> Iterator[tuple[float, float]]:
        """From when until when no connection may meet `address`, for certain."""
        given = self.given(address)
        for at, (_, written) in enumerate(self.writes):
            if given[at] or not any(given[:at]):
                continue
            goal = written.metadata.version_number
            since = next((when for when, reached in self.applied if reached >= goal), float("inf"))
            back = next((one for (_, one), gives in zip(self.writes[at:], given[at:], strict=True) if gives), None)
            # Given back before we saw it, but not before we looked and it was not.
            version = back.metadata.version_number if back is not None else float("inf")
            until = max((when for when, found in self.looks if found < version), default=0.0)
            if since < until:
                yield since, until


async def observe(client: Client, seen: Observed) -> None:
    selector = "kubernetes.io/service-name=web"

    async def looks() -> None:
        while True:
            began = time.time()
            for one in (await client.list(EndpointSlice, namespace="default", label_selector=selector)).items:
                seen.looks.append((began, one.metadata.version_number))
            await asyncio.sleep(0.05)

    async def slices() -> None:
        async for event in client.watch(EndpointSlice, namespace="default", label_selector=selector):
            if event.type in ("ADDED", "MODIFIED"):
                seen.writes.append((time.time(), event.object))

    async def watermarks() -> None:
        async for event in client.watch(Lease, namespace="kube-system"):
            if event.object.metadata.name == "watermark-proxy-n1":
                seen.applied.append((time.time(), read_watermark(event.object)))

    async with task_set() as tasks:
        tasks.start(slices(), name="slices")
        tasks.start(looks(), name="looks")
        tasks.start(watermarks(), name="watermarks")
        await asyncio.Event().wait()


@contextlib.contextmanager
def connecting(home: Home, address: str) -> Iterator[subprocess.Popen[str]]:
    words = ("shell", "--name", "churn", "--node", "n1", "--", "python3", "-u", "-c", CLIENT, address)
    with (home.path / "connections").open("w") as file:
        process = subprocess.Popen(
            [PILOTAGE, *words], env=home.environment, stdout=file, stderr=subprocess.DEVNULL, cwd=home.path
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def first_held_back(seen: Observed) -> int | None:
    """The place of the write that said so."""
    places = (at for at, (_, one) in enumerate(seen.writes) if "pilotage.dev/held-back" in one.metadata.annotations)
    return next(places, None)


async def test_a_crash_loop_is_damped_as_written_and_meets_no_connection(home: Home) -> None:
    home.up("churn", "--nodes", "1")
    home.kubectl("churn", "apply", "-f", "-", stdin=SERVICE)
    home.kubectl("churn", "apply", "-f", "-", stdin=json.dumps(pod("steady", "")))
    home.kubectl("churn", "wait", "pod/steady", "--for=condition=Ready", "--timeout=60s")
    vip = home.kubectl("churn", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")

    def status_of(pod: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(home.kubectl("churn", "get", "pod", pod, "-o", "json"))["status"]
        return found

    seen = Observed()
    async with Client.from_kubeconfig(home.layout("churn").kubeconfig) as client, task_set() as tasks:
        tasks.start(observe(client, seen), name="observe")
        with connecting(home, vip):
            home.kubectl("churn", "apply", "-f", "-", stdin=json.dumps(pod("flapping", "x")))
            async with asyncio.timeout(150):
                while (held := first_held_back(seen)) is None:
                    await asyncio.sleep(0.05)
                while len(seen.writes) <= held + 1:  # until it crashed while it waited
                    await asyncio.sleep(0.05)
            events = await asyncio.to_thread(home.kubectl, "churn", "describe", "service", "web")
            status, steady = [await asyncio.to_thread(status_of, pod) for pod in ("flapping", "steady")]
    address = status["podIP"]
    restarts = status["containerStatuses"][0]["restartCount"]
    attempts = [line.split(" ", 3) for line in (home.path / "connections").read_text().splitlines()]
    answers = [(float(began), float(ended), answer) for began, ended, _, answer in attempts]

    waiting = seen.writes[held][1]
    rule = "stopped being ready 3 times in 30 min, must stay ready 10 s"
    assert waiting.metadata.annotations["pilotage.dev/held-back"] == f"{address} {rule}"
    (endpoint,) = [one for one in waiting.endpoints if address in one.addresses]
    assert (endpoint.is_ready, endpoint.is_serving) == (False, True)
    assert "EndpointHeldBack" in events
    assert rule in events
    assert len(seen.writes) <= WRITES_A_LIFE * (restarts + 1) + WRITES_MORE, [s.endpoints for _, s in seen.writes]

    assert steady["containerStatuses"][0]["restartCount"] == 0
    assert all(any(steady["podIP"] in one.addresses and one.is_ready for one in s.endpoints) for _, s in seen.writes)
    gaps = list(seen.without(address))
    assert len(gaps) >= 2, "after a crash, and while it waits"
    names = {answer for _, _, answer in answers}
    assert {"steady", "flapping"} <= names, "it had traffic while nobody knew better"
    for since, until in gaps:
        met = [(began, answer) for began, ended, answer in answers if since <= began and ended <= until]
        strays = [(began, answer) for began, answer in met if answer != "steady"]
        assert not strays, (since, until, len(met), strays[:20])
