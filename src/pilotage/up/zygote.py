"""PID 1 of the fabric: builds it, imports every component once, and forks each process from that image.

Apart from the supervisor because it lives inside the namespaces, and must stay single-threaded so that forking is safe.
Importing once is what makes a cluster start in seconds and fit in memory: a child shares its parent's pages and is
running within milliseconds. Fed by the supervisor over a socket, one JSON message a datagram; answers the same way.

    to us     {"do": "spawn", "name": …}                  {"do": "signal", "name": …, "signal": n}
    from us   {"event": "fabric"}                         the namespaces are ready
              {"event": "spawned", "name", "pid"}         {"event": "exit", "name", "status"}
              {"event": "failed", "text"}                 building did not work; the end follows
    from a child, on the same socket
              {"event": "ready", "name"}                  {"event": "progress", "name", "text"}
              {"event": "issued", "name"}                 the credentials of all identities are there

Children of children whose parent ended come here too (PID 1), and are reaped in silence.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pilotage.kit.memory import fill_holes
from pilotage.network import NetworkError, namespaces
from pilotage.up.core.config import ClusterConfig
from pilotage.up.core.plan import Plan
from pilotage.up.core.processes import COMPONENTS, SHARED_MODULES, Process, processes
from pilotage.up.fabric import build, explain
from pilotage.up.launch import Launch
from pilotage.up.layout import Layout
from pilotage.up.process import close_others, redirect_output, set_name

MESSAGE_BYTES_MAX = 16 * 1024  # the longest is a failure's text, which is cut to 4 KiB
_TEXT_MAX = 4096


def root_module(component: str) -> str:
    """The composition root of a component."""
    return f"pilotage.up.roots.{component}"


class Zygote:
    """The state of PID 1."""

    def __init__(
        self,
        *,
        config: ClusterConfig,
        plan: Plan,
        layout: Layout,
        control: socket.socket,
        sockets: Mapping[str, socket.socket],
    ) -> None:
        self._config = config
        self._plan = plan
        self._layout = layout
        self._control = control
        self._sockets = sockets
        self._processes = {process.name: process for process in processes(plan)}
        self._running: dict[int, str] = {}  # pid → name
        self._to_import = [*SHARED_MODULES, *map(root_module, COMPONENTS)]
        self._unimportable: dict[str, Exception] = {}
        self._has_holes = True  # something was imported since the last fork
        self._fillers: list[bytes] = []
        self._wanted: list[str] = []  # names to spawn once their component is imported

    def run(self) -> None:
        """Serve until the supervisor goes away."""
        set_name("pilotage-zygote")
        redirect_output(self._layout.log("zygote"))
        close_others({self._control.fileno(), *(sock.fileno() for sock in self._sockets.values())})
        try:
            build(self._plan, self._layout)
        except NetworkError as error:
            self._say({"event": "failed", "text": explain(error)[:_TEXT_MAX]})
            return
        except OSError as error:
            self._say({"event": "failed", "text": f"cannot build the fabric: {error}"[:_TEXT_MAX]})
            return
        self._say({"event": "fabric"})
        wake_r, wake_w = socket.socketpair()
        wake_r.setblocking(False)
        wake_w.setblocking(False)
        signal.set_wakeup_fd(wake_w.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        gc.disable()  # a collection here would write to pages that children share
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(wake_r, selectors.EVENT_READ)
            while True:
                # Imports come between messages: the first component runs while the others are still being read.
                for key, _ in selector.select(0 if self._to_import else None):
                    if key.fileobj is self._control:
                        if not self._receive():
                            return
                    else:
                        wake_r.recv(4096)
                        self._reap()
                if self._to_import:
                    self._import_next()
                self._spawn_wanted()

    def _import_next(self) -> None:
        module = self._to_import.pop(0)
        self._has_holes = True
        try:
            with _no_system_authorities():
                importlib.import_module(module)
        except Exception as error:
            # Its processes fail with this error, in their own logs, where the user looks for it; importing once more
            # would fail in another way, on what half an import has left behind.
            self._unimportable[module] = error
        if not self._to_import:
            gc.collect()
            gc.freeze()

    def _receive(self) -> bool:
        """Carry out one message; False: the supervisor is gone."""
        raw = self._control.recv(MESSAGE_BYTES_MAX)
        if not raw:
            return False
        message = json.loads(raw)
        if message["do"] == "spawn":
            self._wanted.append(message["name"])
        elif message["do"] == "signal":
            for pid, name in self._running.items():
                if name == message["name"]:
                    os.kill(pid, message["signal"])
        return True

    def _spawn_wanted(self) -> None:
        if self._to_import and self._to_import[0] in SHARED_MODULES:
            return
        ready = [name for name in self._wanted if root_module(self._processes[name].component) not in self._to_import]
        for name in ready:
            self._wanted.remove(name)
            self._spawn(self._processes[name])

    def _spawn(self, process: Process) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        if self._has_holes:
            self._has_holes = False
            self._fillers += fill_holes()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = self._become(process)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        self._running[pid] = process.name
        self._say({"event": "spawned", "name": process.name, "pid": pid})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if name := self._running.pop(pid, ""):
                self._say({"event": "exit", "name": name, "status": status})

    def _say(self, message: Mapping[str, object]) -> None:
        self._control.send(json.dumps(message).encode())

    def _become(self, process: Process) -> int:
        """In the child: leave PID 1's habits behind and run the component; returns the exit code."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        set_name(process.name)
        redirect_output(self._layout.log(process.name))
        close_others({self._control.fileno(), *(sock.fileno() for sock in self._sockets.values())})
        gc.freeze()  # collections leave alone what came with the fork: looking at it would copy its pages
        gc.enable()
        if error := self._unimportable.get(root_module(process.component)):
            raise error
        if process.node:
            namespaces.enter(self._layout.namespace(process.node))
        launch = Launch(
            process=process,
            config=self._config,
            plan=self._plan,
            layout=self._layout,
            sockets=self._sockets,
            on_ready=self._speaker({"event": "ready", "name": process.name}),
            on_issued=self._speaker({"event": "issued", "name": process.name}),
            progress=lambda text: self._say({"event": "progress", "name": process.name, "text": text[:_TEXT_MAX]}),
        )
        return run_root(launch)

    def _speaker(self, message: Mapping[str, object]) -> Callable[[], None]:
        return lambda: self._say(message)


@contextmanager
def _no_system_authorities() -> Iterator[None]:
    """Without the host's certificate authorities while importing.

    aiohttp reads them all into two contexts when it is imported, which takes 0.1 s; here only the cluster's own is
    trusted, and each client's context names it.
    """
    kept = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_root(launch: Launch) -> int:
    """Run a composition root's `serve` to its end; SIGTERM cancels it. Returns the exit code."""
    from pilotage.kit import PilotageError
    from pilotage.telemetry import configure_logging
    from pilotage.up.looping import run_async  # here, because the supervisor imports this module and needs no loop

    configure_logging(launch.config.log_level, component=launch.process.component)
    module = importlib.import_module(root_module(launch.process.component))
    started = time.monotonic()
    try:
        return run_async(lambda: module.serve(launch), spawns_processes=getattr(module, "SPAWNS_PROCESSES", False))
    except PilotageError as error:
        sys.stderr.write(f"{launch.process.name} ended after {time.monotonic() - started:.1f} s: {error}\n")
        return 1


def _ignore(_signal: int, _frame: object) -> None:
    """A handler must exist for the wakeup descriptor to be written."""
