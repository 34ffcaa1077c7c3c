"""`Runtime` in memory: containers that run until they are told to end.

Ships with the seam so that everything above it can be tested without privilege. It keeps the same promises, among
them that containers outlive the agent that started them: hand the same object to the next one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilotage.agent.runtime import ContainerExit, ContainerSpec, ExecSession, FoundContainer, RuntimeFailure
from pilotage.kit.clock import SYSTEM_CLOCK, Clock


@dataclass(slots=True)
class FakeContainer:
    """One container. `obeys`: whether it ends when asked by a signal other than KILL."""

    spec: ContainerSpec
    started_at: float = 0.0
    exit: ContainerExit | None = None
    obeys: bool = True
    signals: list[str] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return self.started_at > 0 and self.exit is None


class FakeRuntime:
    """All containers of one imaginary node."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.containers: dict[str, FakeContainer] = {}
        self.sandboxes: dict[str, str] = {}  # uid → host name
        self.holders: dict[str, bool] = {}  # uid → whether its containers share a PID namespace
        self.refusals: list[str] = []  # messages of the next creations that fail
        self.commands: dict[tuple[str, ...], tuple[int, bytes]] = {}  # what execute answers; others succeed
        self.obeys = True  # of containers created from now on
        self.resources: dict[str, dict[str, Any]] = {}  # those that were changed
        self.starts: list[str] = []  # every start there ever was
        self._callbacks: list[Callable[[ContainerExit], None]] = []
        self._clock = clock
        self._open = False

    # ── what a test does ────────────────────────────────────────────────────────────────────────────────────────

    def end(self, container_id: str, exit_code: int = 0, *, oom_killed: bool = False) -> None:
        """The container's process ends by itself."""
        container = self.containers[container_id]
        if not container.running:
            raise AssertionError(f"{container_id} does not run")
        container.exit = ContainerExit(
            container_id=container_id,
            exit_code=exit_code,
            oom_killed=oom_killed,
            at=self._clock.wall().timestamp(),
        )
        if self._open:
            for callback in tuple(self._callbacks):
                callback(container.exit)

    def lose_everything(self) -> None:
        """The machine restarts: no process and no namespace survives."""
        self.containers.clear()
        self.sandboxes.clear()

    # ── Runtime ─────────────────────────────────────────────────────────────────────────────────────────────────

    def on_exit(self, callback: Callable[[ContainerExit], None]) -> None:
        self._callbacks.append(callback)

    async def open(self) -> None:
        self._open = True

    async def aclose(self) -> None:
        self._open = False
        self._callbacks.clear()

    async def version(self) -> str:
        return "fake://1.0"

    async def open_sandbox(
        self, uid: str, hostname: str, *, holder: dict[str, Any] | None = None, users: Path | None = None
    ) -> None:
        self.sandboxes[uid] = hostname
        self.holders[uid] = holder is not None

    async def close_sandbox(self, uid: str) -> None:
        self.sandboxes.pop(uid, None)

    def sandbox_namespaces(self, uid: str) -> dict[str, str]:
        kinds = ("ipc", "uts", "pid") if self.holders.get(uid) else ("ipc", "uts")
        return {kind: f"/fake/{uid}/{kind}" for kind in kinds} if uid in self.sandboxes else {}

    async def create(self, spec: ContainerSpec) -> None:
        if self.refusals:
            raise RuntimeFailure(self.refusals.pop(0))
        if spec.container_id in self.containers:
            raise RuntimeFailure(f"container {spec.container_id} exists")
        spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        spec.log_path.touch()
        self.containers[spec.container_id] = FakeContainer(spec=spec, obeys=self.obeys)

    async def start(self, container_id: str) -> float:
        container = self._require(container_id)
        container.started_at = self._clock.wall().timestamp()
        self.starts.append(container_id)
        return container.started_at

    async def signal(self, container_id: str, signal: str) -> None:
        container = self.containers.get(container_id)
        if container is None or not container.running:
            return
        container.signals.append(signal)
        if signal == "KILL" or container.obeys:
            self.end(container_id, 137 if signal == "KILL" else 143)

    async def update(self, container_id: str, resources: dict[str, Any]) -> None:
        if not self._require(container_id).running:
            raise RuntimeFailure("container is not running")
        self.resources[container_id] = resources

    async def reopen_log(self, container_id: str) -> None:
        container = self.containers.get(container_id)
        if container is not None and container.running:
            container.spec.log_path.touch()

    async def remove(self, container_id: str) -> None:
        container = self.containers.get(container_id)
        if container is not None and container.running:
            await self.signal(container_id, "KILL")
        self.containers.pop(container_id, None)

    def find(self, container_id: str) -> FoundContainer | None:
        container = self.containers.get(container_id)
        if container is None:
            return None
        return FoundContainer(
            container_id=container_id,
            running=container.running,
            started_at=container.started_at,
            exit=container.exit,
        )

    def list(self) -> list[str]:
        return sorted(self.containers)

    async def execute(
        self, container_id: str, command: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> ExecSession:
        if not self._require(container_id).running:
            raise RuntimeFailure("container is not running")
        return FakeSession(*self.commands.get(tuple(command), (0, b"")))

    async def attach(self, container_id: str) -> ExecSession:
        return await self.execute(container_id, ())

    def _require(self, container_id: str) -> FakeContainer:
        container = self.containers.get(container_id)
        if container is None:
            raise RuntimeFailure(f"no container {container_id}")
        return container


class FakeSession:
    """A process that prints something and ends; what is written to it comes back first."""

    def __init__(self, exit_code: int, output: bytes) -> None:
        self._exit_code = exit_code
        self._chunks: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._output = output

    async def write(self, data: bytes) -> None:
        self._chunks.put_nowait((1, data))

    def close_stdin(self) -> None:
        return

    def resize(self, columns: int, rows: int) -> None:
        return

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while not self._chunks.empty():
            yield self._chunks.get_nowait()
        if self._output:
            yield 1, self._output

    async def wait(self) -> int:
        return self._exit_code

    async def aclose(self) -> None:
        return
