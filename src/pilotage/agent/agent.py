"""The agent's composition: one process that runs the pods of one node.

Stands apart as the place where the parts meet: informers → workers, runtime exits → workers, node heartbeats, routes,
the Agent API. Ends when cancelled and leaves every container running; the next one finds them again.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from pilotage.agent import metrics, server
from pilotage.agent.checks import Checker
from pilotage.agent.collector import ImageCollector
from pilotage.agent.config import Config
from pilotage.agent.container_setup import ContainerSetup
from pilotage.agent.core import admission, resize, resolver, shutdown, static_pod
from pilotage.agent.core.allocatable import allocatable
from pilotage.agent.core.crash_backoff import Ceilings
from pilotage.agent.core.fields import NodeFacts
from pilotage.agent.core.static_pod import StaticPod
from pilotage.agent.host_ports import HostPorts
from pilotage.agent.housekeeping import Housekeeping
from pilotage.agent.image_pull import ImagePuller
from pilotage.agent.image_uses import ImageUses
from pilotage.agent.images import ImageStore, image_list
from pilotage.agent.log_rotation import LogRotation
from pilotage.agent.memory import PodMemory
from pilotage.agent.meter import KernelMeter, Meter
from pilotage.agent.mirror_pods import MirrorPods
from pilotage.agent.mounts import KernelMounts, Mounts
from pilotage.agent.node import NodeRegistration, capacity, default_labels, read_machine
from pilotage.agent.pod_network import NodeNetwork, PodNetwork
from pilotage.agent.references import References
from pilotage.agent.rootfs import RootFSMaker
from pilotage.agent.runtime import ContainerExit, Runtime
from pilotage.agent.runtime.cgroup import ControlGroups
from pilotage.agent.runtime.oci import OCIRuntime
from pilotage.agent.services import NodeServices
from pilotage.agent.static_pods import StaticPods
from pilotage.agent.sub_paths import SubPaths
from pilotage.agent.volumes import Volumes
from pilotage.agent.worker import PodWorker
from pilotage.api import quantity
from pilotage.api.core_v1 import ContainerImage, Node, ObjectReference, Pod, Service
from pilotage.api.status import ApiError
from pilotage.client import Client, ConnectionFailed, EventRecorder, Informer
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.network import KernelWiring, NetworkError, Wiring
from pilotage.nft import KernelNft, Nft
from pilotage.telemetry import get_logger

WORKER_RESTART_S = 1.0  # a worker that failed for a reason of ours is taken up again after this
TELL_API_S = 5.0  # for telling the API what a node does that goes down; it may be gone already
KILLED_AFTER_S = 2.0  # what a pod may take beyond its grace period to be killed and seen to be
IMAGES_REPORTED_MAX = 50  # in the node's status, as the kubelet's nodeStatusMaxImages
_log = get_logger()


def _nothing() -> None:
    """Nobody waits for readiness."""


async def run(
    config: Config,
    client: Client,
    *,
    on_ready: Callable[[], None] = _nothing,
    runtime: Runtime | None = None,
    wiring: Wiring | None = None,
    mounts: Mounts | None = None,
    open_nft: Callable[[], Nft] = KernelNft,
    meter: Meter | None = None,
    clock: Clock = SYSTEM_CLOCK,
    going_down: asyncio.Event | None = None,
) -> None:
    """Run the node until cancelled. `on_ready` is called once the node is registered and its pods are taken up.

    When whoever called sets `going_down`, the machine is about to stop: pods end in the order of `config.shutdown`, and
    then this does. A cancellation disturbs no pod, not even then.

    The seams default to the kernel's; the process must be in the node's network namespace.
    """
    for directory in (config.data_dir, config.run_dir):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with task_set() as tasks:
        agent = Agent(
            config,
            client,
            tasks,
            runtime=runtime,
            wiring=wiring or KernelWiring(),
            mounts=mounts or KernelMounts(),
            open_nft=open_nft,
            meter=meter,
            clock=clock,
        )
        await agent.open()
        try:
            async with server.serve(config, agent):
                on_ready()
                await (going_down or asyncio.Event()).wait()
                await agent.shut_down()
        finally:
            await agent.aclose()


class Agent:
    """Workers by pod uid, and what they share."""

    def __init__(
        self,
        config: Config,
        client: Client,
        tasks: TaskSet,
        *,
        runtime: Runtime | None,
        wiring: Wiring,
        mounts: Mounts,
        open_nft: Callable[[], Nft],
        meter: Meter | None,
        clock: Clock,
    ) -> None:
        self._mounts = mounts
        self._host_ports = HostPorts(open_nft)
        self._config = config
        self._client = client
        self._tasks = tasks
        self._clock = clock
        self._going_down = False
        self._ended = asyncio.Event()  # a pod is over, or needs less
        self._workers: dict[str, PodWorker] = {}
        self._by_name: dict[str, str] = {}  # namespace/name → uid
        cgroups = ControlGroups(config.cgroup_parent)
        # A user namespace's root may own the files by chance, but may not set what the runtime sets (devices).
        self._limits = bool(config.cgroup_parent) and cgroups.writable and is_privileged()
        self.runtime: Runtime = runtime or OCIRuntime(config.run_dir, cgroups=cgroups, clock=clock)
        network = NodeNetwork(bridge=config.bridge, pod_cidr=config.pod_cidr, second_pod_cidr=config.second_pod_cidr)
        self.network = PodNetwork(wiring, network, config.run_dir / "netns", clock)
        self._machine = read_machine(config.data_dir)
        available = allocatable(capacity(config, self._machine), **config.allocatable_rules)
        self._facts = NodeFacts(
            name=config.node, ip=config.node_ip, allocatable=available, further_ips=config.node_ips[1:]
        )
        self._image_uses = ImageUses(config.images)
        self._services = Informer(client, Service)
        self._nodes = Informer(client, Node)
        self._pods = Informer(client, Pod, field_selector=f"spec.nodeName={config.node}")
        self._events = EventRecorder(client, "kubelet", host=config.node, clock=clock)
        self._references = References(client, tasks, self._reference_changed)
        self._memory = PodMemory(config.data_dir / "pods")
        self._static: StaticPods | None = None
        if config.static_pods_dir is not None:
            config.static_pods_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
            self._static = StaticPods(config.static_pods_dir, config.node, clock, self._static_changed)
        self._static_pods: dict[str, StaticPod] = {}  # by uid; also those whose file is gone while they still run
        self._mirrors = MirrorPods(client, config.node, wanted=self._static_here, shown=self._pods.list)
        self._node_services = self._build(client, cgroups, clock)
        self._registration = NodeRegistration(
            config,
            client,
            self._machine,
            clock,
            ready=self._why_not_ready,
            pressure=lambda: self._housekeeping.conditions,
            images=self._image_list,
        )
        self._housekeeping = self._build_housekeeping(meter, cgroups, clock)

    def _build(self, client: Client, cgroups: ControlGroups, clock: Clock) -> NodeServices:
        config = self._config
        hidden = (config.data_dir, config.run_dir, config.images, *config.hidden_paths)
        scratch = config.run_dir / "scratch"
        roots = RootFSMaker(
            scratch=scratch, hidden=hidden, privileged=is_privileged(), mounts=self._mounts, uses=self._image_uses
        )
        volumes = Volumes(
            pods_dir=config.data_dir / "pods",
            client=client,
            references=self._references,
            node=lambda: self._facts,
            mounts=self._mounts,
            sub_paths=SubPaths(config.run_dir / "subpaths", self._mounts),
            clock=clock,
        )
        setup = ContainerSetup(
            roots=roots,
            volumes=volumes,
            references=self._references,
            services=self._services.list,
            node=lambda: self._facts,
            cgroup_path=cgroups.path if self._limits else lambda uid, container_id: "",
            unified=self._limits and cgroups.unified,
            memory_bytes=self._machine.memory_bytes,
            privileged=is_privileged(),
            seccomp_dir=config.data_dir / "seccomp",
            cluster_domain=config.cluster_domain,
        )
        return NodeServices(
            client=client,
            events=self._events,
            runtime=self.runtime,
            network=self.network,
            host_ports=self._host_ports,
            volumes=volumes,
            references=self._references,
            images=ImagePuller(images=ImageStore(config.images), references=self._references),
            setup=setup,
            roots=roots,
            mounts=self._mounts,
            checker=Checker(self.runtime),
            memory=self._memory,
            ceilings=Ceilings(crash_s=config.crash_backoff_max_s, image_s=config.image_backoff_max_s),
            judge_resize=self._judge_resize,
            room_changed=self._room_changed,
            open_groups=cgroups.open_pod if self._limits else lambda pod: None,
            clock=clock,
            run_dir=config.run_dir,
            node_ips=config.node_ips,
            cluster_dns=config.cluster_dns,
            cluster_domain=config.cluster_domain,
            node_resolver=_node_resolver,
        )

    def _build_housekeeping(self, meter: Meter | None, cgroups: ControlGroups, clock: Clock) -> Housekeeping:
        config, whole = self._config, capacity(self._config, self._machine)
        kernel_meter = KernelMeter(
            pods_dir=config.data_dir / "pods",
            images_dir=config.images,
            groups=cgroups,
            layer=self._node_services.roots.layer,
            allocatable_memory=quantity.whole(self._facts.allocatable["memory"]),
        )
        collector = ImageCollector(
            images=ImageStore(config.images), uses=self._image_uses, policy=config.image_gc, clock=clock
        )
        rotation = LogRotation(
            self.runtime, bytes_max=config.log_bytes_max, files_max=config.log_files_max, clock=clock
        )
        return Housekeeping(
            config,
            capacity=whole,
            meter=meter or kernel_meter,
            groups=cgroups if self._limits else None,
            collector=collector,
            rotation=rotation,
            workers=self._workers.values,
            on_change=self._registration.changed,
            tell=self._tell_about_node,
            clock=clock,
        )

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Watch, register, take up the pods of an earlier agent. Returns once the node is ready."""
        self.runtime.on_exit(self._container_ended)
        await self.runtime.open()
        self._registration.runtime_version = await self.runtime.version()
        self._node_services.roots.prepare()
        self.network.open()
        await self._housekeeping.open()
        self._tasks.start(self._events.run(), key="events")
        for informer in (self._services, self._nodes, self._pods):
            self._tasks.start(informer.run(), key=informer.kind.kind)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._registration.register())
            for informer in (self._services, self._nodes, self._pods):
                group.create_task(informer.wait_synced())
        if not self._limits:
            self._tell_no_limits()
        if self._static is not None:
            self._static.load()
        await self._take_up()
        self._pods.add_handler(self._pod_changed)
        self._static_changed()
        self._tasks.start(self._mirrors.run(), key="mirrors")
        if self._static is not None:
            self._tasks.start(self._static.run(), key="static pods")
        self._nodes.add_handler(self._node_changed)
        self._tasks.start(self._registration.heartbeat(), key="heartbeat")
        self._tasks.start(self._housekeeping.run(), key="housekeeping")

    async def aclose(self) -> None:
        """Stop watching; containers run on."""
        await self._node_services.checker.aclose()
        await self.runtime.aclose()
        self._host_ports.close()

    async def shut_down(self) -> None:
        """The machine goes down: say so, take no more pods, end those that run by priority (KEP-2712)."""
        self._going_down = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_API_S):
                await self._registration.register()
        running = [one.pod for one in self._workers.values() if not one.state.finished]
        for step in shutdown.steps(running, self._config.shutdown):
            _log.info("ending pods", pods=len(step.uids), within_s=step.grace_s)
            workers = [self._workers[uid] for uid in step.uids if uid in self._workers]
            for worker in workers:
                worker.end(shutdown.ENDED_REASON, shutdown.ENDED_MESSAGE, grace_s=step.grace_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(step.grace_s + KILLED_AFTER_S):
                    while not all(worker.state.finished for worker in workers):
                        self._ended.clear()
                        await self._ended.wait()
            with contextlib.suppress(TimeoutError, ApiError, ConnectionFailed):
                async with asyncio.timeout(TELL_API_S):
                    for worker in workers:
                        await worker.publish()

    def _why_not_ready(self) -> str:
        return shutdown.NODE_MESSAGE if self._going_down else ""

    async def _take_up(self) -> None:
        """Pods that left something on disk: those still in the API go on, the others are stopped."""
        static = self._static.pods if self._static is not None else {}
        present: dict[str, Pod] = {pod.metadata.uid: pod for pod in self._pods.list()}
        present |= {uid: one.pod for uid, one in static.items()}
        for uid in self._memory.uids():
            remembered = self._memory.load(uid)
            if remembered is None:
                if uid not in present:
                    self._memory.forget(uid)
                continue
            pod, state = remembered
            worker = PodWorker(present.get(uid, pod), self._node_services, static=uid in static)
            worker.recover(state)
            if uid not in present:
                worker.vanish()
            self._start(worker)
        for container_id in self.runtime.list():
            workers = self._workers.values()
            if not any(worker.owns(container_id) or worker.is_starting(container_id) for worker in workers):
                _log.warning("removing a container that no pod knows", container=container_id)
                await self.runtime.remove(container_id)
                self._node_services.roots.remove(container_id)

    def _start(self, worker: PodWorker) -> None:
        self._workers[worker.uid] = worker
        self._by_name[worker.pod.metadata.key] = worker.uid
        metrics.PODS.set(len(self._workers))
        self._tasks.start(self._work(worker), key=("pod", worker.uid))

    async def _work(self, worker: PodWorker) -> None:
        """Run a worker; one that fails by a mistake of ours must not take the other pods along."""
        while True:
            try:
                await worker.run()
            except Exception as error:
                _log.exception("pod worker failed", pod=worker.pod.metadata.key, error=repr(error)[:500])
            if worker.finished:
                break
            await asyncio.sleep(WORKER_RESTART_S)
            remembered = self._memory.load(worker.uid)
            gone, pod, mirror = worker.gone, worker.pod, worker.mirror
            worker = PodWorker(pod, self._node_services, static=worker.static)
            worker.mirror_changed(mirror)
            if remembered is not None:
                worker.recover(remembered[1])
            if gone:
                worker.vanish()
            self._workers[worker.uid] = worker
        if (
            worker.gone
            or worker.static
            or self._pods.get(worker.pod.metadata.name, worker.pod.metadata.namespace) is None
        ):
            self._forget(worker)

    def _forget(self, worker: PodWorker) -> None:
        self._workers.pop(worker.uid, None)
        if self._by_name.get(worker.pod.metadata.key) == worker.uid:
            del self._by_name[worker.pod.metadata.key]
        metrics.PODS.set(len(self._workers))
        self._room_changed()
        if worker.static:
            self._static_changed()  # another pod of that name may have waited for this one's end

    # ── changes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _static_here(self) -> list[StaticPod]:
        """What is to be seen in the API."""
        return list(self._static_pods.values())

    def _static_changed(self) -> None:
        """Run what the files hold, end what they hold no more; a pod waits for the end of its namesake."""
        files = self._static.pods if self._static is not None else {}
        for uid, worker in tuple(self._workers.items()):
            if worker.static and uid not in files and not worker.pod.metadata.is_deleting:
                worker.withdraw()
        ending = {uid: one for uid, one in self._static_pods.items() if uid in self._workers}
        self._static_pods = ending | files
        for uid, one in files.items():
            if uid not in self._workers and one.pod.metadata.key not in self._by_name:
                self._take(one.pod, static=True)
        for pod in self._pods.list():
            self._mirror_changed(None, pod)
        self._mirrors.look()

    def _mirror_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            worker = self._workers.get(static_pod.mirrored(pod)) if pod is not None else None
            if worker is not None and worker.static and (pod is new or new is None):
                worker.mirror_changed(new)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if any(pod is not None and static_pod.mirrored(pod) for pod in (old, new)):
            self._mirror_changed(old, new)
            self._mirrors.look()
            old, new = (None if pod is not None and static_pod.mirrored(pod) else pod for pod in (old, new))
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            worker = self._workers.get(old.metadata.uid)
            if worker is not None:
                if worker.finished:
                    self._forget(worker)
                else:
                    worker.vanish()
        if new is None:
            return
        worker = self._workers.get(new.metadata.uid)
        if worker is None:
            self._take(new)
            return
        worker.update(new)

    def _take(self, pod: Pod, *, static: bool = False) -> None:
        """A pod that is new here: run it, or say why this node cannot."""
        worker = PodWorker(pod, self._node_services, static=static)
        if not pod.metadata.is_deleting and pod.status.phase not in ("Succeeded", "Failed"):
            late = admission.Rejection(reason=shutdown.LATE_REASON, message=shutdown.LATE_MESSAGE)
            rejection = late if self._going_down else admission.admit(pod, self._view())
            if rejection is not None:
                worker.reject(rejection.reason, rejection.message)
        self._start(worker)

    def _judge_resize(self, pod: Pod) -> admission.Rejection | None:
        return resize.judge(pod, self._view(but=pod.metadata.uid))

    def _room_changed(self) -> None:
        """Resizes that were put off are looked at again, those of important pods first (KEP-1287)."""
        self._ended.set()
        put_off = [one for one in self._workers.values() if one.state.resize_pending == "Deferred"]
        for worker in sorted(put_off, key=lambda one: (-one.pod.spec.priority, one.state.started_at)):
            worker.room_changed()

    def _view(self, *, but: str = "") -> admission.NodeView:
        """What the node has taken, leaving out the pod of uid `but`."""
        node = self._nodes.get(self._config.node)
        running = (one for one in self._workers.values() if not one.state.finished and not one.state.ended)
        return admission.NodeView(
            name=self._config.node,
            labels=node.metadata.labels if node is not None else default_labels(self._config, self._machine),
            taints=node.spec.taints if node is not None else self._config.taints,
            allocatable=self._facts.allocatable,
            pods=tuple(worker.allocated for worker in running if worker.uid != but),
            pressure=self._housekeeping.conditions,
        )

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None and old is not None and old.metadata.name == self._config.node:
            self._tasks.start(self._registration.register(), key="register")  # somebody deleted this node
        if old is not None and new is not None:
            same = old.status.addresses == new.status.addresses and old.spec.pod_cidrs == new.spec.pod_cidrs
            if same:
                return
        try:
            self.network.route_to(self._nodes.list(), self._config.node)
        except NetworkError as error:
            _log.warning("cannot set routes to nodes", error=str(error))

    def _container_ended(self, exit_: ContainerExit) -> None:
        for worker in self._workers.values():
            if worker.owns(exit_.container_id):
                worker.container_ended(exit_)
                return

    def _reference_changed(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.references_changed()

    # ── for the Agent API and the node ──────────────────────────────────────────────────────────────────────────

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of the pod of that name, if there is one."""
        uid = self._by_name.get(f"{namespace}/{name}")
        return self._workers.get(uid) if uid is not None else None

    def snapshot(self) -> dict[str, object]:
        """For debugging: the state of every pod."""
        return {worker.pod.metadata.key: worker.state for worker in self._workers.values()}

    def _image_list(self) -> tuple[ContainerImage, ...]:
        return tuple(
            ContainerImage(names=(image.name,), size_bytes=image.size_bytes)
            for image in image_list(self._config.images)[:IMAGES_REPORTED_MAX]
        )

    def _tell_no_limits(self) -> None:
        message = "control groups are not writable for this user: containers run without CPU, memory and pid limits"
        self._tell_about_node("Warning", "NoResourceLimits", message)

    def _tell_about_node(self, type_: str, reason: str, message: str) -> None:
        reference = ObjectReference(api_version="v1", kind="Node", name=self._config.node)
        record = self._events.warning if type_ == "Warning" else self._events.normal
        record(reference, reason, message)


def is_privileged() -> bool:
    """Whether this is root of the machine, not of a user namespace with a few ids."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        inside, outside, count = Path("/proc/self/uid_map").read_text().split()[:3]
        return os.geteuid() == 0 and (inside, outside) == ("0", "0") and int(count) > 65535
    return False


def _node_resolver() -> resolver.ResolvConf:
    try:
        return resolver.parse_resolv_conf(Path("/etc/resolv.conf").read_text())
    except OSError:
        return resolver.ResolvConf()
