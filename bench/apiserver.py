"""The API server alone: what a request costs it, how fast it lists, tells and starts, and how much it keeps in memory.

The server runs as a user runs it, on SQLite; load comes from another process (`bench.apiserver_load`), and only the
server's own processor time counts, read from /proc. On a machine that does other work besides, times by the clock are
those of the whole machine; processor times hardly change.
"""

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.figure import Figure, Peer, progress
from pilotage.testing.etcd import etcd, free_port

CLIENTS = 64
PODS = 10_000
GETS = 20_000
LISTS = 20
UPDATES = 500
RATE = 50.0
WATCHERS = 50
IDLE_WATCHERS = 10_000
SEQUENTIAL = 300
ONE_POD = "/api/v1/namespaces/default/pods/load-00001"
ALL_PODS = "/api/v1/namespaces/default/pods"
_TICKS = os.sysconf("SC_CLK_TCK")


class Served:
    """A server process and how to load it."""

    def __init__(self, process: subprocess.Popen[str], kubeconfig: Path, url: str = "") -> None:
        self.process, self._kubeconfig, self._url = process, kubeconfig, url

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024

    def words(self, mode: str, *options: object) -> list[str]:
        where = ["--kubeconfig", str(self._kubeconfig), *(["--server", self._url] if self._url else [])]
        return [sys.executable, "-m", "bench.apiserver_load", mode, *where, *map(str, options)]

    def load(self, mode: str, *options: object) -> tuple[list[float], float]:
        """Seconds of every request, and the server's processor seconds for all of them."""
        before = self.cpu_s()
        done = subprocess.run(self.words(mode, *options), capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise SystemExit(f"load {mode} failed: {done.stderr[-600:]}")
        seconds: list[float] = json.loads(done.stdout)["seconds"]
        return seconds, self.cpu_s() - before

    def told(self) -> tuple[list[float], float]:
        """Seconds from an update's sending to each watcher, and processor seconds; each side on a core of its own.

        Left to the scheduler, a reader that is woken shares the server's core and pushes it aside for milliseconds.
        """
        cores = sorted(os.sched_getaffinity(self.process.pid))
        os.sched_setaffinity(self.process.pid, cores[:1])
        try:
            return self.load(
                "watch", "--count", UPDATES, "--connections", WATCHERS, "--rate", RATE, "--core", cores[-1]
            )
        finally:
            os.sched_setaffinity(self.process.pid, cores)

    def micros(self, mode: str, *options: object, runs: int = 3) -> list[float]:
        """Processor microseconds a request, run by run."""
        found = []
        for _ in range(runs):
            seconds, used = self.load(mode, *options)
            found.append(used / len(seconds) * 1e6)
        return found


def figures() -> Iterator[Figure]:
    """Requests, lists, watches, memory, start."""
    _raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="pilotage-bench-") as directory:
        home = Path(directory)
        with _server(home) as server:
            empty = server.memory_mib()
            progress("sequential creates")
            alone, _ = server.load("create", "--count", SEQUENTIAL, "--connections", 1, "--prefix", "alone")
            progress("creates")
            creates, per = [], PODS // 4
            for part in range(4):
                _, used = server.load(
                    "create",
                    "--count",
                    per,
                    "--connections",
                    CLIENTS,
                    "--prefix",
                    "load" if not part else f"load{part}",
                )
                creates.append(used / per * 1e6)
            full = server.memory_mib()
            progress("reads")
            gets = server.micros("get", "--count", GETS, "--connections", CLIENTS, "--path", ONE_POD)
            lists, _ = server.load("get", "--count", LISTS, "--connections", 1, "--path", ALL_PODS)
            listed = _size(server, home)
            progress("watches")
            ages, told = server.told()
            idle_mib, idle_gets = _idle(server)
        progress("peers")
        bare_gets, bare_lists = _bare(home, 1_500), _bare(home, listed)
        with _bare_server(home, 1_500) as bare:
            bare_ages, bare_told = bare.told()
        starts = [_start_s(home) for _ in range(5)]
        commits = _commits(home)
    puts = asyncio.run(_puts())
    yield _cpu("GET, server processor time", gets, 350.0, Peer(name="a bare aiohttp handler", values=bare_gets[1]))
    yield _cpu("durable create of a pod, server processor time", creates, 700.0, None)
    yield _ms(
        "durable create, one after another", alone, None, Peer(name="a SQLite commit, synchronous", values=commits)
    )
    yield _ms("durable create, one after another", alone, None, Peer(name="an etcd put", values=puts))
    yield _ms(
        f"LIST of {PODS:,} pods, {listed / 1e6:.0f} MB",
        lists,
        60.0,
        Peer(name="a bare aiohttp handler with as many bytes", values=_in_ms(bare_lists[0])),
    )
    event = f"event at one of {WATCHERS} watchers"
    handler = "a bare aiohttp handler that passes on what it is sent"
    yield _ms(f"{event}, from the update's sending", ages, 2.5, Peer(name=handler, values=_in_ms(bare_ages)))
    late = Peer(name=handler, values=_in_ms([_p99(bare_ages)]))
    yield _ms(f"{event}, 99th percentile", [_p99(ages)], 8.0, late)
    yield Figure(
        name=f"{event}, server processor time, the update's share included",
        unit="µs",
        values=[told / len(ages) * 1e6],
        peer=Peer(name=handler, values=[bare_told / len(bare_ages) * 1e6]),
    )
    peer = Peer(name="the server when empty", values=[empty])
    yield Figure(name=f"memory with {PODS:,} pods (RSS)", unit="MiB", values=[full], bound=250e6 / 2**20, peer=peer)
    yield Figure(
        name=f"memory of {IDLE_WATCHERS:,} idle watches (RSS)",
        unit="KiB each",
        values=[idle_mib * 1024 / IDLE_WATCHERS],
    )
    yield _ms("GET while they are open", idle_gets, None, None)
    yield Figure(name=f"ready with {PODS:,} objects", unit="s", values=starts, bound=1.0)


def _cpu(name: str, values: Sequence[float], bound: float, peer: Peer | None) -> Figure:
    return Figure(name=f"{name}, {CLIENTS} clients over TLS", unit="µs", values=values, bound=bound, peer=peer)


def _ms(name: str, seconds: Sequence[float], bound: float | None, peer: Peer | None) -> Figure:
    return Figure(name=name, unit="ms", values=_in_ms(seconds), bound=bound, peer=peer)


def _in_ms(seconds: Sequence[float]) -> list[float]:
    return [each * 1e3 for each in seconds]


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def _server(home: Path) -> Iterator[Served]:
    """The API server on the store in `home`, ready, with the account that pods need."""
    port = free_port()
    words = ["apiserver", "--listen", f"127.0.0.1:{port}", "--data-dir", str(home), "--log-level", "error"]
    with subprocess.Popen([sys.executable, "-m", "pilotage.cli", *words], text=True) as process:
        try:
            served = Served(process, home / "admin.kubeconfig")
            _until_ready(home, port)
            account = json.dumps({"metadata": {"name": "default"}}).encode()
            _ask(home, port, "/api/v1/namespaces/default/serviceaccounts", account)
            yield served
        finally:
            process.terminate()


def _ask(home: Path, port: int, path: str, body: bytes | None = None) -> int:
    from pilotage.client import load_kubeconfig

    context = load_kubeconfig(home / "admin.kubeconfig").ssl_context()
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", data=body)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _until_ready(home: Path, port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if (home / "admin.kubeconfig").exists() and _ask(home, port, "/readyz") == 200:
                return
        except OSError:
            pass
        time.sleep(0.01)
    raise SystemExit("the API server does not become ready")


def _start_s(home: Path) -> float:
    started = time.perf_counter()
    with _server(home):
        return time.perf_counter() - started


def _size(server: Served, home: Path) -> int:
    """Bytes of the list of all pods, from the store: what is served is what is stored, and a version each."""
    with sqlite3.connect(f"file:{home / 'state.db'}?mode=ro", uri=True) as connection:
        found = connection.execute("SELECT sum(length(value) + 6) FROM kv WHERE key LIKE '/registry/core/pods/%'")
        return int(found.fetchone()[0])


def _idle(server: Served) -> tuple[float, list[float]]:
    """MiB that idle watches take, and GETs meanwhile."""
    before = server.memory_mib()
    words = server.words("idle", "--connections", IDLE_WATCHERS)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        opened = json.loads(process.stdout.readline() or "{}").get("open")
        if opened != IDLE_WATCHERS:
            raise SystemExit("the idle watches could not be opened")
        after = server.memory_mib()
        gets, _ = server.load("get", "--count", 1_000, "--connections", 1, "--path", ONE_POD)
        process.stdin.close()
        process.stdout.read()  # its last line: who does not wait for it breaks its pipe
    return after - before, gets


def _bare(home: Path, size: int) -> tuple[list[float], list[float]]:
    """Seconds of each answer of so many bytes, and processor microseconds a request."""
    with _bare_server(home, size) as served:
        if size > 100_000:
            return served.load("get", "--count", LISTS, "--connections", 1)[0], []
        return [], served.micros("get", "--count", GETS, "--connections", CLIENTS)


@contextmanager
def _bare_server(home: Path, size: int) -> Iterator[Served]:
    words = [sys.executable, "-m", "bench.bare_aiohttp", str(home), str(size)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Served(process, home / "admin.kubeconfig", f"https://127.0.0.1:{port}")
        finally:
            process.kill()


def _commits(home: Path) -> list[float]:
    """Milliseconds of a commit of one row of a pod's size, as durable as the server's."""
    connection = sqlite3.connect(home / "plain.db", isolation_level=None)
    connection.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (k TEXT PRIMARY KEY, v)"
    )
    took = []
    for number in range(SEQUENTIAL):
        started = time.perf_counter()
        connection.execute("INSERT INTO t VALUES (?, ?)", (f"/{number}", b"x" * 1_500))
        took.append((time.perf_counter() - started) * 1e3)
    connection.close()
    return took


async def _puts() -> list[float]:
    """Milliseconds of an etcd put of a pod's size."""
    from pilotage.storage import EtcdBackend

    with tempfile.TemporaryDirectory(prefix="pilotage-bench-") as directory:
        async with etcd(Path(directory)) as server:
            backend = await EtcdBackend.open(server.url)
            took = []
            for number in range(SEQUENTIAL):
                started = time.perf_counter()
                await backend.create(f"/{number}", b"x" * 1_500)
                took.append((time.perf_counter() - started) * 1e3)
            await backend.close()
    return took
