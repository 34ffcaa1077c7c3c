"""The container runtime seam: what the agent asks of whoever runs processes in namespaces.

Stands apart so that the pod worker can be tested without privilege: `Runtime` is the promise, `runtime.oci` keeps it
with runc and conmon, `runtime.fake` in memory; one suite runs on both. Containers survive the agent: a new instance
finds what an older one started. Leaves out images, networks and volumes.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pilotage.kit.errors import PilotageError


class RuntimeFailure(PilotageError):
    """The runtime could not do what was asked; the message is what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerExit:
    """The end of a container's first process."""

    container_id: str
    exit_code: int  # 128 + signal for a killed process
    oom_killed: bool
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundContainer:
    """A container that exists: created, running, or ended and not yet removed."""

    container_id: str
    running: bool  # started and not ended
    started_at: float
    exit: ContainerExit | None  # None: not ended, or ended without a trace
    pid: int = 0  # of its first process, as the agent sees it; 0 where there are no processes


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What `create` needs beside the OCI document."""

    container_id: str
    document: dict[str, Any]
    log_path: Path
    stdin: bool = False
    stdin_once: bool = False


class ExecSession(Protocol):
    """One extra process inside a container, with its standard streams."""

    async def write(self, data: bytes) -> None:
        """To its standard input; waits while its buffer is full."""
        ...

    def close_stdin(self) -> None: ...

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of its terminal, if it has one."""
        ...

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1 for standard output or 2 for standard error, bytes) until both are closed."""
        ...

    async def wait(self) -> int:
        """Its exit code. Raises `RuntimeFailure` if it never ran."""
        ...

    async def aclose(self) -> None:
        """Kill it if it still runs, release everything."""
        ...


class Runtime(Protocol):
    """Runs containers. Identifiers are chosen by the caller, unique for ever, and safe as file names."""

    def on_exit(self, callback: Callable[[ContainerExit], None]) -> None:
        """Call `callback` on the event loop for every container that ends from now on."""
        ...

    async def open(self) -> None:
        """Begin watching; before anything else."""
        ...

    async def aclose(self) -> None:
        """Stop watching. Containers run on."""
        ...

    async def version(self) -> str:
        """`name://version`, as the Node's status shows it."""
        ...

    async def open_sandbox(
        self, uid: str, hostname: str, *, holder: dict[str, Any] | None = None, users: Path | None = None
    ) -> None:
        """Make the IPC and UTS namespaces that a pod's containers share. No error when they stand.

        They belong to the user namespace at `users`; None: to the agent's. `holder` is the document of a container
        whose PID namespace they share too; it is run as long as the sandbox.
        """
        ...

    async def close_sandbox(self, uid: str) -> None:
        """Undo `open_sandbox` and remove the pod's control groups. No error when nothing stands."""
        ...

    def sandbox_namespaces(self, uid: str) -> dict[str, str]:
        """OCI type → path, empty when the sandbox is not open or what holds it has died."""
        ...

    async def create(self, spec: ContainerSpec) -> None:
        """Everything up to, not including, the start of the process. Raises `RuntimeFailure`."""
        ...

    async def start(self, container_id: str) -> float:
        """Start it; the time at which it started. Raises `RuntimeFailure`."""
        ...

    async def signal(self, container_id: str, signal: str) -> None:
        """Send a signal ("TERM", "KILL", "RTMIN+3") to its first process. No error when it has ended."""
        ...

    async def update(self, container_id: str, resources: dict[str, Any]) -> None:
        """Hold a running container to other limits: the `linux.resources` of its document. Raises `RuntimeFailure`."""
        ...

    async def reopen_log(self, container_id: str) -> None:
        """Go on writing to the log's path, which was renamed. Returns once the new file is there; no error if ended."""
        ...

    async def remove(self, container_id: str) -> None:
        """Forget an ended (or kill and forget a running) container. No error when there is none."""
        ...

    def find(self, container_id: str) -> FoundContainer | None:
        """What is known of it now, from the kernel and from disk."""
        ...

    def list(self) -> list[str]:
        """Identifiers of all containers that were created and not removed."""
        ...

    async def execute(
        self, container_id: str, command: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> ExecSession:
        """Run one more process in a running container. Raises `RuntimeFailure`."""
        ...

    async def attach(self, container_id: str) -> ExecSession:
        """The streams of its first process. Raises `RuntimeFailure`."""
        ...
