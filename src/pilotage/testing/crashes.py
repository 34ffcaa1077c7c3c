"""kill -9 of a real API server at random moments under concurrent writes, and what must hold however often.

Stands apart because the suite runs it a few times and `bench` many. A server process on a SQLite file is started,
written to, killed and started again; after every start its objects are compared with what it had acknowledged.
Three promises are judged, each by an assertion that names the seed:

* no acknowledged write is lost, and one whose answer was lost has happened wholly or not at all;
* no resourceVersion is used twice or goes back;
* a watcher that resumes sees every event of its session once and in order; one that is told 410 lists again, and from
  there replays to exactly what is stored.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from pilotage.client import load_kubeconfig
from pilotage.kit.tasks import task_set
from pilotage.testing.etcd import free_port

LANES = 6
NAMES_PER_LANE = 5
WATCHERS = 3
START_S = 60.0
# Between the first write after a start and the kill.
LIFE_S = 0.4
_PATH = "/api/v1/namespaces/default/configmaps"
_OURS = "labelSelector=crash"

Document = dict[str, Any]


@dataclass(slots=True)
class Report:
    """What a run has seen."""

    kills: int = 0
    acknowledged: int = 0
    in_doubt: int = 0  # writes whose answer was lost …
    happened: int = 0  # … and those of them that had happened
    events: int = 0
    resumed: int = 0  # watches that went on where they were after the server had gone
    relisted: int = 0  # watches that were told to list again


@dataclass(slots=True)
class _Session:
    """What one watcher has been told since it last listed."""

    start: int
    objects: dict[str, str]
    seen: dict[int, tuple[str, str]] = field(default_factory=dict)  # version → name, value
    last: int = 0


class CrashRun:
    """One directory, one seed, many lives of a server."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory = directory
        self._random = random.Random(seed)  # noqa: S311 - it chooses moments, it keeps no secrets
        self._seed = seed
        self._port = free_port()
        self._running = asyncio.Event()
        self._stopping = False
        self._idle = 0
        self._all_idle = asyncio.Event()
        self._objects: dict[str, tuple[int, str]] = {}  # acknowledged: name → version, value
        self._doubts: dict[str, str | None] = {}  # name → the value it may have; None: it may be gone
        self._versions: dict[int, tuple[str, str]] = {}  # acknowledged version → name, value
        self._floor = 0  # every version from now on is greater
        self._sessions: list[_Session] = []
        self._tls: ssl.SSLContext | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.report = Report()

    async def run(self, kills: int) -> Report:
        """Kill the server so many times. Raises AssertionError when a promise is broken."""
        try:
            await self._start()
            async with task_set() as tasks:
                for lane in range(LANES):
                    tasks.start(self._write(lane))
                for _ in range(WATCHERS):
                    tasks.start(self._watch())
                for _ in range(kills):
                    self._running.set()
                    # Some die while they still start, most while they are written to.
                    await asyncio.sleep(self._random.uniform(0.0, LIFE_S))
                    await self._kill()
                    if self._random.random() < 0.1:
                        await self._spawn()
                        await asyncio.sleep(self._random.uniform(0.0, 1.0))
                        await self._kill()
                    await self._start()
                await self._watchers_agree()
        finally:
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
        return self.report

    def _holds(self, condition: bool, promise: str) -> None:
        assert condition, f"{promise} (seed {self._seed}, after {self.report.kills} kills)"

    # The server's lives.

    async def _spawn(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pilotage.cli", "apiserver"),
            *("--listen", f"127.0.0.1:{self._port}", "--data-dir", str(self._directory), "--log-level", "error"),
            stdin=asyncio.subprocess.DEVNULL,
        )

    async def _start(self) -> None:
        await self._spawn()
        async with asyncio.timeout(START_S):
            while True:
                try:
                    await self._check()
                    return
                except (OSError, aiohttp.ClientError):
                    assert self._process is not None
                    self._holds(self._process.returncode is None, "a killed server starts again")
                    await asyncio.sleep(0.02)

    async def _kill(self) -> None:
        self._running.clear()
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self.report.kills += 1
        while self._idle < LANES:
            self._all_idle.clear()
            await self._all_idle.wait()

    async def _check(self) -> None:
        """Compare what is stored with what was acknowledged; settle what was in doubt."""
        if self._tls is None:
            kubeconfig = self._directory / "admin.kubeconfig"
            if not kubeconfig.exists():
                raise OSError("not ready")
            self._tls = load_kubeconfig(kubeconfig).ssl_context()
        async with self._session() as session, session.get(f"{_PATH}?{_OURS}") as response:
            listed: Document = await response.json()
        found = {item["metadata"]["name"]: _state(item) for item in listed["items"]}
        version = int(listed["metadata"]["resourceVersion"])
        self._holds(version >= max(self._versions, default=0), "the store is not older than what it acknowledged")
        for name in found.keys() | self._objects.keys() | self._doubts.keys():
            known, actual = self._objects.get(name), found.get(name)
            if name in self._doubts and known != actual:
                value = self._doubts[name]
                self._holds((actual[1] if actual else None) == value, f"{name} is as it was or as it was last written")
                self.report.happened += 1
            else:
                self._holds(known == actual, f"{name} is as acknowledged: {known}, not {actual}")
        self.report.in_doubt += len(self._doubts)
        self._objects, self._floor = found, version
        self._doubts.clear()

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            f"https://127.0.0.1:{self._port}", connector=aiohttp.TCPConnector(ssl=self._tls or True)
        )

    # Writers.

    async def _write(self, lane: int) -> None:
        while True:
            if not self._running.is_set():
                self._idle += 1
                self._all_idle.set()
                await self._running.wait()
                self._idle -= 1
            try:
                async with self._session() as session:
                    while self._running.is_set():
                        await self._step(session, f"lane{lane}-{self._random.randrange(NAMES_PER_LANE)}")
            except (OSError, aiohttp.ClientError):
                # Its server is gone; whether the last write happened the next one says.
                await asyncio.sleep(0.01)
                if self._running.is_set():
                    await asyncio.sleep(0.05)

    async def _step(self, session: aiohttp.ClientSession, name: str) -> None:
        if name in self._doubts:
            raise OSError("wait for the next life")
        current = self._objects.get(name)
        value = f"{self._random.getrandbits(64):016x}"
        document: Document = {"metadata": {"name": name, "labels": {"crash": "test"}}, "data": {"value": value}}
        if current is None:
            self._doubts[name] = value
            request = session.post(_PATH, json=document)
        elif self._random.random() < 0.3:
            self._doubts[name] = None
            request = session.delete(f"{_PATH}/{name}")
        else:
            self._doubts[name] = value
            document["metadata"]["resourceVersion"] = str(current[0])
            request = session.put(f"{_PATH}/{name}", json=document)
        async with request as response:
            answer: Document = await response.json()
            self._holds(response.status in (200, 201), f"{name} could be written: {answer.get('message')}")
        wanted = self._doubts.pop(name)
        self.report.acknowledged += 1
        if wanted is None:
            del self._objects[name]
            return
        version, _ = self._objects[name] = _state(answer)
        self._holds(version > self._floor, "versions do not go back")
        self._holds(version not in self._versions, "no version is used twice")
        self._versions[version] = (name, wanted)

    # Watchers.

    async def _watch(self) -> None:
        session: _Session | None = None
        while True:
            try:
                async with self._session() as http:
                    if session is None:
                        async with http.get(f"{_PATH}?{_OURS}") as response:
                            listed: Document = await response.json()
                        version = int(listed["metadata"]["resourceVersion"])
                        objects = {item["metadata"]["name"]: _state(item)[1] for item in listed["items"]}
                        session = _Session(start=version, objects=objects, last=version)
                        self._sessions.append(session)
                    query = f"{_OURS}&watch=1&allowWatchBookmarks=true&resourceVersion={session.last}"
                    async with http.get(f"{_PATH}?{query}") as response:
                        if response.status != 410:
                            self.report.resumed += session.last > session.start
                            async for line in response.content:
                                self._event(session, json.loads(line))
                            continue
                    self._end(session)
                    session = None
                    self.report.relisted += 1
            except (OSError, aiohttp.ClientError, ValueError):
                await asyncio.sleep(0.02)

    def _event(self, session: _Session, event: Document) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            return
        version = int(item["metadata"]["resourceVersion"])
        if kind == "BOOKMARK":
            self._holds(version >= session.last, "bookmarks do not go back")
            session.last = version
            return
        name, value = item["metadata"]["name"], item["data"]["value"]
        self._holds(version > session.last, f"events come once and in order: {version} after {session.last}")
        self._holds((kind == "ADDED") == (name not in session.objects), f"a watcher has missed an event of {name}")
        session.last = version
        session.seen[version] = (name, value)
        if kind == "DELETED":
            del session.objects[name]
        else:
            session.objects[name] = value
        self.report.events += 1

    def _end(self, session: _Session) -> None:
        """Every acknowledged write of the session's span was among its events."""
        if session not in self._sessions:
            return
        self._sessions.remove(session)
        for version, written in self._versions.items():
            if session.start < version <= session.last:
                self._holds(session.seen.get(version) == written, f"a watcher was told of version {version}")

    async def _watchers_agree(self) -> None:
        """All the way to the end every watcher's replay is what is stored."""
        stored = {name: value for name, (_, value) in self._objects.items()}
        async with asyncio.timeout(START_S):
            while not (  # noqa: ASYNC110 - three watchers and one list have no event in common
                len(self._sessions) == WATCHERS
                and all(session.last >= self._floor and session.objects == stored for session in self._sessions)
            ):
                await asyncio.sleep(0.05)
        for session in tuple(self._sessions):
            self._end(session)


def _state(item: Document) -> tuple[int, str]:
    return int(item["metadata"]["resourceVersion"]), item["data"]["value"]
