"""Containers by `runc`, watched by `conmon`.

`conmon` is the parent of a container's first process: it writes its output in the CRI log format, keeps its terminal
and standard input, and leaves an exit file, whether or not the agent lives. It is used instead of a monitor of our own
because it does exactly that in 1 MB and costs no measurable time (create 36 ms, start 9 ms, both of it runc's).
`runc` rather than `crun`: Debian's crun 1.8 refuses hybrid control groups; both take the same arguments, so `binary`
may name either on a pure version 2 host.

Layout: `containers/<id>/` holds config.json, pid files and conmon's sockets, `exits/<id>` the exit code.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal as signals
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pilotage.agent import processes
from pilotage.agent.inotify import DirectoryWatch
from pilotage.agent.runtime import ContainerExit, ContainerSpec, ExecSession, FoundContainer, RuntimeFailure
from pilotage.agent.runtime.cgroup import ControlGroups
from pilotage.agent.runtime.conmon import Conmon, reopen_log
from pilotage.agent.runtime.session import AttachSession, ProcessSession, log_of, settle
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.threads import await_on_own_thread
from pilotage.network import user_namespaces
from pilotage.network.namespaces import CLONE_NEWIPC, CLONE_NEWUTS, MS_BIND, mount, setns, unmount, unshare

COMMAND_TIMEOUT_S = 60.0  # far above any runc command on a loaded machine; a hung one must not hang the pod for ever
MONITOR_END_S = 5.0  # conmon ends within milliseconds of its container

# Of linux.resources: what a resize may change.
_CHANGEABLE = ("cpu", "memory")

_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')


class _Record(msgspec.Struct, frozen=True):
    """`container.json`: what must be known to recognise a process after a restart of the agent."""

    pod_uid: str
    pid: int
    pid_start: int  # /proc/PID/stat field 22: a recycled pid has another one
    conmon_pid: int
    conmon_start: int
    started_at: float = 0.0  # 0: created, not started
    log_path: str = ""


class OCIRuntime:
    """`Runtime` on the Linux kernel."""

    def __init__(
        self,
        run_dir: Path,
        *,
        cgroups: ControlGroups,
        binary: str = "",
        conmon: str = "conmon",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._sandboxes = run_dir / "sandboxes"
        self._containers = run_dir / "containers"
        self._exits = run_dir / "exits"
        self._root = run_dir / "runtime"
        self._cgroups = cgroups
        self._binary = (shutil.which(binary) if binary else shutil.which("runc") or shutil.which("crun")) or "runc"
        self._conmon = Conmon(shutil.which(conmon) or conmon, runtime=self._binary, root=self._root, exits=self._exits)
        self._clock = clock
        self._callbacks: list[Callable[[ContainerExit], None]] = []
        # Starting is bound by the processor: more at once than it has cores only makes every one of them late.
        self._turn = asyncio.Semaphore((os.cpu_count() or 1) + 1)
        self._watch: DirectoryWatch | None = None

    # ── watching ────────────────────────────────────────────────────────────────────────────────────────────────

    def on_exit(self, callback: Callable[[ContainerExit], None]) -> None:
        self._callbacks.append(callback)

    async def open(self) -> None:
        for directory in (self._sandboxes, self._containers, self._exits, self._root):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._watch = DirectoryWatch(self._exits, self._on_exit_file)

    async def aclose(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    async def version(self) -> str:
        try:
            completed = await processes.run([self._binary, "--version"], timeout_s=COMMAND_TIMEOUT_S)
        except FileNotFoundError as error:
            raise RuntimeFailure(f"{self._binary} is not installed (apt-get install runc)") from error
        words = completed.stdout.decode(errors="replace").split()
        return f"{Path(self._binary).name}://{words[2] if len(words) > 2 else 'unknown'}"

    def _on_exit_file(self, name: str) -> None:
        found = self._read_exit(name)
        if found is not None:
            for callback in self._callbacks:
                callback(found)

    def _read_exit(self, container_id: str) -> ContainerExit | None:
        path = self._exits / container_id
        record = self._read_record(container_id)
        if record is None:
            return None
        try:
            code, at = int(path.read_text() or "255"), path.stat().st_mtime
        except (OSError, ValueError):
            return None
        oom = code == 137 and self._cgroups.was_oom_killed(record.pod_uid, container_id)
        return ContainerExit(container_id=container_id, exit_code=code, oom_killed=oom, at=at)

    # ── sandboxes ───────────────────────────────────────────────────────────────────────────────────────────────

    async def open_sandbox(
        self, uid: str, hostname: str, *, holder: dict[str, Any] | None = None, users: Path | None = None
    ) -> None:
        if self.sandbox_namespaces(uid):
            return
        await self._close(uid)  # not its control groups, which have just been made
        directory = self._sandboxes / uid
        directory.mkdir(mode=0o700)
        for name in ("ipc", "uts"):
            (directory / name).touch(mode=0o600)

        def name_it() -> None:
            with open(directory / "uts", "rb") as namespace:
                setns(namespace.fileno(), CLONE_NEWUTS)
            socket.sethostname(hostname)

        def make() -> None:
            # unshare(2) moves the calling thread only; asyncio's threads are reused, so this needs one that ends.
            unshare(CLONE_NEWIPC | CLONE_NEWUTS)
            socket.sethostname(hostname)
            for name in ("ipc", "uts"):
                mount(f"/proc/thread-self/ns/{name}", str(directory / name), "", MS_BIND)

        if users is None:
            await await_on_own_thread(make, name="sandbox")
        else:
            places = {name: directory / name for name in ("ipc", "uts")}
            await asyncio.to_thread(user_namespaces.create_in, users, places)
            await await_on_own_thread(name_it, name="sandbox")
        if holder is not None:
            await self._open_holder(uid, holder)

    async def _open_holder(self, uid: str, document: dict[str, Any]) -> None:
        """Run it without a monitor: nobody wants its output or its exit code."""
        directory = self._sandboxes / uid / "holder"
        directory.mkdir(mode=0o700)
        (directory / "config.json").write_bytes(msgspec.json.encode(document))
        log, pid_file = directory / "log", directory / "pid"
        completed = await processes.run(
            [
                self._binary, "--root", str(self._root), "--log", str(log), "run", "--detach",
                "--bundle", str(directory), "--pid-file", str(pid_file), _holder_id(uid),
            ],
            timeout_s=COMMAND_TIMEOUT_S,
            capture=False,
        )  # fmt: skip
        if completed.exit_code != 0:
            raise RuntimeFailure(_readable(log.read_text(errors="replace")) or completed.error_text())
        pid = int(pid_file.read_text())
        (directory / "started").write_text(str(_start_time(pid) or 0))
        target = self._sandboxes / uid / "pid"
        target.touch(mode=0o600)
        mount(f"/proc/{pid}/ns/pid", str(target), "", MS_BIND)

    def _holder_runs(self, uid: str) -> bool:
        directory = self._sandboxes / uid / "holder"
        try:
            return _is_alive(int((directory / "pid").read_text()), int((directory / "started").read_text()))
        except (OSError, ValueError):
            return False

    async def close_sandbox(self, uid: str) -> None:
        await self._close(uid)
        self._cgroups.remove_pod(uid)

    async def _close(self, uid: str) -> None:
        directory = self._sandboxes / uid
        if (self._root / _holder_id(uid)).exists():
            with contextlib.suppress(RuntimeFailure):
                await self._runc("delete", "--force", _holder_id(uid))
        for name in ("ipc", "uts", "pid"):
            unmount(str(directory / name))
        shutil.rmtree(directory, ignore_errors=True)

    def sandbox_namespaces(self, uid: str) -> dict[str, str]:
        paths = {name: self._sandboxes / uid / name for name in ("ipc", "uts")}
        if (self._sandboxes / uid / "holder").is_dir():
            if not self._holder_runs(uid):
                return {}
            paths["pid"] = self._sandboxes / uid / "pid"
        if all(_is_namespace(path) for path in paths.values()):
            return {name: str(path) for name, path in paths.items()}
        return {}

    # ── containers ──────────────────────────────────────────────────────────────────────────────────────────────

    async def create(self, spec: ContainerSpec) -> None:
        async with self._turn:
            await self._create(spec)

    async def _create(self, spec: ContainerSpec) -> None:
        directory = self._containers / spec.container_id
        directory.mkdir(mode=0o700)
        spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_bytes(msgspec.json.encode(spec.document))
        try:
            answer = await self._conmon.create(spec, directory)
        except (TimeoutError, OSError) as error:
            await self.remove(spec.container_id)
            raise RuntimeFailure(f"conmon gave no answer: {error or 'timed out'}") from error
        if answer.pid <= 0:
            await self.remove(spec.container_id)
            raise RuntimeFailure(_readable(answer.message) or f"exit code {answer.exit_code}")
        conmon_pid = int((directory / "conmon.pid").read_text())
        self._write_record(
            spec.container_id,
            _Record(
                pod_uid=_pod_uid(spec.document),
                pid=answer.pid,
                pid_start=_start_time(answer.pid) or 0,
                conmon_pid=conmon_pid,
                conmon_start=_start_time(conmon_pid) or 0,
                log_path=str(spec.log_path),
            ),
        )

    async def start(self, container_id: str) -> float:
        record = self._read_record(container_id)
        if record is None:
            raise RuntimeFailure(f"no container {container_id}")
        now = self._clock.wall().timestamp()
        # Written before the start: a container that ends at once must find it, or its exit would be unknown.
        self._write_record(container_id, msgspec.structs.replace(record, started_at=now))
        async with self._turn:
            await self._runc("start", container_id)
        return now

    async def signal(self, container_id: str, signal: str) -> None:
        record = self._read_record(container_id)
        if record is None or not _is_alive(record.pid, record.pid_start):
            return
        # Sent directly: runc would cost 10 ms and the pid was checked against its start time a moment ago.
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal_number(signal))

    async def update(self, container_id: str, resources: dict[str, Any]) -> None:
        found = self.find(container_id)
        if found is None or not found.running:
            raise RuntimeFailure("container is not running")
        directory = self._containers / container_id
        linux = json.loads((directory / "config.json").read_bytes())["linux"]
        if "cgroupsPath" not in linux:
            return  # nothing holds it
        self._check_usage(container_id, resources)
        path = directory / "resources.json"
        path.write_bytes(msgspec.json.encode({name: resources[name] for name in _CHANGEABLE if name in resources}))
        await self._runc("update", "--resources", str(path), container_id)

    def _check_usage(self, container_id: str, resources: dict[str, Any]) -> None:
        """The kernel of version 2 would kill a process rather than refuse a limit below what is in use."""
        record, limit = self._read_record(container_id), resources.get("memory", {}).get("limit", 0)
        if record is None or not limit:
            return
        used = self._cgroups.container_usage(record.pod_uid, container_id).memory_bytes
        if used > limit:
            raise RuntimeFailure(f"attempting to set memory limit ({limit}) below current usage ({used})")

    async def reopen_log(self, container_id: str) -> None:
        record = self._read_record(container_id)
        if record is None or not record.log_path or not _is_alive(record.conmon_pid, record.conmon_start):
            return
        await asyncio.to_thread(reopen_log, self._containers / container_id / "ctl", Path(record.log_path))

    async def remove(self, container_id: str) -> None:
        directory = self._containers / container_id
        if (self._root / container_id).exists():
            with contextlib.suppress(RuntimeFailure):
                await self._runc("delete", "--force", container_id)
        record = self._read_record(container_id)
        if record is not None:
            # Its monitor has a last word to write, which the next container of this id must not be taken to have said.
            await _ended(record.conmon_pid, record.conmon_start)
        (self._exits / container_id).unlink(missing_ok=True)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    def find(self, container_id: str) -> FoundContainer | None:
        record = self._read_record(container_id)
        if record is None:
            return None
        ended = self._read_exit(container_id)
        alive = (
            ended is None
            and _is_alive(record.pid, record.pid_start)
            # Without its monitor a container's end would never be known.
            and _is_alive(record.conmon_pid, record.conmon_start)
        )
        # Whoever was killed between telling and doing has started nothing: runc takes the fifo away when it does.
        started = record.started_at > 0 and not (alive and (self._root / container_id / "exec.fifo").exists())
        return FoundContainer(
            container_id=container_id,
            running=alive and started,
            started_at=record.started_at if started else 0.0,
            exit=ended,
            pid=record.pid,
        )

    def list(self) -> list[str]:
        return sorted(path.name for path in self._containers.iterdir()) if self._containers.is_dir() else []

    # ── processes inside ────────────────────────────────────────────────────────────────────────────────────────

    async def execute(
        self, container_id: str, command: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> ExecSession:
        found = self.find(container_id)
        if found is None or not found.running:
            raise RuntimeFailure("container is not running")
        document = json.loads((self._containers / container_id / "config.json").read_bytes())
        process: dict[str, Any] = document["process"] | {"args": list(command), "terminal": tty}
        if tty and not any(one.startswith("TERM=") for one in process["env"]):
            process["env"] = [*process["env"], "TERM=xterm"]
        return await ProcessSession.open(
            lambda spec: [
                self._binary, "--root", str(self._root), "--log", log_of(spec), "--log-format", "json",
                "exec", "--process", spec, container_id,
            ],
            msgspec.json.encode(process),
            self._containers / container_id,
            stdin=stdin,
            tty=tty,
        )  # fmt: skip

    async def attach(self, container_id: str) -> ExecSession:
        found = self.find(container_id)
        if found is None or not found.running:
            raise RuntimeFailure("container is not running")
        directory = self._containers / container_id
        return await AttachSession.open(directory, lambda: self._exit_code(container_id))

    def _exit_code(self, container_id: str) -> int:
        found = self._read_exit(container_id)
        return found.exit_code if found is not None else 0

    async def _runc(self, *arguments: str) -> processes.Completed:
        completed = await processes.run(
            [self._binary, "--root", str(self._root), *arguments], timeout_s=COMMAND_TIMEOUT_S
        )
        if completed.exit_code != 0:
            raise RuntimeFailure(_readable(completed.error_text()))
        return completed

    # ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _read_record(self, container_id: str) -> _Record | None:
        try:
            data = (self._containers / container_id / "container.json").read_bytes()
        except OSError:
            return None
        return msgspec.json.decode(data, type=_Record)

    def _write_record(self, container_id: str, record: _Record) -> None:
        path = self._containers / container_id / "container.json"
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.rename(path)


def _holder_id(uid: str) -> str:
    return f"{uid}-holder"


def signal_number(name: str) -> int:
    """`TERM`, `SIGTERM`, `RTMIN+3` or a number; SIGTERM for a name nobody knows."""
    text = name.upper().removeprefix("SIG")
    if text.isdigit():
        return int(text)
    if match := re.fullmatch(r"RTMIN\+(\d{1,2})", text):
        return signals.SIGRTMIN + int(match[1])
    found: signals.Signals | None = getattr(signals, f"SIG{text}", None)
    return int(found) if found is not None else signals.SIGTERM


def _pod_uid(document: dict[str, Any]) -> str:
    """From the last but one part of the cgroup path; empty without one."""
    return Path(document["linux"].get("cgroupsPath", "")).parent.name.removeprefix("pod")


def _readable(text: str) -> str:
    """runc's log lines → the sentence of the last one, bounded."""
    messages = _MESSAGE.findall(text)
    last = messages[-1] if messages else text.strip()
    return last.replace('\\"', '"').replace("\\\\", "\\")[:1000]


def _start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process started (proc_pid_stat(5), field 22); None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def _is_alive(pid: int, started: int) -> bool:
    return pid > 0 and _start_time(pid) == started


async def _ended(pid: int, started: int) -> None:
    """Wait for the end of somebody else's child; not for ever."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    try:
        if _is_alive(pid, started):
            loop.add_reader(fd, settle, readable)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MONITOR_END_S):
                    await readable
            loop.remove_reader(fd)
    finally:
        os.close(fd)


def _is_namespace(path: Path) -> bool:
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False
