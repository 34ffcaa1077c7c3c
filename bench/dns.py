"""The DNS server as a user runs it, against a whole API server: what a question costs it, how soon it knows, how big.

The server has one core, dnsperf another. Questions are counted per second of the server's own processor time, read from
/proc: rates by the clock are those of a machine that may do other work. The peer is unbound on the same core with the
same names as local data.
"""

import asyncio
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.dns_cluster import (
    NAMESPACES,
    ZONE,
    Made,
    create,
    endpoint_addresses,
    external_data,
    local_data,
    mixes,
    service_of,
    slice_of,
    write_unbound,
)
from bench.figure import Figure, Peer, progress, timed
from pilotage.api.core_v1 import Service, ServicePort, ServiceSpec
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.status import ApiError
from pilotage.client import Client, ConnectionFailed
from pilotage.dns.core.name import from_text
from pilotage.dns.core.records import ZoneSettings
from pilotage.dns.core.table import Table
from pilotage.dns.core.wire import parse_query
from pilotage.testing.etcd import free_port

QUICK = "PILOTAGE_BENCH_QUICK" in os.environ  # one short run of everything, for a machine that has other work
SERVICES = 10_000
SECONDS = 1.5 if QUICK else 4.0  # of one run of one mix
RUNS = 1 if QUICK else 3
UPDATES = 300
STARTS = 3
LOAD = 0.7
TIMEOUT_S = 5.0  # dnsperf's
BOUND_RATE = 80_000
_TICKS = os.sysconf("SC_CLK_TCK")
_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = str(_CORES[-1]), str(_CORES[0])
PILOTAGE = str(Path(sys.executable).with_name("pilotage"))


@dataclass(frozen=True, slots=True)
class Served:
    """A DNS server process."""

    pid: int
    port: int
    start_s: float = 0.0

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mb(self, field: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) * 1024 / 1e6


def figures() -> Iterator[Figure]:
    """Throughput by mix, latency under load, freshness, start and memory."""
    for program in ("dnsperf", "unbound"):
        if not any(Path(folder, program).exists() for folder in ("/usr/bin", "/usr/sbin")):
            raise SystemExit(f"no {program}: run `tools/system-packages bench` first")
    yield from _update_costs()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotage-bench-")))
        kubeconfig = stack.enter_context(_api_server(home))
        progress(f"{SERVICES:,} Services")
        services = asyncio.run(_create(kubeconfig))
        upstream = stack.enter_context(_unbound(home / "outside.conf", external_data(), CLIENT_CORE))
        starts, sizes, peaks = [], [], []
        for number in range(STARTS):
            with _dns(kubeconfig, upstream.port, services[1]) as server:
                starts.append(server.start_s)
                sizes.append(server.memory_mb("VmRSS"))
                peaks.append(server.memory_mb("VmHWM"))
                if number == STARTS - 1:
                    progress("freshness")
                    slices, created = asyncio.run(_freshness(kubeconfig, server.port, services))
                    yield from _fresh("changed slice", slices)
                    yield from _fresh("new Service", created)
                    yield from _throughput(home, server, services)
                    yield Figure(name="memory after all questions (RSS)", unit="MB", values=[server.memory_mb("VmRSS")])
        name = f"{SERVICES:,} Services, {SERVICES * 10:,} endpoints"
        yield Figure(name=f"{name}: first right answer after the start", unit="s", values=starts, bound=3.0)
        yield Figure(name=f"{name}: memory when ready (RSS)", unit="MB", values=sizes, bound=150.0)
        yield Figure(name=f"{name}: largest memory until then", unit="MB", values=peaks, bound=150.0)


def _update_costs() -> Iterator[Figure]:
    """What applying one changed object takes, with everything of it compiled, in a small and in the whole cluster."""
    found: dict[int, tuple[list[float], list[float]]] = {}
    for total in (100, SERVICES):
        table = Table(ZoneSettings(zone=from_text(ZONE)), recursion=True)
        parts = [slice_of(number) for number in range(total)]
        services = [service_of(number) for number in range(total)]
        for made, part in zip(services, parts, strict=True):
            table.set_service(None, made)
            table.set_slice(None, part)
        table.synced = True
        took: tuple[list[float], list[float]] = ([], [])
        for turn in range(UPDATES * 5):
            number = turn * 10 % total  # a headless one, which has the most names
            for name in (f"svc-{number}", f"x.svc-{number}"):
                data = question(f"{name}.team-{number % NAMESPACES}.svc.{ZONE}")
                table.respond(data, parse_query(data))
            changed = slice_of(number, (f"172.16.0.{turn % 250}", *endpoint_addresses(number)[1:]))
            took[0].append(timed(partial(table.set_slice, parts[number], changed)) * 1e6)
            took[1].append(timed(partial(table.set_service, services[number], services[number])) * 1e6)
            parts[number] = changed
        found[total] = took
    for index, kind in enumerate(("slice of ten endpoints", "Service")):
        yield Figure(
            name=f"applying one changed {kind}, {SERVICES:,} Services",
            unit="µs",
            values=found[SERVICES][index],
            peer=Peer(name="100 Services", values=found[100][index]),
        )


def _fresh(what: str, seconds: Sequence[float]) -> Iterator[Figure]:
    ordered = sorted(seconds)
    name = f"right answer about a {what} after the acknowledged write"
    yield Figure(name=f"{name}, median", unit="ms", values=[each * 1e3 for each in ordered], bound=1.0)
    yield Figure(name=f"{name}, p99", unit="ms", values=[ordered[int(len(ordered) * 0.99)] * 1e3], bound=15.0)


# ── throughput ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _throughput(home: Path, server: Served, services: list[Made]) -> Iterator[Figure]:
    everything = [*local_data(services), *external_data()]
    with _unbound(home / "peer.conf", iter(everything), SERVER_CORE) as peer:
        first: list[float] = []
        for mix, lines in mixes(services).items():
            questions = home / "questions"
            questions.write_text("\n".join(lines) + "\n")
            for edns in (False, True):
                progress(f"{mix}{', EDNS' if edns else ''}")
                ours, theirs = [], []
                first.append(_first_time(server, questions, edns))
                _dnsperf(peer, questions, edns, SECONDS, 0, "-n", "1")
                for _ in range(RUNS):
                    ours.append(_rate(server, questions, edns)[0])
                    theirs.append(_rate(peer, questions, edns)[0])
                share = sorted(ours)[len(ours) // 2] / sorted(theirs)[len(theirs) // 2]
                yield Figure(
                    name=f"{mix}{', EDNS' if edns else ''}: questions a second of processor time",
                    unit="1/s",
                    values=ours,
                    at_least=BOUND_RATE,
                    peer=Peer(name="unbound", values=theirs),
                    note=f"{share:.0%} of unbound",
                )
        yield Figure(
            name="every name asked for the first time: processor time a question, mix by mix",
            unit="µs",
            values=first,
            note="answers are compiled when first asked; the rates above are those of compiled ones",
        )
        yield from _latency(home, server, peer, services)


def _rate(server: Served, questions: Path, edns: bool, *, limit: float = 0, seconds: float = SECONDS) -> list[float]:
    """Answers a second of processor time, and a second by the clock."""
    before = server.cpu_s()
    output = _dnsperf(server, questions, edns, seconds, limit)
    used = server.cpu_s() - before
    done = int(_find(r"Queries completed:\s+(\d+)", output))
    lost = int(_find(r"Queries lost:\s+(\d+)", output))
    if lost:
        progress(f"{lost} of {done} questions lost by {server}")
    return [done / used, float(_find(r"Queries per second:\s+([\d.]+)", output))]


def _first_time(server: Served, questions: Path, edns: bool) -> float:
    """Processor microseconds a question of one pass, before which nothing of the mix was compiled."""
    before = server.cpu_s()
    output = _dnsperf(server, questions, edns, 60, 0, "-n", "1")
    return (server.cpu_s() - before) / int(_find(r"Queries completed:\s+(\d+)", output)) * 1e6


def _dnsperf(server: Served, questions: Path, edns: bool, seconds: float, limit: float = 0, *more: str) -> str:
    words = ["taskset", "--cpu-list", CLIENT_CORE, "dnsperf", "-s", "127.0.0.1", "-p", str(server.port)]
    words += ["-d", str(questions), "-l", str(seconds), "-c", "10", "-q", "200", *(["-e"] if edns else []), *more]
    words += ["-Q", str(int(limit))] if limit else []
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        raise SystemExit(f"dnsperf: {done.stderr[-300:]}")
    return done.stdout


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"dnsperf says nothing like {pattern!r}: {text[-500:]}")
    return found.group(1)


def _latency(home: Path, server: Served, peer: Served, services: list[Made]) -> Iterator[Figure]:
    """At 70 % of what the server can do by the clock, every answer's time as dnsperf saw it."""
    questions = home / "questions"
    questions.write_text("\n".join(mixes(services)["A + AAAA pairs"]) + "\n")
    found: list[list[float]] = []
    for one in (server, peer):
        limit = LOAD * _rate(one, questions, False)[1]
        p99 = []
        for _ in range(RUNS):
            output = _dnsperf(one, questions, False, SECONDS, limit, "-v")
            # A lost question has no time: it counts as long as dnsperf waited for it.
            lines = [line.rsplit(" ", 1)[1] for line in output.splitlines() if line.startswith("> ")]
            took = sorted(float(text) if text[0].isdigit() else TIMEOUT_S for text in lines)
            p99.append(took[int(len(took) * 0.99)] * 1e3)
        found.append(p99)
    yield Figure(
        name="A + AAAA pairs at 70 % of the highest rate, p99",
        unit="ms",
        values=found[0],
        bound=2.0,
        peer=Peer(name="unbound at 70 % of its own", values=found[1]),
    )


# ── freshness ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def _freshness(kubeconfig: Path, port: int, services: list[Made]) -> tuple[list[float], list[float]]:
    """Seconds from the answer to a write until a question asked again and again is answered rightly."""
    slices, created = [], []
    headless = [number for number, made in enumerate(services) if not made.address]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(5)
        async with Client.from_kubeconfig(kubeconfig) as api:
            for turn in range(UPDATES):
                number = headless[turn % len(headless)]
                address = f"172.16.{turn // 250}.{turn % 250 + 1}"
                made = slice_of(number, (address, *services[number].endpoints[1:]))
                patch = {"endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in _first(made)]}
                _ask(client, services[number].dns_name)  # so that an old answer is compiled and must give way
                await api.patch(EndpointSlice, made.metadata.name, patch, namespace=made.metadata.namespace)
                slices.append(_until(client, services[number].dns_name, socket.inet_aton(address)))
            for turn in range(UPDATES):
                spec = ServiceSpec(ports=(ServicePort(name="http", port=80),))
                name = f"new-{turn}.team-0.svc.cluster.local"
                _ask(client, name)
                new = await api.create(Service(metadata=ObjectMeta(name=f"new-{turn}", namespace="team-0"), spec=spec))
                created.append(_until(client, name, socket.inet_aton(new.spec.cluster_ip)))
    return slices, created


def _first(part: EndpointSlice) -> list[str]:
    return [endpoint.addresses[0] for endpoint in part.endpoints]


def question(name: str) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def _ask(client: socket.socket, name: str) -> bytes:
    client.send(question(name))
    return client.recv(4096)


def _until(client: socket.socket, name: str, address: bytes) -> float:
    started = time.perf_counter()
    while address not in _ask(client, name):
        if time.perf_counter() - started > 5:
            raise SystemExit(f"{name} is not answered rightly within five seconds")
    return time.perf_counter() - started


# ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def _create(kubeconfig: Path) -> list[Made]:
    async with Client.from_kubeconfig(kubeconfig) as client:
        return await create(client, SERVICES)


@contextmanager
def _process(words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(words) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def _api_server(home: Path) -> Iterator[Path]:
    port = free_port()
    kubeconfig = home / "admin.kubeconfig"
    words = ["apiserver", "--listen", f"127.0.0.1:{port}", "--data-dir", str(home), "--log-level", "error"]
    with _process([PILOTAGE, *words]) as process:
        deadline = time.monotonic() + 60
        while not (kubeconfig.exists() and asyncio.run(_is_served(kubeconfig))):
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit("the API server does not become ready")
            time.sleep(0.05)
        yield kubeconfig


async def _is_served(kubeconfig: Path) -> bool:
    try:
        async with Client.from_kubeconfig(kubeconfig) as client:
            await client.get(Service, "kubernetes", namespace="default")
            return True
    except (ApiError, ConnectionFailed):
        return False


@contextmanager
def _unbound(path: Path, lines: Iterator[str], core: str) -> Iterator[Served]:
    port = free_port()
    write_unbound(path, port, lines)
    with _process(["taskset", "--cpu-list", core, "unbound", "-d", "-c", str(path)]) as process:
        _until_answers(port, "www1.example.com", b"\xc0\x00\x02\x02")
        yield Served(process.pid, port)


@contextmanager
def _dns(kubeconfig: Path, upstream: int, known: Made) -> Iterator[Served]:
    port = free_port()
    words = [PILOTAGE, "dns", "--kubeconfig", str(kubeconfig), "--listen", f"127.0.0.1:{port}", "--node", "bench"]
    words += ["--upstream", f"127.0.0.1:{upstream}", "--log-level", "error"]
    started = time.perf_counter()
    with _process(["taskset", "--cpu-list", SERVER_CORE, *words]) as process:
        _until_answers(port, known.dns_name, socket.inet_aton(known.address))
        yield Served(process.pid, port, time.perf_counter() - started)


def _until_answers(port: int, name: str, address: bytes) -> None:
    deadline = time.monotonic() + 60
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(1)
        while time.monotonic() < deadline:
            try:
                if address in _ask(client, name):
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.005)
    raise SystemExit(f"no server on port {port} answers {name}")
