"""The service proxy as a user runs it, on the real kernel, in namespaces of its own: first sync, changes, packets.

Everything is shown by real connections, and processor time is the proxy's own, read from /proc. With
PILOTAGE_BENCH_QUICK set the sizes are a tenth, for a machine that does other work; bounds stand at full size only. The
measuring process is started anew inside a network namespace, so the host's tables are never touched.
"""

import asyncio
import dataclasses
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench import conventional
from bench.figure import Figure, Peer, progress
from bench.proxy_world import (
    PROBE_ENDPOINTS,
    Endpoints,
    Process,
    api_server,
    connect_times,
    endpoint_address,
    fill,
    plumb,
    point,
    point_probe,
    prepare_node,
    proxy,
    until_reached,
)
from pilotage.client import Client
from pilotage.network import namespaces
from pilotage.proxy import cleanup

QUICK = "PILOTAGE_BENCH_QUICK" in os.environ
SCALE = 10 if QUICK else 1
SMALL, LARGE, LARGEST = 100, 10_000 // SCALE, 20_000 // SCALE
PATH_SIZES = (10, 1_000 // SCALE, LARGE)
ENDPOINTS = 10
STARTS = 1 if QUICK else 3
CHANGES = 100 if QUICK else 300
SUSTAINED_S, SUSTAINED_RATE, SUSTAINED_WRITERS = (4 if QUICK else 10), 1000, 16
ROUNDS, CONNECTS = (6 if QUICK else 60), 500
PEER_SERVICES = 2_000 // SCALE


def figures() -> Iterator[Figure]:
    """Runs `main` in namespaces of its own and passes on what it says."""
    words = ["unshare", "--net", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))]
    command = [*words, sys.executable, "-m", "bench.proxy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            row = json.loads(line)
            yield Figure(**row | {"peer": Peer(**row["peer"]) if row["peer"] else None})
    if process.returncode:
        raise SystemExit(f"bench.proxy ended with {process.returncode}")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pilotage-bench-") as directory:
        home = Path(directory)
        client, plain = home / "client", home / "plain"
        try:
            plumb(client)
            Endpoints().start()
            for figure in _all(home, client):
                print(json.dumps(dataclasses.asdict(figure)), flush=True)
        finally:
            namespaces.delete(client)
            namespaces.delete(plain)


def _all(home: Path, client: Path) -> Iterator[Figure]:
    yield from _grown(home / "grown", client)
    yield from _cold(home / "wide", 44_000 // SCALE, 2, 15.0)
    yield from _cold(home / "deep", 5_000 // SCALE, 50, 30.0)


def _bound(value: float) -> float | None:
    return None if QUICK else value


# ── one cluster that grows ──────────────────────────────────────────────────────────────────────────────────────────


def _grown(home: Path, client: Path) -> Iterator[Figure]:
    paths: dict[int, list[tuple[list[float], list[float]]]] = {}
    with api_server(home) as kubeconfig:
        have = 0
        vip = ""
        small: tuple[list[float], float] = ([], 0.0)
        for size in sorted({*PATH_SIZES, SMALL}):
            progress(f"{size:,} Services")
            vip = asyncio.run(fill(kubeconfig, range(have, size), ENDPOINTS))
            have = size
            with proxy(kubeconfig) as process:
                process.until_ready()
                if size == SMALL:
                    small = _changes(kubeconfig, vip, process)
                if size in PATH_SIZES:
                    paths[size] = _path(client, vip)
        yield from _first_syncs(kubeconfig, vip)
        name = f"{LARGE:,} Services × {ENDPOINTS}"
        with proxy(kubeconfig) as process:
            process.until_ready()
            yield Figure(
                name=f"{name}: memory when ready (RSS)",
                unit="MB",
                values=[process.memory_mb("VmRSS")],
                bound=_bound(200.0),
            )
            took, cpu = _changes(kubeconfig, vip, process)
            yield Figure(
                name=f"{name}: one change live after its acknowledgement", unit="ms", values=took, bound=_bound(10.0)
            )
            p99 = sorted(took)[int(len(took) * 0.99)]
            yield Figure(name=f"{name}: the same, 99th percentile", unit="ms", values=[p99], bound=_bound(50.0))
            yield Figure(name=f"{name}: processor time per change", unit="ms", values=[cpu], bound=_bound(10.0))
            yield from _sustained(kubeconfig, vip, process)
        asyncio.run(fill(kubeconfig, range(have, LARGEST), ENDPOINTS))
        with proxy(kubeconfig) as process:
            process.until_ready()
            _, largest = _changes(kubeconfig, vip, process)
        yield Figure(
            name=f"processor time per change at {LARGEST:,} Services over that at {SMALL}",
            unit="×",
            values=[largest / small[1]],
            bound=_bound(2.0),
            note=f"{largest:.2f} ms and {small[1]:.2f} ms",
        )
    cleanup()
    yield from _paths(paths)


def _first_syncs(kubeconfig: Path, vip: str) -> Iterator[Figure]:
    took, cpu, peak = [], [], []
    for _ in range(STARTS):
        cleanup()
        with proxy(kubeconfig) as process:
            took.append(until_reached(vip, PROBE_ENDPOINTS[0]) - process.started)
            process.until_ready()
            cpu.append(process.cpu_s())
            peak.append(process.memory_mb("VmHWM"))
    name = f"{LARGE:,} Services × {ENDPOINTS}"
    peer = Peer(name=f"a chain per Service and endpoint, {PEER_SERVICES:,} Services, nft -f", values=[_conventional()])
    yield Figure(
        name=f"{name}: first connection after the proxy's start",
        unit="s",
        values=took,
        bound=_bound(4.0),
        peer=peer,
        note=_nft_version(),
    )
    yield Figure(name=f"{name}: processor time until then", unit="s", values=cpu)
    yield Figure(name=f"{name}: largest memory until then", unit="MB", values=peak)


def _changes(kubeconfig: Path, vip: str, process: Process) -> tuple[list[float], float]:
    """Milliseconds from each acknowledged write to the first connection that shows it; processor ms a change."""

    async def run() -> list[float]:
        took = []
        async with Client.from_kubeconfig(kubeconfig) as client:
            for number in range(CHANGES):
                wanted = PROBE_ENDPOINTS[(number + 1) % 2]
                await point_probe(client, wanted)
                written = time.perf_counter()
                took.append((until_reached(vip, wanted) - written) * 1e3)
                # Changes at moments that have nothing to do with the last one.
                await asyncio.sleep(random.uniform(0.01, 0.05))  # noqa: S311
        return took

    time.sleep(1.0)  # what the start left to do
    before = process.cpu_s()
    took = asyncio.run(run())
    return took, (process.cpu_s() - before) / CHANGES * 1e3


def _sustained(kubeconfig: Path, vip: str, process: Process) -> Iterator[Figure]:
    """Writers change endpoints as fast as agreed; then: how long until a last change shows."""

    async def run() -> tuple[int, float, float]:
        async with Client.from_kubeconfig(kubeconfig) as client:
            started = time.perf_counter()
            made = 0

            async def writer() -> None:
                nonlocal made
                while (now := time.perf_counter() - started) < SUSTAINED_S:
                    if made > now * SUSTAINED_RATE:
                        await asyncio.sleep(0.001)
                        continue
                    made += 1
                    await point(client, f"s-{made % LARGE}-0", endpoint_address(made % 1_000_000))

            await asyncio.gather(*(writer() for _ in range(SUSTAINED_WRITERS)))
            elapsed = time.perf_counter() - started
            await point_probe(client, PROBE_ENDPOINTS[1])
            written = time.perf_counter()
            lag = until_reached(vip, PROBE_ENDPOINTS[1]) - written
            await point_probe(client, PROBE_ENDPOINTS[0])
            return made, elapsed, lag

    before = process.cpu_s()
    made, elapsed, lag = asyncio.run(run())
    note = f"processor time {(process.cpu_s() - before) / made * 1e3:.2f} ms a change"
    yield Figure(
        name="sustained changes",
        unit="/s",
        values=[made / elapsed],
        at_least=None if QUICK else SUSTAINED_RATE * 0.95,
        note=note,
    )
    yield Figure(name="a last change live after them", unit="ms", values=[lag * 1e3], bound=_bound(1000.0))


# ── other shapes ────────────────────────────────────────────────────────────────────────────────────────────────────


def _cold(home: Path, services: int, endpoints: int, bound: float) -> Iterator[Figure]:
    progress(f"{services:,} Services × {endpoints}")
    with api_server(home) as kubeconfig:
        vip = asyncio.run(fill(kubeconfig, range(services), endpoints))
        with proxy(kubeconfig) as process:
            took = until_reached(vip, PROBE_ENDPOINTS[0]) - process.started
            process.until_ready()
            name = f"{services:,} Services × {endpoints}, cold"
            yield Figure(name=f"{name}: first connection", unit="s", values=[took], bound=_bound(bound))
            yield Figure(name=f"{name}: largest memory", unit="MB", values=[process.memory_mb("VmHWM")])
        cleanup()


def _conventional() -> float:
    """Seconds that nft takes to load the peer's rules, in a namespace of their own."""

    def vip(number: int) -> str:
        return f"10.{96 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"

    lines = conventional.ruleset(PEER_SERVICES, ENDPOINTS, vip, endpoint_address)
    started = time.perf_counter()
    done = subprocess.run(
        ["unshare", "--net", "nft", "-f", "-"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the conventional layout is refused: {done.stderr[:300]}")
    return time.perf_counter() - started


def _nft_version() -> str:
    return subprocess.run(["nft", "--version"], capture_output=True, text=True, check=True).stdout.strip()


# ── the packets' way ────────────────────────────────────────────────────────────────────────────────────────────────


def _path(client: Path, vip: str) -> list[tuple[list[float], list[float]]]:
    """Rounds of connects through the proxy's rules and through one rule written by hand, in turns: seconds of each."""
    with _PlainNode(client) as plain:
        connect_times(client, vip, 80, CONNECTS)  # warm
        connect_times(client, plain.vip, 80, CONNECTS)
        rounds = []
        for number in range(ROUNDS):
            if number % 2:
                theirs = connect_times(client, plain.vip, 80, CONNECTS)
                rounds.append((connect_times(client, vip, 80, CONNECTS), theirs))
            else:
                ours = connect_times(client, vip, 80, CONNECTS)
                rounds.append((ours, connect_times(client, plain.vip, 80, CONNECTS)))
        return rounds


class _PlainNode:
    """Another node, whose only rule was written by hand, with the same cable to the same client."""

    vip = "198.51.100.1"
    _ADDRESS, _PEER, _ENDPOINT = "192.0.3.1", "192.0.3.2", endpoint_address(0)

    def __init__(self, client: Path) -> None:
        self._client, self._path = client, client.with_name("plain")

    def __enter__(self) -> "_PlainNode":
        namespaces.create(self._path)
        plain, client = os.open(self._path, os.O_RDONLY), os.open(self._client, os.O_RDONLY)
        try:
            mine = f"/proc/{os.getpid()}/fd"
            _ip(f"link add plain0 netns {mine}/{plain} type veth peer name plain1 netns {mine}/{client}")
        finally:
            os.close(plain)
            os.close(client)
        namespaces.run_in(self._path, self._set_up)
        namespaces.run_in(self._client, self._set_up_client)
        listener = namespaces.socket_in(self._path, socket.AF_INET, socket.SOCK_STREAM)
        self._endpoints = Endpoints(listener)
        self._endpoints.start()
        return self

    def _set_up(self) -> None:
        prepare_node()
        for words in (
            f"addr add {self._ADDRESS}/24 dev plain0",
            "link set plain0 up",
        ):
            _ip(words)
        rule = (
            "add table ip plain\nadd chain ip plain nat { type nat hook prerouting priority -100; }\n"
            f"add rule ip plain nat ip daddr {self.vip} tcp dport 80 dnat to {self._ENDPOINT}:8080\n"
        )
        subprocess.run(["nft", "-f", "-"], input=rule, text=True, check=True)

    def _set_up_client(self) -> None:
        for words in (
            f"addr add {self._PEER}/24 dev plain1",
            "link set plain1 up",
            f"route add {self.vip} via {self._ADDRESS}",
        ):
            _ip(words)

    def __exit__(self, *_: object) -> None:
        self._endpoints.close()
        namespaces.run_in(self._client, partial(_ip, "link del plain1"))
        namespaces.delete(self._path)


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def _paths(paths: dict[int, list[tuple[list[float], list[float]]]]) -> Iterator[Figure]:
    """Ratios are those of medians within a round: what else the machine does meets both sides of it."""
    relative = {}
    for size, rounds in paths.items():
        ours, theirs = ([each * 1e6 for turn in rounds for each in turn[side]] for side in (0, 1))
        peer = Peer(name="one DNAT rule written by hand", values=theirs)
        yield Figure(name=f"connect through a cluster IP at {size:,} Services", unit="µs", values=ours, peer=peer)
        ratios = [statistics.median(turn[1]) / statistics.median(turn[0]) for turn in rounds]
        relative[size] = statistics.median(ratios)
        note = f"{1e6 / statistics.median(ours):.0f}/s and {1e6 / statistics.median(theirs):.0f}/s"
        name = f"connections at {size:,} Services, over those through one rule"
        yield Figure(name=name, unit="×", values=ratios, at_least=0.95, note=note)
    spread = max(relative.values()) / min(relative.values())
    yield Figure(name="fastest size over slowest, relative to the one rule", unit="×", values=[spread], bound=1.1)


if __name__ == "__main__":
    main()
