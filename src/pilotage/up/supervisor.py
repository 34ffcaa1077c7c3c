"""The supervisor: opens the host's sockets, starts the fabric and its processes, keeps them running, ends them all.

Apart from the zygote because it stays on the host: it is what the user starts, signals and watches. It imports no
component and no event loop, so that it costs little while it waits. Fed by ClusterConfig; writes `status.json`, which
`ls` and `status` read. Ends on SIGTERM or SIGINT; however it ends, the kernel ends the fabric with it.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilotage.kit import PilotageError
from pilotage.up.cleanup import remove_cgroups, remove_traces
from pilotage.up.core.config import ClusterConfig
from pilotage.up.core.plan import Plan, make_plan
from pilotage.up.core.processes import FIRST, Process, processes
from pilotage.up.core.state import Event, Phase, ProcessState, advance, exit_text
from pilotage.up.fabric import spawn_fabric
from pilotage.up.layout import Layout
from pilotage.up.process import LockFile, set_name, start_time
from pilotage.up.progress import Reporter
from pilotage.up.zygote import MESSAGE_BYTES_MAX, Zygote

DEFAULT_PORTS = {"api": 6443, "http": 8080, "https": 8443}
_BACKLOG = 1024  # connections wait here while a process restarts
# Building takes seconds; a machine under heavy load may take ten times as long, and then something is wrong.
_START_TIMEOUT_S = 90.0
_LOG_BYTES_MAX = 16 * 1024 * 1024
_LOG_CHECK_S = 30.0
# Beyond the time pods are given to end: for killing those that take more, and for telling the API.
_SHUTDOWN_SLACK_S = 15.0
_LOG_TAIL_BYTES = 4096


class StartFailed(PilotageError):
    """The cluster did not come up; the message is one line for the user."""


def open_host_sockets(config: ClusterConfig) -> dict[str, socket.socket]:
    """Listen on the host's loopback. A default port that is taken moves to a free one; one given by hand fails."""
    sockets: dict[str, socket.socket] = {}
    for name, default in DEFAULT_PORTS.items():
        given = int(getattr(config.ports, name))
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", given or default))
            # A port someone bound without listening is refused here, not above.
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            if given:
                for other in sockets.values():
                    other.close()
                raise StartFailed(
                    f"port {given} for {name} is not free ({error.strerror}): choose another with --{name}-port"
                ) from error
            sock = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        sockets[name] = sock
    return sockets


def supervise(config: ClusterConfig, layout: Layout, reporter: Reporter) -> int:
    """Run a cluster until a signal ends it; returns the exit code. Leaves nothing behind but the data directory."""
    layout.run_base.mkdir(mode=0o755 if os.getuid() == 0 else 0o700, parents=True, exist_ok=True)
    layout.run.mkdir(mode=0o700, exist_ok=True)
    lock = LockFile.acquire(layout.lock)
    if lock is None:
        reporter.failed(f"cluster {layout.name} is already running; `pilotage down --name {layout.name}` stops it")
        return 1
    supervisor = Supervisor(config, layout, reporter)
    try:
        return supervisor.run()
    except StartFailed as error:
        supervisor.end()
        reporter.failed(str(error))
        return 1
    finally:
        supervisor.end()
        remove_traces(layout)
        lock.release()


class Supervisor:
    """The state of one cluster's supervisor."""

    def __init__(self, config: ClusterConfig, layout: Layout, reporter: Reporter) -> None:
        self._config = config
        self._layout = layout
        self._reporter = reporter
        self._plan: Plan = make_plan(config)
        self._processes: dict[str, Process] = {row.name: row for row in processes(self._plan)}
        self._states: dict[str, ProcessState] = {name: ProcessState() for name in self._processes}
        self._sockets: dict[str, socket.socket] = {}
        self._control: socket.socket | None = None  # None: no fabric
        self._keeper = 0  # PID; 0: no fabric
        self._zygote = 0  # PID as the host sees it, for who wants to enter; 0: no fabric
        self._stop = False
        self._issued = False
        self._ready = False
        self._started = 0.0
        self._steps: list[tuple[float, str]] = []  # when each step of the start was done: bounded by the process table

    def run(self) -> int:
        """Start, report, and keep running until told to stop."""
        set_name("pilotage")
        self._started = time.monotonic()
        self._prepare_directories()
        self._sockets = open_host_sockets(self._config)
        wake_r, wake_w = socket.socketpair()
        for end in (wake_r, wake_w):
            end.setblocking(False)
        signal.set_wakeup_fd(wake_w.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        with selectors.DefaultSelector() as selector, contextlib.closing(wake_r), contextlib.closing(wake_w):
            selector.register(wake_r, selectors.EVENT_READ)
            self._start_fabric()
            assert self._control is not None
            selector.register(self._control, selectors.EVENT_READ)
            next_log_check = self._started + _LOG_CHECK_S
            while not self._stop:
                for key, _ in selector.select(self._wait_s(next_log_check)):
                    if key.fileobj is wake_r:
                        wake_r.recv(4096)
                    else:
                        self._receive()
                self._respawn()
                if not self._ready:
                    self._check_start()
                if time.monotonic() >= next_log_check:
                    self._bound_logs()
                    next_log_check = time.monotonic() + _LOG_CHECK_S
            self._end_pods(selector, wake_r)
        return 0 if self._ready else 130  # stopped before it was up, as a shell reports an interrupted command

    def end(self) -> None:
        """Kill the fabric and wait until the kernel has removed everything in it. May be called twice."""
        if self._keeper:
            # PID 1 ends after everything else in its namespace; then the keeper, which waits for it, ends too.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._zygote, signal.SIGKILL)
            os.waitpid(self._keeper, 0)
            self._keeper = self._zygote = 0
        if self._control is not None:
            self._control.close()
            self._control = None
        for sock in self._sockets.values():
            sock.close()
        self._sockets = {}

    def _end_pods(self, selector: selectors.BaseSelector, wake: socket.socket) -> None:
        """Let the agents that give their pods time end them in order; a second signal cuts it short."""
        assert self._control is not None
        agents = [f"agent-{node.name}" for node in self._plan.nodes if node.config.agent.shutdown_s]
        if not (agents and self._ready):
            return
        self._stop = False
        deadline = time.monotonic() + self._shutdown_s
        for name in agents:
            self._control.send(json.dumps({"do": "signal", "name": name, "signal": signal.SIGTERM}).encode())
        while not self._stop and any(self._states[name].phase is Phase.READY for name in agents):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            for key, _ in selector.select(left_s):
                if key.fileobj is wake:
                    wake.recv(4096)
                else:
                    self._receive()

    @property
    def _shutdown_s(self) -> float:
        """How long it may take from a signal to the end; 0: no pod is given time."""
        longest = max(node.config.agent.shutdown_s for node in self._plan.nodes)
        return longest + _SHUTDOWN_SLACK_S if longest else 0.0

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._stop = True

    def _prepare_directories(self) -> None:
        for path in (self._layout.credentials, self._layout.scratch):
            path.mkdir(mode=0o700, exist_ok=True)
        try:
            for path in (self._layout.data, self._layout.logs):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartFailed(f"cannot create {error.filename}: {error.strerror}; choose another --data-dir") from error
        for log in self._layout.logs.glob("*.log"):
            if log.stem != "supervisor":  # ours, and open
                log.replace(log.with_suffix(".log.previous"))

    def _start_fabric(self) -> None:
        remove_cgroups(self._layout.cgroup)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        zygote = Zygote(
            config=self._config, plan=self._plan, layout=self._layout, control=theirs, sockets=self._sockets
        )
        with theirs:
            try:
                self._keeper, self._zygote = spawn_fabric(ours, zygote.run)
            except PilotageError as error:
                ours.close()
                raise StartFailed(str(error)) from error
        self._control = ours
        self._write_status()

    def _receive(self) -> None:
        assert self._control is not None
        raw = self._control.recv(MESSAGE_BYTES_MAX)
        if not raw:
            raise StartFailed(self._fabric_end())
        message = json.loads(raw)
        match message["event"]:
            case "fabric":
                self._step("fabric")
                self._spawn(FIRST)
            case "issued":
                if not self._issued:  # a restarted API server issues again
                    self._issued = True
                    for name in self._processes:
                        if name != FIRST:
                            self._spawn(name)
            case "failed":
                raise StartFailed(message["text"])
            case "spawned":
                self._advance(message["name"], Event.SPAWN, pid=message["pid"])
            case "ready":
                # A child's word may be overtaken by its end, which comes from PID 1.
                if self._states[message["name"]].phase in (Phase.STARTING, Phase.READY):
                    first = self._states[message["name"]].phase is Phase.STARTING
                    self._advance(message["name"], Event.READY)
                    if first:
                        self._step(message["name"])
            case "progress":
                self._step(message["text"])
            case "exit":
                self._on_exit(message["name"], message["status"])

    def _on_exit(self, name: str, status: int) -> None:
        if self._states[name].phase in (Phase.STARTING, Phase.READY):
            finished = self._processes[name].once and status == 0
            self._advance(name, Event.FINISH if finished else Event.EXIT, exit_text=exit_text(status))

    def _advance(self, name: str, event: Event, *, pid: int = 0, exit_text: str = "") -> None:
        self._states[name] = advance(self._states[name], event, now=time.monotonic(), pid=pid, exit_text=exit_text)
        self._write_status()

    def _spawn(self, name: str) -> None:
        assert self._control is not None
        self._control.send(json.dumps({"do": "spawn", "name": name}).encode())

    def _respawn(self) -> None:
        now = time.monotonic()
        for name, state in self._states.items():
            if state.phase is Phase.BACKOFF and now >= state.since + state.restart_delay_s:
                self._advance(name, Event.RETRY)
                self._spawn(name)

    def _wait_s(self, next_log_check: float) -> float:
        due = [next_log_check]
        due += [state.since + state.restart_delay_s for state in self._states.values() if state.phase is Phase.BACKOFF]
        if not self._ready:
            due.append(self._started + _START_TIMEOUT_S)
        return max(0.0, min(due) - time.monotonic())

    def _check_start(self) -> None:
        """Ready, or hopeless, or too late."""
        for name, state in self._states.items():
            if state.hopeless and self._processes[name].required:
                raise StartFailed(f"{name} does not start ({state.last_exit}): {self._last_line(name)}")
        waiting = [name for name, state in self._states.items() if not state.ever_ready]
        if not waiting:
            self._ready = True
            self._write_status()
            self._reporter.ready(self._summary())
        elif time.monotonic() - self._started > _START_TIMEOUT_S:
            raise StartFailed(
                f"not ready after {_START_TIMEOUT_S:.0f} s: {', '.join(waiting)}; see the logs in {self._layout.logs}"
            )

    def _summary(self) -> dict[str, str]:
        ports = self._ports()
        return {
            "name": self._layout.name,
            "kubeconfig": str(self._layout.kubeconfig),
            "api": f"https://127.0.0.1:{ports['api']}",
            "http": f"http://127.0.0.1:{ports['http']}",
            "https": f"https://127.0.0.1:{ports['https']}",
            "seconds": f"{time.monotonic() - self._started:.2f}",
        }

    def _ports(self) -> dict[str, int]:
        return {name: sock.getsockname()[1] for name, sock in self._sockets.items()}

    def _step(self, text: str) -> None:
        if not self._ready:
            self._steps.append((round(time.monotonic() - self._started, 3), text))
            self._reporter.step(text)

    def _fabric_end(self) -> str:
        """Why the zygote went away, as far as its log says."""
        return f"the fabric ended unexpectedly: {self._last_line('zygote')}"

    def _last_line(self, name: str) -> str:
        path = self._layout.log(name)
        try:
            with path.open("rb") as log:
                log.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return f"{lines[-1][:300]} (log: {path})" if lines else f"no word in its log {path}"

    def _bound_logs(self) -> None:
        """Cut logs that outgrew their bound, keeping the last half beside them; the writers append, so they go on."""
        for log in self._layout.logs.glob("*.log"):
            with contextlib.suppress(OSError):
                size = log.stat().st_size
                if size > _LOG_BYTES_MAX:
                    with log.open("r+b") as file:
                        file.seek(size - _LOG_BYTES_MAX // 2)
                        log.with_suffix(".log.previous").write_bytes(file.read())
                        file.truncate(0)

    def _write_status(self) -> None:
        """Replace `status.json`; readers see the old or the new one whole."""
        document: dict[str, Any] = {
            "name": self._layout.name,
            "supervisor": os.getpid(),
            "keeper": {"pid": self._keeper, "started": start_time(self._keeper)},
            "zygote": {"pid": self._zygote, "started": start_time(self._zygote) if self._zygote else 0},
            "ready": self._ready,
            "shutdownSeconds": self._shutdown_s,
            "ports": self._ports(),
            "data": str(self._layout.data),
            "fabricAddress": self._plan.address,
            "domain": self._plan.domain,
            "nodes": [
                {"name": node.name, "address": node.address, "zone": node.config.zone} for node in self._plan.nodes
            ],
            "steps": [{"seconds": seconds, "done": text} for seconds, text in self._steps],
            "processes": {name: _document(state) for name, state in self._states.items()},
        }
        write_atomically(self._layout.status, json.dumps(document, indent=1))


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by one of mode 0600 with `text`."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    temporary.replace(path)


def _document(state: ProcessState) -> Mapping[str, object]:
    return {
        "phase": state.phase.value,
        "pid": state.pid,
        "restarts": state.restarts,
        "lastExit": state.last_exit,
    }


def log_to(path: Path) -> None:
    """Send this process's own output to `path` (a supervisor without a terminal)."""
    for directory in (path.parent.parent, path.parent):  # a parent made on the way would get the default mode
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.flush()
