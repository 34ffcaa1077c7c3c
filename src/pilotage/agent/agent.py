"""The agent's composition: one process that runs the pods of one node.

Stands apart as the place where the parts meet: informers → workers, runtime exits → workers, node heartbeats, routes,
the Agent API. Which pods have a worker is `pod_workers`' business. Ends when cancelled and leaves every container
running; the next one finds them again.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from pilotage.agent import app_armor, server
from pilotage.agent.checks import Checker
from pilotage.agent.collector import ImageCollector
from pilotage.agent.config import Config
from pilotage.agent.container_setup import ContainerSetup
from pilotage.agent.core import admission, resolver, shutdown
from pilotage.agent.core.allocatable import allocatable
from pilotage.agent.core.crash_backoff import Ceilings
from pilotage.agent.core.fields import NodeFacts
from pilotage.agent.host_ports import HostPorts
from pilotage.agent.housekeeping import Housekeeping
from pilotage.agent.image_pull import ImagePuller
from pilotage.agent.image_uses import ImageUses
from pilotage.agent.images import ImageStore, image_list
from pilotage.agent.log_rotation import LogRotation
from pilotage.agent.memory import PodMemory
from pilotage.agent.meter import KernelMeter, Meter
from pilotage.agent.mounts import KernelMounts, Mounts
from pilotage.agent.node import NodeRegistration, capacity, default_labels, read_machine
from pilotage.agent.pod_network import NodeNetwork, PodNetwork
from pilotage.agent.pod_workers import TELL_API_S, PodWorkers
from pilotage.agent.references import References
from pilotage.agent.rootfs import RootFSMaker
from pilotage.agent.runtime import Runtime
from pilotage.agent.runtime.cgroup import ControlGroups
from pilotage.agent.runtime.oci import OCIRuntime
from pilotage.agent.services import NodeServices
from pilotage.agent.sub_paths import SubPaths
from pilotage.agent.user_namespaces import UserNamespaces
from pilotage.agent.volumes import Volumes
from pilotage.agent.worker import PodWorker
from pilotage.api import quantity
from pilotage.api.core_v1 import ContainerImage, Node, ObjectReference, Pod, Service
from pilotage.client import Client, EventRecorder, Informer
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.network import KernelWiring, NetworkError, Wiring
from pilotage.nft import KernelNft, Nft
from pilotage.telemetry import get_logger

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
    """What the workers of a node's pods share, and the node as the API sees it."""

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
        self._host_ports = HostPorts(config.pod_cidrs, open_nft)
        self._config = config
        self._client = client
        self._tasks = tasks
        self._clock = clock
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
        self._references = References(client, tasks, lambda uid: self._workers.reference_changed(uid))
        self._node_services = self._build(client, cgroups, clock)
        self._workers = PodWorkers(config, self._node_services, tasks, self._pods, view=self._view)
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
            scratch=scratch,
            passable=config.roots,
            hidden=hidden,
            privileged=is_privileged(),
            mounts=self._mounts,
            uses=self._image_uses,
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
            users=UserNamespaces(
                config.run_dir / "users",
                first=config.user_ranges[0],
                last=config.user_ranges[1],
                privileged=is_privileged(),
            ),
            checker=Checker(self.runtime),
            memory=PodMemory(config.data_dir / "pods"),
            ceilings=Ceilings(crash_s=config.crash_backoff_max_s, image_s=config.image_backoff_max_s),
            judge_resize=lambda pod: self._workers.judge_resize(pod),
            room_changed=lambda: self._workers.room_changed(),
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
            workers=self._workers.present,
            on_change=self._registration.changed,
            tell=self._tell_about_node,
            clock=clock,
        )

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Watch, register, take up the pods of an earlier agent. Returns once the node is ready."""
        self.runtime.on_exit(self._workers.container_ended)
        await self.runtime.open()
        self._registration.runtime_version = await self.runtime.version()
        self._node_services.roots.prepare()
        self._node_services.users.open()
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
        await self._workers.open()
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
        self._workers.going_down = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_API_S):
                await self._registration.register()
        await self._workers.end()

    def _why_not_ready(self) -> str:
        return shutdown.NODE_MESSAGE if self._workers.going_down else ""

    # ── for the Agent API ───────────────────────────────────────────────────────────────────────────────────────

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of the pod of that name, if there is one."""
        return self._workers.named(namespace, name)

    def snapshot(self) -> dict[str, object]:
        """For debugging: the state of every pod."""
        return {worker.pod.metadata.key: worker.state for worker in self._workers.present()}

    # ── the node ────────────────────────────────────────────────────────────────────────────────────────────────

    def _view(self, pods: tuple[Pod, ...]) -> admission.NodeView:
        """The node as it is while it runs `pods`."""
        node = self._nodes.get(self._config.node)
        return admission.NodeView(
            name=self._config.node,
            labels=node.metadata.labels if node is not None else default_labels(self._config, self._machine),
            taints=node.spec.taints if node is not None else self._config.taints,
            allocatable=self._facts.allocatable,
            pods=pods,
            pressure=self._housekeeping.conditions,
            app_armor=app_armor.is_enabled(),
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
