"""Pods on one node: how soon they are ready, how many at once, what they cost while idle, and what they leave behind.

One API server and one agent, each a process of its own, in a network and mount namespace that goes with them; no
scheduler, so that what is measured is the node. Containers are runc's, on the local host image. The driver (`Driver`)
runs inside the namespace, as `python -m bench.pods`; `figures` starts it and reads its lines.
"""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bench.figure import Figure, Peer, progress
from pilotage.agent import Config, remove_cgroups, run
from pilotage.api.codec import encode
from pilotage.api.core_v1 import Container, Pod, PodSpec, ServiceAccount
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.status import ApiError
from pilotage.client import Client, ConnectionFailed
from pilotage.kit.errors import UsageError

# A tenth of everything shows in a minute that the benchmark works; figures are for the whole.
SHARE = float(os.environ.get("PILOTAGE_BENCH_SHARE", "1"))
STARTS, MANY, IDLE, LIVES = (max(int(count * SHARE), 4) for count in (100, 200, 100, 1000))
LIVES_AT_ONCE = 20
SETTLE_S = 5.0
IDLE_S = 30.0 * min(SHARE * 4, 1.0)
PILOTAGE = str(Path(sys.executable).with_name("pilotage"))
NODE, ADDRESS = "n1", "127.0.0.1"
CGROUP_PARENT = "/pilotage-bench/pods"


def figures() -> Iterator[Figure]:
    """Starts one by one, many at once, their end, an idle node, a thousand lives."""
    progress(f"pods: {STARTS} one by one, {MANY} at once, {IDLE} idle, {LIVES} lives")
    words = ["unshare", "--mount", "--net", sys.executable, "-m", "bench.pods"]
    done = subprocess.run(words, text=True, stdout=subprocess.PIPE, timeout=1800, check=False)
    if done.returncode:
        raise SystemExit(f"pods: exit code {done.returncode}")
    found: dict[str, list[float]] = dict(json.loads(line) for line in done.stdout.splitlines())
    bare = _bare_containers(max(STARTS // 4, 4))
    peer = Peer(name="a bare runc container on the same root, created, started and deleted", values=bare)
    starts = found["start"]
    yield Figure(name="pod start, from bind to Ready", unit="s", values=starts, bound=0.25, peer=peer)
    p99 = sorted(starts)[min(len(starts) - 1, int(len(starts) * 0.99))]
    yield Figure(name="pod start, from bind to Ready, 99th percentile", unit="s", values=[p99], bound=1.0, peer=peer)
    together = Peer(
        name=f"as many bare runc containers, one after another ({MANY} × the median of one)",
        values=[MANY * statistics.median(bare)],
    )
    yield Figure(
        name=f"{MANY} pods of one node, created and all Ready", unit="s", values=found["many started"], bound=40.0,
        peer=together,
    )  # fmt: skip
    yield Figure(
        name=f"{MANY} pods of one node, deleted and all gone", unit="s", values=found["many stopped"], bound=20.0
    )
    yield Figure(
        name=f"agent's processor time beside {IDLE} idle pods", unit="% of a core", values=found["idle cpu"], bound=3.0
    )
    yield Figure(
        name=f"agent's resident memory beside {IDLE} idle pods", unit="MB", values=found["idle memory"], bound=120.0,
        peer=Peer(name="an interpreter that has imported the agent", values=found["bare memory"]),
    )  # fmt: skip
    for kind in ("processes", "mounts", "namespaces", "control groups", "links", "files"):
        yield Figure(name=f"{kind} left after {LIVES} pod lives", unit="", values=found[kind], bound=0.0)


def _bare_containers(runs: int) -> list[float]:
    """runc on an overlay of the host's root, in a mount namespace that goes with it."""
    script = Path(__file__).with_name("bare_container.py")
    words = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", sys.executable, str(script), str(runs)]
    done = subprocess.run(words, text=True, capture_output=True, timeout=300, check=False)
    if done.returncode:
        progress(f"no peer for pod start: {done.stderr.strip()[-300:]}")
        return [float("nan")]
    return [float(line) for line in done.stdout.split()]


# ── inside the namespaces ───────────────────────────────────────────────────────────────────────────────────────────


class Driver:
    """Makes pods, binds them as a scheduler would, and counts."""

    def __init__(self, client: Client, run_dir: Path, agent_pid: int) -> None:
        self._client = client
        self._run_dir = run_dir
        self._agent_pid = agent_pid
        self._ready: dict[str, asyncio.Event] = {}
        self._gone: dict[str, asyncio.Event] = {}

    async def follow(self) -> None:
        """One watch for all pods, until cancelled."""
        async for event in self._client.watch(Pod, namespace="default", send_initial_events=True, timeout_s=3600):
            name = event.object.metadata.name
            if event.type == "DELETED":
                self._gone.setdefault(name, asyncio.Event()).set()
            elif event.type != "BOOKMARK" and event.object.status.is_ready:
                self._ready.setdefault(name, asyncio.Event()).set()

    async def create(self, name: str, *, bound: bool) -> None:
        container = Container(name="c", image="localhost/host", command=("sleep", "100000"))
        spec = PodSpec(
            containers=(container,),
            node_name=NODE if bound else "",
            automount_service_account_token=False,
            termination_grace_period_seconds=0,
        )
        self._ready[name], self._gone[name] = asyncio.Event(), asyncio.Event()
        await self._client.create(Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=spec))

    async def delete(self, name: str) -> None:
        await self._client.delete(Pod, name, namespace="default")

    async def bind(self, name: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        await self._client.request("POST", f"/api/v1/namespaces/default/pods/{name}/binding", body=encode(body))

    async def starts(self) -> list[float]:
        took = []
        for number in range(STARTS):
            name = f"one-{number}"
            await self.create(name, bound=False)
            began = time.perf_counter()
            await self.bind(name)
            await self._ready[name].wait()
            took.append(time.perf_counter() - began)
        await self.end([f"one-{number}" for number in range(STARTS)])
        await self.cleared()  # a pod that is gone from the API keeps its place on the node until it is cleared away
        return took

    async def begin(self, names: list[str]) -> None:
        await asyncio.gather(*(self.create(name, bound=True) for name in names))
        await asyncio.gather(*(self._ready[name].wait() for name in names))

    async def end(self, names: list[str]) -> None:
        await asyncio.gather(*(self.delete(name) for name in names))
        await asyncio.gather(*(self._gone[name].wait() for name in names))

    async def lives(self) -> dict[str, int]:
        """What a thousand pods leave behind: the census after them, less the one before."""
        await self.life(0)  # what is made once and kept is made now
        await self.settle()
        before = self.census()
        for first in range(1, LIVES + 1, LIVES_AT_ONCE):
            await asyncio.gather(*(self.life(number) for number in range(first, first + LIVES_AT_ONCE)))
        await self.settle()
        after = self.census()
        return {kind: after[kind] - before[kind] for kind in before}

    async def life(self, number: int) -> None:
        name = f"life-{number}"
        await self.begin([name])
        await self.end([name])

    async def settle(self) -> None:
        """Until nothing moves any more."""
        await self.cleared()
        await asyncio.sleep(SETTLE_S * min(SHARE * 4, 1.0))

    async def cleared(self) -> None:
        """Until the agent has cleared the last pod away: its object goes a moment earlier."""
        deadline = time.monotonic() + 60
        while any(any((self._run_dir / place).glob("*")) for place in ("sandboxes", "containers", "netns")):
            if time.monotonic() > deadline:
                raise SystemExit("pods: the agent has not cleared everything away within a minute")
            await asyncio.sleep(0.05)

    def census(self) -> dict[str, int]:
        """What could be left, as the kernel counts it."""
        words = str(self._run_dir).encode()
        own, namespaces = 0, set()
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                own += words in (path / "cmdline").read_bytes()
            for kind in ("net", "ipc", "uts", "mnt", "pid"):
                with suppress(OSError):
                    namespaces.add(os.readlink(path / "ns" / kind))
        mounts = Path(f"/proc/{self._agent_pid}/mountinfo").read_text().splitlines()
        # Namespaces that no process is in are held by mounts.
        namespaces |= {line.split()[3] for line in mounts if " - nsfs " in line}
        return {
            "processes": own,
            "mounts": len(mounts),
            "namespaces": len(namespaces),
            "control groups": sum(1 for _ in Path("/sys/fs/cgroup").glob(f"*{CGROUP_PARENT}/**/")),
            "links": len(os.listdir("/sys/class/net")),
            "files": sum(len(names) for _, _, names in os.walk(self._run_dir)),
        }

    async def idle(self) -> tuple[float, float]:
        """(per cent of a core, megabytes) of the agent alone; its children, if any, are not idle pods' doing."""
        names = [f"idle-{number}" for number in range(IDLE)]
        await self.begin(names)
        await asyncio.sleep(SETTLE_S)
        before, began = _cpu_s(self._agent_pid), time.perf_counter()
        await asyncio.sleep(IDLE_S)
        share = (_cpu_s(self._agent_pid) - before) / (time.perf_counter() - began) * 100
        memory = _resident_mb(self._agent_pid)
        await self.end(names)
        return share, memory


def _cpu_s(pid: int) -> float:
    """Of a process and the children it has waited for (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6


def _say(name: str, *values: float) -> None:
    print(json.dumps([name, values]), flush=True)


@asynccontextmanager
async def _process(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*words, stdout=sys.stderr)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _client(kubeconfig: Path) -> Client:
    """Once the server answers."""
    async with asyncio.timeout(20):
        while True:
            with suppress(UsageError, ConnectionFailed, ApiError):
                client = Client.from_kubeconfig(kubeconfig)
                account = ServiceAccount(metadata=ObjectMeta(name="default", namespace="default"))
                with suppress(ApiError):  # there already
                    await client.create(account)
                await client.get(ServiceAccount, "default", namespace="default")
                return client
            await asyncio.sleep(0.1)


async def _drive(scratch: Path) -> None:
    data, run_dir = scratch / "data", scratch / "run"
    kubeconfig = data / "admin.kubeconfig"
    async with _process(PILOTAGE, "apiserver", "--data-dir", str(data), "--listen", f"{ADDRESS}:6443") as server:
        client = await _client(kubeconfig)
        async with client, _process(sys.executable, "-m", "bench.pods", "agent", str(scratch)) as agent:
            driver = Driver(client, run_dir, agent.pid)
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(driver.follow())
                await driver.life(10**6)
                for name, values in (await _measure(driver)).items():
                    _say(name, *values)
                watch.cancel()
            assert server.returncode is None


async def _measure(driver: Driver) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"start": await driver.starts()}
    names = [f"many-{number}" for number in range(MANY)]
    began = time.perf_counter()
    await driver.begin(names)
    found["many started"] = [time.perf_counter() - began]
    began = time.perf_counter()
    await driver.end(names)
    await driver.cleared()
    found["many stopped"] = [time.perf_counter() - began]
    cpu, memory = await driver.idle()
    found |= {"idle cpu": [cpu], "idle memory": [memory], "bare memory": [_bare_memory()]}
    return found | {kind: [float(count)] for kind, count in (await driver.lives()).items()}


def _bare_memory() -> float:
    script = "import pilotage.agent, uvloop, sys; print('', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return _resident_mb(process.pid)


def _agent(scratch: Path) -> None:
    import uvloop

    config = Config(
        node=NODE,
        node_ip=ADDRESS,
        pod_cidr="10.244.0.0/22",
        cluster_cidr="10.244.0.0/16",
        data_dir=scratch / "agent",
        run_dir=scratch / "run",
        cgroup_parent=CGROUP_PARENT,
        pods_max=MANY + LIVES_AT_ONCE + 10,
    )

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # type: ignore[union-attr]
        with suppress(asyncio.CancelledError):
            async with await _client(scratch / "data" / "admin.kubeconfig") as client:
                await run(config, client)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def main(arguments: list[str]) -> None:
    """Inside the namespaces: the driver, or the agent it starts."""
    if arguments[:1] == ["agent"]:
        _agent(Path(arguments[1]))
        return
    for words in (["ip", "link", "set", "lo", "up"], ["mount", "-t", "tmpfs", "tmpfs", "/run"]):
        subprocess.run(words, check=True)
    # Overlays need their upper layers elsewhere than on the host's root.
    with tempfile.TemporaryDirectory(prefix="pilotage-bench-", dir="/run") as scratch:
        try:
            asyncio.run(_drive(Path(scratch)))
        finally:
            remove_cgroups(CGROUP_PARENT)
            _unmount_below(scratch)


def _unmount_below(path: str) -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for point in sorted((line.split()[4] for line in lines), reverse=True):
        if point.startswith(path):
            subprocess.run(["umount", "--lazy", point], check=False)


if __name__ == "__main__":
    main(sys.argv[1:])
