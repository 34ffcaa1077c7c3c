"""One pod's shell: feeds events into the core, carries out its actions, publishes its status.

Stands apart because each pod has one, as a task of its own, so that a slow pod never holds up another. Fed by the
agent (new specification, exits, changed references), by probes and by its own actions. Everything here may be
interrupted by `kill -9`: the state on disk says what was under way, and `recover` takes it up again.

Longer than most modules: recovery, actions and publication share the pod's state and would only be parted by passing
it around.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import msgspec

from pilotage.agent import metrics
from pilotage.agent.checks import Checker
from pilotage.agent.container_setup import (
    TERMINATION_MESSAGE_BYTES_MAX,
    ContainerSetup,
    PodContext,
    write_pod_files,
)
from pilotage.agent.core import actions, lifecycle, log_format, pod_spec, reception, resolver, status
from pilotage.agent.core.container import ContainerPhase
from pilotage.agent.core.state import (
    ContainerCondemned,
    ContainerExited,
    ContainerRefused,
    ContainerResumed,
    ContainerStarted,
    Event,
    PodState,
    SandboxFailed,
    SandboxLost,
    SandboxReady,
    SandboxRemoved,
    VolumesFailed,
    VolumesMounted,
)
from pilotage.agent.errors import MountFailure, StartRefused
from pilotage.agent.images import Image
from pilotage.agent.memory import PodMemory
from pilotage.agent.mounts import Mounts
from pilotage.agent.pod_network import PodNetwork
from pilotage.agent.prober import probe_container
from pilotage.agent.references import References
from pilotage.agent.rootfs import RootFSMaker
from pilotage.agent.runtime import ContainerExit, ContainerSpec, Runtime
from pilotage.agent.volumes import Volumes
from pilotage.api.core_v1 import Container, ObjectReference, Pod, PodStatus
from pilotage.api.status import ApiError, is_conflict, is_not_found
from pilotage.client import Client, ConnectionFailed, EventRecorder, PatchType
from pilotage.kit.backoff import Backoff
from pilotage.kit.clock import Clock
from pilotage.kit.errors import PilotageError
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.telemetry import get_logger

# After preStop has used up the grace period a container still gets this long between SIGTERM and SIGKILL.
STOP_GRACE_MIN_S = 2.0
# Once more than any process needs to die of SIGKILL; then its end is looked for on disk.
KILL_WAIT_S = 10.0
REFRESH_RETRY_S = 10.0  # of volumes that could not be brought up to date; they keep their old contents
LOG_FALLBACK_BYTES_MAX = 2048  # of the log, for terminationMessagePolicy FallbackToLogsOnError
# Whoever removed the object by force does not want to wait; the process still gets a moment.
GONE_GRACE_S = 2
_RETRY = Backoff(initial_s=0.1, max_s=5.0)
_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeServices:
    """What all workers of a node share."""

    client: Client
    events: EventRecorder
    runtime: Runtime
    network: PodNetwork
    volumes: Volumes
    references: References
    setup: ContainerSetup
    roots: RootFSMaker
    mounts: Mounts
    checker: Checker
    memory: PodMemory
    clock: Clock
    run_dir: Path
    node_ip: str
    cluster_dns: tuple[str, ...]
    cluster_domain: str
    node_resolver: Callable[[], resolver.ResolvConf]


class PodWorker:
    """The life of one pod, by uid."""

    def __init__(self, pod: Pod, node: NodeServices) -> None:
        self.uid = pod.metadata.uid
        self.pod = pod
        self.gone = False  # from the API: nothing is published any more
        self._node = node
        self._state = reception.begin(pod, self._now())
        self._recovering = False
        self._clearing = False  # the pod's directory is going: nothing may be written to it any more
        self._events: list[Event] = []
        self._wake = asyncio.Event()
        self._publish = asyncio.Event()
        self._status: PodStatus | None = None  # the latest computed
        self._written: PodStatus | None = None  # the latest the API acknowledged
        self._in_start: set[str] = set()  # container ids whose start has not been reported yet
        self._early_exits: dict[str, ContainerExit] = {}
        self._ended: dict[str, asyncio.Event] = {}  # by container id
        self._messages: dict[str, Path] = {}  # container id → termination message file
        self._finished = asyncio.Event()
        self._images: dict[str, Image] = {}
        self._wake_at: float | None = None  # None: nothing is due
        self._refresh_wanted = False  # volumes may be out of date
        self._dead: list[str] = []  # ended containers to be cleared away once their end is remembered

    # ── what others may ask ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> PodState:
        return self._state

    @property
    def finished(self) -> bool:
        """Nothing of the pod is left to do; the worker has ended or is about to."""
        return self._finished.is_set()

    def container_id(self, name: str) -> str:
        """The running (or last) container of that name; empty if there never was one."""
        try:
            return self._state.record(name).container_id
        except KeyError:
            return ""

    def log_path(self, name: str, *, previous: bool = False) -> Path | None:
        """The log of the latest attempt, or of the one before."""
        try:
            attempt = self._state.record(name).attempt
        except KeyError:
            return None
        path = self._log_path(name, attempt - 1 if previous else attempt)
        if not previous and not path.exists() and attempt > 0:
            path = self._log_path(name, attempt - 1)  # the next attempt has not begun
        return path if path.exists() else None

    def waiting_reason(self, name: str) -> str:
        """Why a container has no log yet."""
        found = self._status.container_statuses + self._status.init_container_statuses if self._status else ()
        waiting = next((one.state.waiting for one in found if one.name == name), None)
        return waiting.reason if waiting is not None else "ContainerCreating"

    def update(self, pod: Pod) -> None:
        """The object changed."""
        before, self.pod = self.pod, pod
        # Most changes are echoes of our own status.
        if not self._clearing and (before.spec != pod.spec or before.metadata.is_deleting != pod.metadata.is_deleting):
            self._node.memory.save_pod(pod)
        now, then = pod.metadata, before.metadata
        if (now.labels, now.annotations) != (then.labels, then.annotations):
            self._refresh_wanted = True
        self._wake.set()

    def vanish(self) -> None:
        """The object is gone from the API: stop everything, publish nothing."""
        self.gone = True
        metadata = self.pod.metadata
        grace_s = self.pod.spec.termination_grace_period_seconds
        if metadata.deletion_grace_period_seconds is not None:
            grace_s = metadata.deletion_grace_period_seconds
        metadata = msgspec.structs.replace(
            metadata,
            deletion_timestamp=metadata.deletion_timestamp or self._node.clock.wall().isoformat(),
            deletion_grace_period_seconds=min(grace_s, GONE_GRACE_S),
        )
        self.pod = msgspec.structs.replace(self.pod, metadata=metadata)
        self._wake.set()

    def post(self, event: Event) -> None:
        """Something happened."""
        self._events.append(event)
        self._wake.set()

    def container_ended(self, exit_: ContainerExit) -> None:
        """The runtime saw a container of this pod end."""
        self._ended.setdefault(exit_.container_id, asyncio.Event()).set()
        if exit_.container_id in self._in_start:
            self._early_exits[exit_.container_id] = exit_
        else:
            self._post_exit(exit_)

    def owns(self, container_id: str) -> bool:
        """Whether this pod has (or is starting) that container."""
        return container_id in self._in_start or any(
            record.container_id == container_id for record in self._state.records
        )

    def is_starting(self, container_id: str) -> bool:
        """Whether an interrupted start was about that container."""
        return any(
            record.phase is ContainerPhase.STARTING and self._new_id(record.name, record.attempt) == container_id
            for record in self._state.records
        )

    def references_changed(self) -> None:
        """A ConfigMap or Secret of this pod changed: containers that could not be configured are tried at once."""
        for record in self._state.records:
            if record.phase is ContainerPhase.REFUSED and record.refused_reason == "CreateContainerConfigError":
                self._state = self._state.with_record(msgspec.structs.replace(record, retry_at=0.0))
        if self._state.volumes == "absent":
            self._state = msgspec.structs.replace(self._state, volumes_retry_at=0.0)
        self._refresh_wanted = True
        self._wake.set()

    # ── recovery ────────────────────────────────────────────────────────────────────────────────────────────────

    def recover(self, state: PodState) -> None:
        """Take up what an earlier agent left. Before `run`."""
        replace = msgspec.structs.replace
        runtime = self._node.runtime
        self._recovering = True
        if state.sandbox == "creating":
            state = replace(state, sandbox="absent")
        elif state.sandbox == "removing":
            state = replace(state, sandbox="ready")  # removed once more
        if state.volumes == "mounting":
            state = replace(state, volumes="absent")
        state = replace(state, deletion_told=False)
        self._state = state
        if not self._sandbox_stands(state):
            self.post(SandboxLost())
            self._dead.extend(record.container_id for record in state.records if record.is_running)
            return
        for record in state.records:
            if not record.is_running:
                continue
            self._messages[record.container_id] = self._directory / "termination" / record.container_id
            found = runtime.find(record.container_id)
            if found is not None and found.running:
                self.post(ContainerResumed(name=record.name))
            elif found is not None and found.exit is not None:
                self._post_exit(found.exit)
            else:
                self.post(
                    ContainerExited(
                        name=record.name,
                        container_id=record.container_id,
                        exit_code=137,
                        reason="ContainerStatusUnknown",
                        message="The container could not be located when the agent came back",
                        started_at=record.started_at,
                        at=self._now(),
                    )
                )

    def _sandbox_stands(self, state: PodState) -> bool:
        if state.sandbox != "ready":
            return True
        if not self._node.runtime.sandbox_namespaces(self.uid):
            return False
        if self.pod.spec.host_network:
            return True
        return bool(state.pod_ips) and self._node.network.restore(self.uid, state.pod_ips[0])

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Until the pod is gone from node and API, or cancelled (then everything of it runs on)."""
        self._node.memory.save_pod(self.pod)
        async with task_set() as tasks:
            tasks.start(self._publisher(), key="publisher")
            if self._recovering:
                self._repeat_starts(tasks)
            while not self._finished.is_set():
                self._step(tasks)
                timeout_s = self._timeout_s()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        await self._wake.wait()
                self._wake.clear()

    def _repeat_starts(self, tasks: TaskSet) -> None:
        for record in self._state.records:
            if record.phase is ContainerPhase.STARTING:
                action = actions.StartContainer(name=record.name, attempt=record.attempt)
                tasks.start(self._start(action), key=("start", record.name))

    def _timeout_s(self) -> float | None:
        times = [at for at in (self._wake_at, self._node.volumes.refresh_at(self.uid)) if at is not None]
        return max(min(times) - self._now(), 0.0) if times else None

    def _step(self, tasks: TaskSet) -> None:
        """Events in, actions out, until nothing changes at once."""
        before = self._state
        events, self._events = self._events, []
        for event in events:
            self._state = reception.receive(self.pod, self._state, event)
            self._follow_probes(event, tasks)
        decision = lifecycle.decide(self.pod, self._state, self._now())
        self._state, self._wake_at = decision.state, decision.wake_at
        if self._state != before and not self._clearing:
            self._node.memory.save(self.uid, self._state)
        dead, self._dead = self._dead, []
        for container_id in dead:
            tasks.start(self._remove_container(container_id))
        for action in decision.actions:
            self._begin(action, tasks)
        self._report()
        if self._state.volumes == "mounted" and "refresh" not in tasks:
            refresh_at = self._node.volumes.refresh_at(self.uid)
            if self._refresh_wanted or (refresh_at is not None and refresh_at <= self._now()):
                self._refresh_wanted = False
                tasks.start(self._refresh_volumes(), key="refresh")

    def _follow_probes(self, event: Event, tasks: TaskSet) -> None:
        """Probes run exactly while their container does."""
        match event:
            case ContainerStarted() | ContainerResumed():
                container = pod_spec.container_named(self.pod, event.name)
                if container.startup_probe or container.liveness_probe or container.readiness_probe:
                    grace_s = float(self.pod.spec.termination_grace_period_seconds)
                    tasks.start(
                        probe_container(
                            container,
                            self._state.record(event.name),
                            pod_ip=self._pod_ip,
                            grace_s=grace_s,
                            resumed=isinstance(event, ContainerResumed),
                            checker=self._node.checker,
                            post=self.post,
                            tell=lambda type_, reason, message: self._tell(type_, reason, message, container.name),
                            clock=self._node.clock,
                        ),
                        key=("probes", event.name),
                    )
            case ContainerExited() | ContainerCondemned():
                tasks.cancel(("probes", event.name))
            case SandboxLost():
                for record in self._state.records:
                    tasks.cancel(("probes", record.name))
            case _:
                pass

    def _begin(self, action: actions.Action, tasks: TaskSet) -> None:
        match action:
            case actions.MountVolumes():
                tasks.start(self._mount_volumes())
            case actions.CreateSandbox():
                tasks.start(self._create_sandbox())
            case actions.StartContainer():
                tasks.start(self._start(action), key=("start", action.name))
            case actions.StopContainer():
                tasks.cancel(("probes", action.name))
                tasks.start(self._stop(action), key=("stop", action.name))
            case actions.RemoveSandbox():
                tasks.start(self._remove_sandbox())
            case actions.ConfirmDeletion():
                tasks.start(self._confirm_deletion())
            case actions.RecordEvent():
                self._tell(action.type, action.reason, action.message, action.container)
            case _:
                assert_never(action)

    # ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _mount_volumes(self) -> None:
        try:
            await self._node.volumes.mount(self.pod)
        except MountFailure as error:
            self._tell("Warning", "FailedMount", str(error))
            self.post(VolumesFailed(message=str(error), at=self._now()))
        else:
            self.post(VolumesMounted())

    async def _refresh_volumes(self) -> None:
        """Bring contents up to date after a change of a ConfigMap, a Secret, a label, or when a token grows old."""
        try:
            await self._node.volumes.mount(self.pod)
        except MountFailure as error:
            self._tell("Warning", "FailedMount", str(error))
            await asyncio.sleep(REFRESH_RETRY_S)
            self._refresh_wanted = True
        # One more look once this task is no longer counted as running.
        asyncio.get_running_loop().call_soon(self._wake.set)

    async def _create_sandbox(self) -> None:
        node, pod = self._node, self.pod
        try:
            await node.runtime.open_sandbox(self.uid, resolver.kernel_hostname(pod, node.cluster_domain))
            ips = (node.node_ip,) if pod.spec.host_network else (await node.network.attach(self.uid),)
            resolv_conf = resolver.resolv_conf(
                pod,
                cluster_dns=node.cluster_dns,
                cluster_domain=node.cluster_domain,
                node=node.node_resolver(),
            )
            write_pod_files(
                self._context(ips), node.mounts, resolv_conf=resolv_conf.render(), cluster_domain=node.cluster_domain
            )
        except (PilotageError, OSError) as error:
            message = f"Failed to create pod sandbox: {error}"
            self._tell("Warning", "FailedCreatePodSandBox", message)
            self.post(SandboxFailed(message=message, at=self._now()))
        else:
            self.post(SandboxReady(pod_ips=ips))

    async def _remove_sandbox(self) -> None:
        node = self._node
        for record in self._state.records:
            if record.container_id:
                await self._remove_container(record.container_id)
        if not self.pod.spec.host_network:
            await node.network.detach(self.uid)
        await asyncio.to_thread(node.volumes.unmount, self.uid)
        node.mounts.detach(self._shared_memory)
        with contextlib.suppress(OSError):
            self._shared_memory.rmdir()
        await node.runtime.close_sandbox(self.uid)
        node.references.release(self.uid)
        self.post(SandboxRemoved())

    async def _confirm_deletion(self) -> None:
        """Last status first, then the object, then what is left on disk."""
        failures = 0
        while not self.gone:
            try:
                await self._write_status()
                await self._node.client.delete(
                    Pod,
                    self.pod.metadata.name,
                    namespace=self.pod.metadata.namespace,
                    grace_period_s=0,
                    uid=self.uid,
                )
                break
            except ApiError as error:
                if is_not_found(error) or is_conflict(error):
                    break
                failures += 1
                _log.warning("cannot delete pod", pod=self.pod.metadata.key, error=str(error)[:300])
            except ConnectionFailed:
                failures += 1
            await asyncio.sleep(_RETRY.delay_s(failures))
        self._clearing = True
        await asyncio.to_thread(self._node.memory.forget, self.uid)
        self._finished.set()
        self._wake.set()

    async def _start(self, action: actions.StartContainer) -> None:
        name = action.name
        container = pod_spec.container_named(self.pod, name)
        container_id = self._new_id(name, action.attempt)

        def tell(type_: str, reason: str, message: str) -> None:
            self._tell(type_, reason, message, name)

        self._in_start.add(container_id)
        try:
            if self._take_up(container, container_id):
                return
            image = await self._node.setup.image(container, tell)
            self._images[name] = image
            prepared = await self._node.setup.prepare(
                self._context(self._state.pod_ips), container, container_id, image
            )
            self._messages[container_id] = prepared.termination_log
            await self._run_container(container, container_id, action.attempt, dict(prepared.document), tell)
        except StartRefused as error:
            metrics.CONTAINER_STARTS.labels("refused").inc()
            if error.reason.startswith("Create"):
                tell("Warning", "Failed", f"Error: {error}")
            self._node.roots.remove(container_id)
            self.post(ContainerRefused(name=name, reason=error.reason, message=str(error), at=self._now()))
        except (PilotageError, OSError) as error:
            metrics.CONTAINER_STARTS.labels("failed").inc()
            tell("Warning", "Failed", f"Error: {error}")
            await self._remove_container(container_id)
            self.post(
                ContainerExited(
                    name=name,
                    container_id=container_id,
                    exit_code=128,
                    reason="StartError",
                    message=f'failed to start container "{name}": {error}',
                    started_at=0.0,
                    at=self._now(),
                )
            )
        finally:
            self._in_start.discard(container_id)
            early = self._early_exits.pop(container_id, None)
            if early is not None:
                self._post_exit(early, name)

    def _take_up(self, container: Container, container_id: str) -> bool:
        """A start that an earlier agent began: True if the container is there already."""
        found = self._node.runtime.find(container_id)
        if found is None or not found.started_at or not (found.running or found.exit is not None):
            return False
        self._messages[container_id] = self._directory / "termination" / container_id
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
        spec = ContainerSpec(
            container_id=container_id,
            document=document,
            log_path=self._log_path(container.name, attempt),
            stdin=container.stdin,
            stdin_once=container.stdin_once,
        )
        await runtime.create(spec)
        tell("Normal", "Created", f"Created container: {container.name}")
        started_at = await runtime.start(container_id)
        tell("Normal", "Started", f"Started container {container.name}")
        metrics.CONTAINER_STARTS.labels("started").inc()
        self._log_path(container.name, attempt - 2).unlink(missing_ok=True)
        hook = container.lifecycle.post_start if container.lifecycle is not None else None
        failed = ""
        if hook is not None:
            grace_s = float(self.pod.spec.termination_grace_period_seconds)
            success, message = await self._node.checker.hook(hook, container, container_id, self._pod_ip, grace_s)
            if not success:
                tell("Warning", "FailedPostStartHook", f"PostStartHook failed: {message}")
                failed = "FailedPostStartHook"
        self._post_started(container, container_id, started_at)
        if failed:
            grace_s = float(self.pod.spec.termination_grace_period_seconds)
            self.post(ContainerCondemned(name=container.name, message=failed, grace_s=grace_s))

    def _post_started(self, container: Container, container_id: str, at: float) -> None:
        image = self._images.get(container.name)
        self.post(
            ContainerStarted(
                name=container.name,
                container_id=container_id,
                image=image.name if image is not None else container.image,
                image_id=image.identifier if image is not None else "",
                at=at,
            )
        )

    async def _stop(self, action: actions.StopContainer) -> None:
        """preStop, stop signal, SIGKILL at the deadline. Ends when the container does."""
        record = self._state.record(action.name)
        container = pod_spec.container_named(self.pod, action.name)
        container_id = record.container_id
        ended = self._ended.setdefault(container_id, asyncio.Event())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + action.grace_s
        hook = container.lifecycle.pre_stop if container.lifecycle is not None else None
        if hook is not None and action.grace_s > 0 and not action.hurry:
            success, message = await self._node.checker.hook(
                hook, container, container_id, self._pod_ip, action.grace_s
            )
            if not success:
                self._tell("Warning", "FailedPreStopHook", f"PreStopHook failed: {message}", action.name)
            deadline = max(deadline, loop.time() + STOP_GRACE_MIN_S)
        if action.grace_s > 0:
            if not action.hurry:
                await self._node.runtime.signal(container_id, self._stop_signal(container))
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
        self.container_ended(
            exit_ or ContainerExit(container_id=container_id, exit_code=137, oom_killed=False, at=self._now())
        )

    def _stop_signal(self, container: Container) -> str:
        own = container.lifecycle.stop_signal if container.lifecycle is not None else ""
        image = self._images.get(container.name)
        return own or (image.stop_signal if image is not None else "") or "TERM"

    def _post_exit(self, exit_: ContainerExit, name: str = "") -> None:
        record = next((one for one in self._state.records if one.container_id == exit_.container_id), None)
        if record is None and not name:
            return
        name = record.name if record is not None else name
        started_at = record.started_at if record is not None and record.is_running else 0.0
        if not started_at:
            found = self._node.runtime.find(exit_.container_id)
            started_at = found.started_at if found is not None else exit_.at
        reason = "OOMKilled" if exit_.oom_killed else ("Completed" if exit_.exit_code == 0 else "Error")
        self.post(
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
        self._dead.append(exit_.container_id)

    async def _remove_container(self, container_id: str) -> None:
        """Clear an ended container away; its log stays."""
        await self._node.runtime.remove(container_id)
        self._node.roots.remove(container_id)
        self._ended.pop(container_id, None)
        log = self._messages.pop(container_id, None)
        if log is not None:
            log.unlink(missing_ok=True)

    def _termination_message(self, name: str, exit_: ContainerExit) -> str:
        """What the container left in its message file, or the end of its log if it asked for that and failed."""
        container = pod_spec.container_named(self.pod, name)
        text = b""
        path = self._messages.get(exit_.container_id)
        if path is not None:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                text = file.read(TERMINATION_MESSAGE_BYTES_MAX)
        if not text and exit_.exit_code != 0 and container.termination_message_policy == "FallbackToLogsOnError":
            text = _end_of_log(self._log_path(name, self._state.record(name).attempt))
        return text.decode(errors="replace")

    # ── status ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _report(self) -> None:
        """Compute the status; wake the publisher if it differs from what was computed last."""
        # Transition times are taken from our own latest computation: the API's copy may lag behind it.
        pod = self.pod
        if self._status is not None:
            own = {one.type: one for one in self._status.conditions}
            others = tuple(one for one in pod.status.conditions if one.type not in own)
            shown = msgspec.structs.replace(pod.status, conditions=(*others, *own.values()))
            pod = msgspec.structs.replace(pod, status=shown)
        found = status.report(pod, self._state, host_ip=self._node.node_ip, now=self._now())
        if found != self._status:
            self._status = found
            self._publish.set()

    async def _publisher(self) -> None:
        """Write the latest status, one write at a time; intermediate ones are skipped."""
        failures = 0
        while True:
            await self._publish.wait()
            self._publish.clear()
            try:
                await self._write_status()
                failures = 0
            except (ApiError, ConnectionFailed) as error:
                if isinstance(error, ApiError) and (is_not_found(error) or is_conflict(error)):
                    continue  # the watch will tell that the pod is gone, or another one
                failures += 1
                _log.warning("cannot write pod status", pod=self.pod.metadata.key, error=str(error)[:300])
                await asyncio.sleep(_RETRY.delay_s(failures))
                self._publish.set()

    async def _write_status(self) -> None:
        wanted = self._status
        if wanted is None or wanted == self._written or self.gone:
            return
        pod = self.pod
        await self._node.client.patch(
            Pod,
            pod.metadata.name,
            status.patch(pod, wanted),
            namespace=pod.metadata.namespace,
            subresource="status",
            patch_type=PatchType.STRATEGIC,
        )
        self._written = wanted
        metrics.STATUS_WRITES.inc()

    # ── small things ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _directory(self) -> Path:
        return self._node.memory.directory(self.uid)

    @property
    def _shared_memory(self) -> Path:
        return self._node.run_dir / "shm" / self.uid

    @property
    def _pod_ip(self) -> str:
        return self._state.pod_ips[0] if self._state.pod_ips else ""

    def _context(self, pod_ips: tuple[str, ...]) -> PodContext:
        own_network = not self.pod.spec.host_network
        return PodContext(
            pod=self.pod,
            pod_ips=pod_ips,
            network_namespace=str(self._node.network.path(self.uid)) if own_network else "",
            sandbox_namespaces=self._node.runtime.sandbox_namespaces(self.uid),
            directory=self._directory,
            shared_memory=self._shared_memory,
        )

    def _new_id(self, name: str, attempt: int) -> str:
        """Derived, not random: an agent that died in the middle of a start finds the container it was starting."""
        return hashlib.sha256(f"{self.uid}/{name}/{attempt}".encode()).hexdigest()[:32]

    def _log_path(self, name: str, attempt: int) -> Path:
        return self._directory / "logs" / name / f"{attempt}.log"

    def _tell(self, type_: str, reason: str, message: str, container: str = "") -> None:
        metadata = self.pod.metadata
        init = any(one.name == container for one in self.pod.spec.init_containers)
        path = f"spec.{'initContainers' if init else 'containers'}{{{container}}}" if container else ""
        reference = ObjectReference(
            api_version="v1",
            kind="Pod",
            namespace=metadata.namespace,
            name=metadata.name,
            uid=metadata.uid,
            field_path=path,
        )
        record = self._node.events.warning if type_ == "Warning" else self._node.events.normal
        record(reference, reason, message)

    def _now(self) -> float:
        return self._node.clock.wall().timestamp()


def _end_of_log(path: Path) -> bytes:
    """The last bytes of a container's output, without the log's own columns."""
    try:
        with open(path, "rb") as file:
            file.seek(max(path.stat().st_size - 4 * LOG_FALLBACK_BYTES_MAX, 0))
            raw = file.read()
    except OSError:
        return b""
    renderer = log_format.Renderer(with_time=False)
    lines = [log_format.parse(one) for one in raw.split(b"\n")]
    return b"".join(renderer.render(one) for one in lines if one is not None)[-LOG_FALLBACK_BYTES_MAX:]
