"""The Node object: registration, heartbeats, capacity, conditions.

Stands apart from pods: it says what the machine is and that it lives. Lease `kube-node-lease/<node>` is renewed every
10 s (KEP-589), the status is written when it changed and otherwise every 5 min. Facts come from /proc and os-release.
"""

import asyncio
import contextlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pilotage.agent.config import Config
from pilotage.agent.core.allocatable import allocatable
from pilotage.api import timestamp
from pilotage.api.codec import to_wire
from pilotage.api.coordination_v1 import Lease, LeaseSpec
from pilotage.api.core_v1 import (
    ContainerImage,
    DaemonEndpoint,
    Node,
    NodeAddress,
    NodeCondition,
    NodeDaemonEndpoints,
    NodeSpec,
    NodeStatus,
    NodeSystemInfo,
)
from pilotage.api.meta_v1 import ObjectMeta, OwnerReference
from pilotage.api.status import ApiError, is_already_exists, is_not_found
from pilotage.client import Client, ConnectionFailed, PatchType
from pilotage.kit.backoff import Backoff
from pilotage.kit.clock import Clock
from pilotage.telemetry import get_logger

LEASE_NAMESPACE = "kube-node-lease"
LEASE_DURATION_S = 40
HEARTBEAT_S = 10.0
STATUS_AT_LEAST_EVERY_S = 300.0
VERSION = "v1.36.0+pilotage"

_RETRY = Backoff(initial_s=0.1, max_s=5.0)
_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the node has, read once."""

    cpus: int
    memory_bytes: int
    disk_bytes: int
    info: NodeSystemInfo


def read_machine(data_dir: Path) -> Machine:
    """Capacity and identity of this machine."""
    disk = os.statvfs(data_dir)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=_meminfo()["MemTotal"],
        disk_bytes=disk.f_blocks * disk.f_frsize,
        info=NodeSystemInfo(
            machine_id=_text("/etc/machine-id"),
            system_uuid=_text("/etc/machine-id"),
            boot_id=_text("/proc/sys/kernel/random/boot_id"),
            kernel_version=platform.release(),
            os_image=_os_name(),
            kubelet_version=VERSION,
            kube_proxy_version=VERSION,
            operating_system="linux",
            architecture=architecture,
        ),
    )


def default_labels(config: Config, machine: Machine) -> dict[str, str]:
    """The labels every node has, overridden and extended by the configuration."""
    return {
        "kubernetes.io/hostname": config.node,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.info.architecture,
    } | config.labels


def capacity(config: Config, machine: Machine) -> dict[str, str]:
    """What the machine has, as quantities."""
    return {
        "cpu": str(machine.cpus),
        "memory": f"{machine.memory_bytes // 1024}Ki",
        "ephemeral-storage": f"{machine.disk_bytes // 1024}Ki",
        "pods": str(config.pods_max),
    }


class NodeRegistration:
    """Keeps one Node object true."""

    def __init__(
        self,
        config: Config,
        client: Client,
        machine: Machine,
        clock: Clock,
        *,
        ready: Callable[[], str],
        pressure: Callable[[], frozenset[str]],
        images: Callable[[], tuple[ContainerImage, ...]],
    ) -> None:
        self._config = config
        self._client = client
        self._machine = machine
        self._clock = clock
        self._ready = ready  # "" when pods can run, else why not
        self._pressure = pressure  # the conditions of `core.eviction` that hold
        self._images = images
        self._due = asyncio.Event()  # something changed that the status should say at once
        self._conditions: dict[str, NodeCondition] = {}
        self._uid = ""
        self.runtime_version = ""

    async def register(self) -> None:
        """Create or adopt the object and write its first status; retries until it worked."""
        failures = 0
        while True:
            try:
                await self._register()
                await self._write_status()
                return
            except (ApiError, ConnectionFailed) as error:
                failures += 1
                if failures > 3:
                    _log.warning("cannot register node", node=self._config.node, error=str(error)[:300])
            await asyncio.sleep(_RETRY.delay_s(failures))

    async def _register(self) -> None:
        config = self._config
        labels = default_labels(config, self._machine)
        node = Node(
            metadata=ObjectMeta(name=config.node, labels=labels),
            spec=NodeSpec(pod_cidr=config.pod_cidr, pod_cidrs=config.pod_cidrs, taints=config.taints),
        )
        try:
            created = await self._client.create(node)
        except ApiError as error:
            if not is_already_exists(error):
                raise
            body: dict[str, Any] = {"metadata": {"labels": labels}}
            found = await self._client.get(Node, config.node)
            if not found.spec.pod_cidr:
                body["spec"] = {"podCIDR": config.pod_cidr, "podCIDRs": list(config.pod_cidrs)}
            created = await self._client.patch(Node, config.node, body)
        self._uid = created.metadata.uid

    def changed(self) -> None:
        """A condition may be another one: look, and write, now."""
        self._due.set()

    async def heartbeat(self) -> None:
        """Renew the lease and keep the status current, until cancelled."""
        loop = asyncio.get_running_loop()
        written_at = loop.time()
        while True:
            try:
                await self._renew_lease()
                before = {name: one.status for name, one in self._conditions.items()}
                now_true = {one.type: one.status for one in self._find_conditions()}
                if before != now_true or loop.time() - written_at > STATUS_AT_LEAST_EVERY_S:
                    await self._write_status()
                    written_at = loop.time()
            except (ApiError, ConnectionFailed) as error:
                _log.warning("heartbeat failed", node=self._config.node, error=str(error)[:300])
                await asyncio.sleep(1.0)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._due.wait()
            self._due.clear()

    async def _renew_lease(self) -> None:
        name, now = self._config.node, timestamp.render_micro(self._clock.wall())
        try:
            await self._client.patch(Lease, name, {"spec": {"renewTime": now}}, namespace=LEASE_NAMESPACE)
        except ApiError as error:
            if not is_not_found(error):
                raise
            owner = OwnerReference(api_version="v1", kind="Node", name=name, uid=self._uid)  # type: ignore[arg-type]
            await self._client.create(
                Lease(
                    metadata=ObjectMeta(name=name, namespace=LEASE_NAMESPACE, owner_references=(owner,)),
                    spec=LeaseSpec(holder_identity=name, lease_duration_seconds=LEASE_DURATION_S, renew_time=now),
                )
            )

    async def _write_status(self) -> None:
        config, machine = self._config, self._machine
        conditions = self._find_conditions()
        self._conditions = {one.type: one for one in conditions}
        resources = capacity(config, machine)
        status = NodeStatus(
            capacity=resources,
            allocatable=allocatable(resources, **config.allocatable_rules),
            conditions=conditions,
            addresses=(
                *(NodeAddress(type="InternalIP", address=address) for address in config.node_ips),
                NodeAddress(type="Hostname", address=config.node),
            ),
            daemon_endpoints=NodeDaemonEndpoints(kubelet_endpoint=DaemonEndpoint(port=config.port)),
            node_info=msgspec.structs.replace(machine.info, container_runtime_version=self.runtime_version),
            images=self._images(),
        )
        body = to_wire(status)
        # They merge by type, of which two families have two: the list is replaced, as the kubelet does it.
        body["addresses"] = [{"$patch": "replace"}, *body["addresses"]]
        await self._client.patch(
            Node, config.node, {"status": body}, subresource="status", patch_type=PatchType.STRATEGIC
        )

    def _find_conditions(self) -> tuple[NodeCondition, ...]:
        """As the kubelet words them; transition times are kept while the status stays."""
        now = timestamp.render(self._clock.wall())
        why_not = self._ready()
        holding = self._pressure()
        found = [
            *(_pressure(type_, bad, good, type_ in holding) for type_, bad, good in _PRESSURES),
            NodeCondition(
                type="Ready",
                status="False" if why_not else "True",
                reason="KubeletNotReady" if why_not else "KubeletReady",
                message=why_not or "kubelet is posting ready status",
            ),
        ]
        conditions = []
        for one in found:
            before = self._conditions.get(one.type)
            since = before.last_transition_time if before is not None and before.status == one.status else now
            conditions.append(
                NodeCondition(
                    type=one.type,
                    status=one.status,
                    reason=one.reason,
                    message=one.message,
                    last_heartbeat_time=now,
                    last_transition_time=since,
                )
            )
        return tuple(conditions)


_PRESSURES = (
    ("MemoryPressure", "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
    ("DiskPressure", "KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
    ("PIDPressure", "KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
)


def _pressure(type_: str, bad: str, good: str, under_pressure: bool) -> NodeCondition:
    reason = bad if under_pressure else good
    words = {
        "MemoryPressure": ("kubelet has insufficient memory available", "kubelet has sufficient memory available"),
        "DiskPressure": ("kubelet has disk pressure", "kubelet has no disk pressure"),
        "PIDPressure": ("kubelet has insufficient PID available", "kubelet has sufficient PID available"),
    }
    message = words[type_][0 if under_pressure else 1]
    return NodeCondition(type=type_, status=str(under_pressure), reason=reason, message=message)


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}


def _os_name() -> str:
    for line in _text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
