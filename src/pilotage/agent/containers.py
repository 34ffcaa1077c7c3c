"""The containers of one pod: started, stopped, cleared away; what became of each is told to the pod's worker.

Stands apart from the worker because it carries out what `core.lifecycle` decided and decides nothing itself but the
order of the steps of one start and one stop. Everything here may be interrupted by `kill -9`: names are derived, so
that the next agent finds what this one began.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from pilotage.agent import log_rotation, metrics
from pilotage.agent.checks import Outcome
from pilotage.agent.container_setup import TERMINATION_MESSAGE_BYTES_MAX
from pilotage.agent.core import actions, log_format, oci, pod_spec, resize
from pilotage.agent.core.state import (
    ContainerCondemned,
    ContainerExited,
    ContainerRefused,
    ContainerResized,
    ContainerStarted,
    Event,
    PodState,
    ResizeFailed,
    SandboxLost,
)
from pilotage.agent.errors import StartRefused
from pilotage.agent.images import Image
from pilotage.agent.runtime import ContainerExit, ContainerSpec, RuntimeFailure
from pilotage.agent.sandbox import Sandbox
from pilotage.agent.services import NodeServices
from pilotage.api.core_v1 import Container, EphemeralContainer, LifecycleHandler, Pod
from pilotage.kit.errors import PilotageError

# After preStop has used up the grace period a container still gets this long between SIGTERM and SIGKILL.
STOP_GRACE_MIN_S = 2.0
# Once more than any process needs to die of SIGKILL; then its end is looked for on disk.
KILL_WAIT_S = 10.0
# Of the log, for terminationMessagePolicy FallbackToLogsOnError.
LOG_FALLBACK_BYTES_MAX = 2048
LOG_FALLBACK_LINES_MAX = 80
POD_MESSAGES_BYTES_MAX = 12 * 1024


class Owner(Protocol):
    """What a pod's containers need of its worker."""

    @property
    def pod(self) -> Pod: ...

    @property
    def state(self) -> PodState: ...

    @property
    def pod_ip(self) -> str: ...

    @property
    def directory(self) -> Path: ...

    def now(self) -> float: ...

    def post(self, event: Event) -> None: ...

    def tell(self, type_: str, reason: str, message: str, container: str = "") -> None: ...

    def new_id(self, name: str, attempt: int) -> str: ...

    def log_path_of(self, name: str, attempt: int) -> Path: ...


class Containers:
    """Of one pod, by container id."""

    def __init__(self, owner: Owner, sandbox: Sandbox, node: NodeServices) -> None:
        self._owner = owner
        self._sandbox = sandbox
        self._node = node
        self._in_start: set[str] = set()  # ids whose start has not been reported yet
        self._names: dict[str, str] = {}  # id → name, from its start until it is cleared away
        self._early_exits: dict[str, ContainerExit] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._messages: dict[str, Path] = {}  # id → termination message file
        self._images: dict[str, Image] = {}
        self._hooks: set[asyncio.Timeout] = set()  # of postStart hooks under way
        self.dead: list[str] = []  # ended ones to be cleared away once their end is remembered

    def knows(self, container_id: str) -> bool:
        """Whether it was started here; true before the state has heard of it."""
        return container_id in self._names

    def resume(self, container_id: str) -> None:
        """A restarted agent takes up a container that runs, or ran."""
        self._messages[container_id] = self._owner.directory / "termination" / container_id

    def report_exit(self, exit_: ContainerExit) -> None:
        """Tell the worker of an end that was found on disk."""
        self._post_exit(exit_)

    def ended(self, exit_: ContainerExit) -> None:
        """The runtime saw a container of this pod end."""
        self._ended.setdefault(exit_.container_id, asyncio.Event()).set()
        if exit_.container_id in self._in_start:
            self._early_exits[exit_.container_id] = exit_
        else:
            self._post_exit(exit_)

    async def start(self, action: actions.StartContainer) -> None:
        """Image, document, create, start, postStart; the outcome is posted."""
        name = action.name
        container = self._as_granted(pod_spec.container_named(self._owner.pod, name))
        container_id = self._owner.new_id(name, action.attempt)

        def tell(type_: str, reason: str, message: str) -> None:
            self._owner.tell(type_, reason, message, name)

        self._in_start.add(container_id)
        self._names[container_id] = name
        try:
            if self._take_up(container, container_id):
                return
            if not self._sandbox.stands():
                self._owner.post(SandboxLost(at=self._owner.now()))
                return
            image = await self._node.images.image(self._owner.pod, container, tell)
            self._images[name] = image
            prepared = await self._node.setup.prepare(
                self._sandbox.context(self._owner.state.pod_ips),
                container,
                container_id,
                image,
                process_namespace=self._target_namespace(container),
            )
            self._messages[container_id] = prepared.termination_log
            await self._run_container(container, container_id, action.attempt, dict(prepared.document), tell)
        except StartRefused as error:
            metrics.CONTAINER_STARTS.labels("refused").inc()
            if error.reason.startswith("Create"):
                tell("Warning", "Failed", f"Error: {error}")
            self._node.roots.remove(container_id)
            self._names.pop(container_id, None)
            self._owner.post(ContainerRefused(name=name, reason=error.reason, message=str(error), at=self._owner.now()))
        except (PilotageError, OSError) as error:
            metrics.CONTAINER_STARTS.labels("failed").inc()
            tell("Warning", "Failed", f"Error: {error}")
            await self.remove(container_id)
            self._owner.post(
                ContainerExited(
                    name=name,
                    container_id=container_id,
                    exit_code=128,
                    reason="StartError",
                    message=f'failed to start container "{name}": {error}',
                    started_at=0.0,
                    at=self._owner.now(),
                )
            )
        finally:
            self._in_start.discard(container_id)
            early = self._early_exits.pop(container_id, None)
            if early is not None:
                self._post_exit(early)

    def _target_namespace(self, container: Container) -> str:
        """The process namespace an ephemeral container joins; empty for one of its own. Raises `StartRefused`."""
        if not isinstance(container, EphemeralContainer) or not container.target_container_name:
            return ""
        name = container.target_container_name
        record = next((one for one in self._owner.state.records if one.name == name), None)
        found = self._node.runtime.find(record.container_id) if record is not None and record.is_running else None
        if found is None or not found.running:
            raise StartRefused("CreateContainerError", f'cannot find running target container "{name}"')
        return f"/proc/{found.pid}/ns/pid"

    def _take_up(self, container: Container, container_id: str) -> bool:
        """A start that an earlier agent began: True if the container is there already."""
        found = self._node.runtime.find(container_id)
        if found is None or not found.started_at or not (found.running or found.exit is not None):
            return False
        self._messages[container_id] = self._owner.directory / "termination" / container_id
        self._post_started(container, container_id, found.started_at)
        if found.exit is not None:
            self._early_exits[container_id] = found.exit
        return True

    async def _run_container(
        self,
        container: Container,
        container_id: str,
        attempt: int,
        document: dict[str, object],
        tell: Callable[[str, str, str], None],
    ) -> None:
        runtime = self._node.runtime
        if runtime.find(container_id) is not None or container_id in runtime.list():
            await runtime.remove(container_id)  # created, but not started, by an earlier agent
            self._early_exits.pop(container_id, None)
            self._ended.pop(container_id, None)
        spec = ContainerSpec(
            container_id=container_id,
            document=document,
            log_path=self._owner.log_path_of(container.name, attempt),
            stdin=container.stdin,
            stdin_once=container.stdin_once,
        )
        await runtime.create(spec)
        tell("Normal", "Created", f"Created container: {container.name}")
        started_at = await runtime.start(container_id)
        tell("Normal", "Started", f"Started container {container.name}")
        metrics.CONTAINER_STARTS.labels("started").inc()
        log_rotation.drop(self._owner.log_path_of(container.name, attempt - 2))
        hook = container.lifecycle.post_start if container.lifecycle is not None else None
        failed = ""
        if hook is not None:
            success, message = await self._post_start(hook, container, container_id)
            if not success:
                tell("Warning", "FailedPostStartHook", f"PostStartHook failed: {message}")
                failed = "FailedPostStartHook"
        self._post_started(container, container_id, started_at)
        if failed:
            grace_s = float(self._owner.pod.spec.termination_grace_period_seconds)
            self._owner.post(ContainerCondemned(name=container.name, message=failed, grace_s=grace_s))

    async def _post_start(self, hook: LifecycleHandler, container: Container, container_id: str) -> Outcome:
        """As long as it takes, unless the pod has to end."""
        try:
            async with asyncio.timeout(None) as limit:
                self._hooks.add(limit)
                try:
                    return await self._node.checker.hook(hook, container, container_id, self._owner.pod_ip, None)
                finally:
                    self._hooks.discard(limit)
        except TimeoutError:
            return False, "the pod ended before the hook did"

    def end_hooks(self, within_s: float) -> None:
        """The pod has to end: postStart hooks that still run get this long, and no more."""
        when = asyncio.get_running_loop().time() + max(within_s, 0.0)
        for limit in self._hooks:
            if limit.when() is None:
                limit.reschedule(when)

    def _post_started(self, container: Container, container_id: str, at: float) -> None:
        image = self._images.get(container.name)
        self._owner.post(
            ContainerStarted(
                name=container.name,
                container_id=container_id,
                image=image.name if image is not None else container.image,
                image_id=image.identifier if image is not None else "",
                stop_signal=self._stop_signal(container),
                at=at,
            )
        )

    def _as_granted(self, container: Container) -> Container:
        """With the resources that its record says it is started with."""
        record = self._owner.state.record(container.name)
        if record.resources is None:
            return container
        held = resize.with_inherited(record.resources, record.inherited)
        return msgspec.structs.replace(container, resources=held)

    async def resize(self, action: actions.ResizeContainer) -> None:
        """Hold the running container to what was granted; the outcome is posted."""
        state, name = self._owner.state, action.name
        container_id, wanted = state.record(name).container_id, state.allocated[name]
        inherited = resize.inherited(wanted, state.allocated_whole)
        held = resize.with_inherited(wanted, inherited)
        container = pod_spec.container_named(self._owner.pod, name)
        try:
            await self._node.runtime.update(
                container_id, oci.resources(msgspec.structs.replace(container, resources=held))
            )
        except (RuntimeFailure, OSError) as error:
            told = resize.in_words(state.allocated, state.allocated_whole, state.resize_generation, str(error))
            self._owner.tell("Warning", "ResizeError", f"Pod resize error: {told}")
            self._owner.post(
                ResizeFailed(name=name, container_id=container_id, message=str(error), at=self._owner.now())
            )
        else:
            self._owner.post(
                ContainerResized(name=name, container_id=container_id, resources=wanted, inherited=inherited)
            )

    async def stop(self, action: actions.StopContainer) -> None:
        """preStop, stop signal, SIGKILL at the deadline. Ends when the container does."""
        record = self._owner.state.record(action.name)
        container = pod_spec.container_named(self._owner.pod, action.name)
        container_id = record.container_id
        ended = self._ended.setdefault(container_id, asyncio.Event())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + action.grace_s
        hook = container.lifecycle.pre_stop if container.lifecycle is not None else None
        if hook is not None and action.grace_s > 0 and not action.hurry:
            success, message = await self._node.checker.hook(
                hook, container, container_id, self._owner.pod_ip, action.grace_s
            )
            if not success:
                self._owner.tell("Warning", "FailedPreStopHook", f"PreStopHook failed: {message}", action.name)
            deadline = max(deadline, loop.time() + STOP_GRACE_MIN_S)
        if action.grace_s > 0:
            if not action.hurry:
                await self._node.runtime.signal(container_id, record.stop_signal or "TERM")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await ended.wait()
        while not ended.is_set():
            await self._node.runtime.signal(container_id, "KILL")
            try:
                async with asyncio.timeout(KILL_WAIT_S):
                    await ended.wait()
            except TimeoutError:
                self._look_for_end(action.name, container_id)

    def _look_for_end(self, name: str, container_id: str) -> None:
        """No exit was reported although the process was killed: its monitor may have been killed as well."""
        found = self._node.runtime.find(container_id)
        if found is not None and found.running:
            return
        exit_ = found.exit if found is not None and found.exit is not None else None
        self.ended(
            exit_ or ContainerExit(container_id=container_id, exit_code=137, oom_killed=False, at=self._owner.now())
        )

    def _stop_signal(self, container: Container) -> str:
        own = container.lifecycle.stop_signal if container.lifecycle is not None else ""
        image = self._images.get(container.name)
        return own or (image.stop_signal if image is not None else "")

    def _post_exit(self, exit_: ContainerExit) -> None:
        record = next((one for one in self._owner.state.records if one.container_id == exit_.container_id), None)
        # That it started may still be waiting to be heard; its end is then heard after it.
        name = record.name if record is not None else self._names.get(exit_.container_id)
        if name is None:
            return
        started_at = record.started_at if record is not None and record.is_running else 0.0
        if not started_at:
            found = self._node.runtime.find(exit_.container_id)
            started_at = found.started_at if found is not None else exit_.at
        reason = "OOMKilled" if exit_.oom_killed else ("Completed" if exit_.exit_code == 0 else "Error")
        self._owner.post(
            ContainerExited(
                name=name,
                container_id=exit_.container_id,
                exit_code=exit_.exit_code,
                reason=reason,
                message=self._termination_message(name, exit_),
                started_at=started_at,
                at=exit_.at,
            )
        )
        self.dead.append(exit_.container_id)

    async def remove(self, container_id: str) -> None:
        """Clear an ended container away; its log stays."""
        await self._node.runtime.remove(container_id)
        self._node.roots.remove(container_id)
        self._ended.pop(container_id, None)
        self._names.pop(container_id, None)
        log = self._messages.pop(container_id, None)
        if log is not None:
            log.unlink(missing_ok=True)

    def _termination_message(self, name: str, exit_: ContainerExit) -> str:
        """What the container left in its message file, or the end of its log if it asked for that and failed."""
        container = pod_spec.container_named(self._owner.pod, name)
        text = b""
        path = self._messages.get(exit_.container_id)
        if path is not None:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                text = file.read(TERMINATION_MESSAGE_BYTES_MAX)
        if not text and exit_.exit_code != 0 and container.termination_message_policy == "FallbackToLogsOnError":
            text = _end_of_log(self._owner.log_path_of(name, self._owner.state.record(name).attempt))
        # All messages of a pod together are bounded, too.
        share = POD_MESSAGES_BYTES_MAX // len(pod_spec.all_containers(self._owner.pod))
        return text[:share].decode(errors="replace")


def _end_of_log(path: Path) -> bytes:
    """The last bytes of a container's output, without the log's own columns."""
    try:
        with open(path, "rb") as file:
            file.seek(max(path.stat().st_size - 4 * LOG_FALLBACK_BYTES_MAX, 0))
            raw = file.read()
    except OSError:
        return b""
    renderer = log_format.Renderer(with_time=False)
    lines = [log_format.parse(one) for one in raw.split(b"\n")[-LOG_FALLBACK_LINES_MAX - 1 :]]
    return b"".join(renderer.render(one) for one in lines if one is not None)[-LOG_FALLBACK_BYTES_MAX:]
